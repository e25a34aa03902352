"""The overflow policy core brings itself; others come from plugins."""

from __future__ import annotations

from mxgw_core.api.events import Disconnect, Lag


class DisconnectPolicy:
    """End the stream with SUBSCRIBER_OVERFLOW once what was unread is delivered; the client resumes by position."""

    @property
    def name(self) -> str:
        return "disconnect"

    def on_overflow(self, lag: Lag) -> Disconnect:  # noqa: ARG002  the answer does not depend on how far behind it is
        return Disconnect()
