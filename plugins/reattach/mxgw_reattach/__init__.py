"""Plugin `reattach`: workers survive a restart of the gateway, and the restarted gateway continues their sessions."""

from mxgw_reattach.plugin import ReattachPlugin
from mxgw_reattach.settings import ReattachSettings

__all__ = ["ReattachPlugin", "ReattachSettings"]
