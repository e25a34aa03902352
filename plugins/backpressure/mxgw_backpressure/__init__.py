"""Plugin `backpressure`: many subscribers on one session, each bounded, and a choice of what a slow one gets."""

from mxgw_backpressure.plugin import BackpressurePlugin
from mxgw_backpressure.settings import BackpressureSettings

__all__ = ["BackpressurePlugin", "BackpressureSettings"]
