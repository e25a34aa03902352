"""The metrics of the gateway and of its plugins. They are made from counts at the moment when somebody reads them."""

from mxgw_core.metrics.collecting import MetricsSource

__all__ = ["MetricsSource"]
