"""A plugin for mxgw that greets each session in the log and adds the command `mxgw hello`."""

from mxgw_plugin_hello.plugin import HelloPlugin, HelloSettings

__all__ = ["HelloPlugin", "HelloSettings"]
