"""Plugin `metrics`: what monitoring sees of a gateway, over HTTP, and `mxgw top` for those without monitoring."""

from mxgw_metrics.plugin import MetricsPlugin
from mxgw_metrics.settings import MetricsSettings

__all__ = ["MetricsPlugin", "MetricsSettings"]
