"""Plugin `backpressure`: several subscribers per session, limits for the lag of each, and more overflow policies."""

from mxgw_backpressure.plugin import BackpressurePlugin
from mxgw_backpressure.settings import BackpressureSettings

__all__ = ["BackpressurePlugin", "BackpressureSettings"]
