"""Plugin `dashboard_tui`: the operator's live view of a gateway, in a terminal."""

from mxgw_dashboard_tui.plugin import DashboardPlugin
from mxgw_dashboard_tui.settings import DashboardSettings

__all__ = ["DashboardPlugin", "DashboardSettings"]
