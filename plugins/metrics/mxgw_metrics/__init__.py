"""Plugin `metrics`: the metrics of a gateway over HTTP, and `mxgw top` to read them without a monitoring system."""

from mxgw_metrics.plugin import MetricsPlugin
from mxgw_metrics.settings import MetricsSettings

__all__ = ["MetricsPlugin", "MetricsSettings"]
