"""Plugin `reattach`: workers survive a restart of the gateway, and their sessions continue without a gap."""

from mxgw_reattach.plugin import ReattachPlugin
from mxgw_reattach.settings import ReattachSettings

__all__ = ["ReattachPlugin", "ReattachSettings"]
