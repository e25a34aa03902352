"""Finds, loads and calls plugins, so that a failure of one plugin does not affect the others."""

from mxgw_core.plugins.calls import Answer
from mxgw_core.plugins.discovery import PluginRecord, PluginState, installed_plugins
from mxgw_core.plugins.host import PluginHost

__all__ = ["Answer", "PluginHost", "PluginRecord", "PluginState", "installed_plugins"]
