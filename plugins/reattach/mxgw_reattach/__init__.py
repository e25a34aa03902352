"""Plugin `reattach`: workers survive the gateway, and the next one takes them back without a gap."""

from mxgw_reattach.plugin import ReattachPlugin
from mxgw_reattach.settings import ReattachSettings

__all__ = ["ReattachPlugin", "ReattachSettings"]
