"""Plugin `replay`: clients come back and miss nothing, or get gaps that say exactly what they missed."""

from mxgw_replay.plugin import ReplayPlugin
from mxgw_replay.settings import ReplaySettings

__all__ = ["ReplayPlugin", "ReplaySettings"]
