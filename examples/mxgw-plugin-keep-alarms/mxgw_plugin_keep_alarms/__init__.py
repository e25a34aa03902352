"""An overflow policy for mxgw: a subscriber that falls behind loses values, but never its alarms."""

from mxgw_plugin_keep_alarms.plugin import KeepAlarmsPlugin, KeepAlarmsSettings
from mxgw_plugin_keep_alarms.policy import KeepAlarmsPolicy

__all__ = ["KeepAlarmsPlugin", "KeepAlarmsPolicy", "KeepAlarmsSettings"]
