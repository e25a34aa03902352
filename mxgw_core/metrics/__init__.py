"""The metrics of the gateway, made from its counters on request, and those of its plugins."""

from mxgw_core.metrics.collecting import MetricsSource

__all__ = ["MetricsSource"]
