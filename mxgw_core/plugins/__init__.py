"""The plugin host: discovery, order, failure isolation."""

from mxgw_core.plugins.discovery import installed_plugins
from mxgw_core.plugins.host import PluginHost
from mxgw_core.plugins.records import Answer, PluginRecord, PluginState

__all__ = ["Answer", "PluginHost", "PluginRecord", "PluginState", "installed_plugins"]
