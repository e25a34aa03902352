"""The gateway's own metrics, made from its counters when somebody asks, and those of its plugins."""

from mxgw_core.metrics.collecting import MetricsSource

__all__ = ["MetricsSource"]
