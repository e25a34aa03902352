"""Plugin `replay`: the log keeps events after delivery, so that a client that comes back can read what it missed."""

from mxgw_replay.plugin import ReplayPlugin
from mxgw_replay.settings import ReplaySettings

__all__ = ["ReplayPlugin", "ReplaySettings"]
