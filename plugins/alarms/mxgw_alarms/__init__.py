"""Plugin `alarms`: one monitor keeps the plant's active alarms and reports each transition to every client."""

from mxgw_alarms.plugin import AlarmsPlugin
from mxgw_alarms.settings import AlarmsSettings

__all__ = ["AlarmsPlugin", "AlarmsSettings"]
