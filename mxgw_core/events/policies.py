"""An overflow policy as the gateway keeps it for one subscriber, and the policy that the gateway itself has."""

from __future__ import annotations

from dataclasses import dataclass, field

from mxgw_core.api.events import Disconnect, Lag, OverflowPolicy
from mxgw_core.plugins.calls import Owner


class DisconnectPolicy:
    """Ends the stream with SUBSCRIBER_OVERFLOW after the unread events are delivered; the client then resumes."""

    @property
    def name(self) -> str:
        return "disconnect"

    def on_overflow(self, lag: Lag) -> Disconnect:  # noqa: ARG002 - the answer does not depend on the lag
        return Disconnect()


@dataclass(frozen=True, slots=True)
class CheckedPolicy:
    """A policy whose attributes were checked and are never looked at again, because they can be code of a plugin.

    `interval_s` is 0 when the policy has no pace. `source` names the distribution of the policy, and `owner` is its
    plugin; without an owner, calls of the policy are not counted and timed.
    """

    policy: OverflowPolicy = field(default_factory=DisconnectPolicy)
    name: str = "disconnect"
    interval_s: float = 0.0
    source: str = "mxgw"
    owner: Owner | None = None
