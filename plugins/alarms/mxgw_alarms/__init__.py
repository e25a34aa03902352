"""Plugin `alarms`: one monitor keeps the plant's active alarms and tells every client of each transition."""

from mxgw_alarms.plugin import AlarmsPlugin
from mxgw_alarms.settings import AlarmsSettings

__all__ = ["AlarmsPlugin", "AlarmsSettings"]
