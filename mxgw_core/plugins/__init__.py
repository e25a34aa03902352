"""The plugin host: discovery, order, failure isolation."""

from mxgw_core.plugins.discovery import PluginRecord, PluginState, installed_plugins
from mxgw_core.plugins.host import Answer, PluginHost

__all__ = ["Answer", "PluginHost", "PluginRecord", "PluginState", "installed_plugins"]
