"""Where the dashboard's data comes from: a gateway, or a recording. Knows nothing of textual."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol, TypeVar

from google.protobuf.message import Message

from mxgw.dashboard.v1 import dashboard_service_pb2 as pb
from mxgw_dashboard_tui.tui.model import Link

_M = TypeVar("_M", bound=Message)


class Refused(Exception):
    """The gateway said no, or could not be asked; the text says why."""


class NotThere(Refused):
    """What was asked for is not there, or not this operator's to see; nobody can tell which."""


class NotServed(Refused):
    """The gateway does not have the service: the plugin that brings it is not enabled."""


class Listener(Protocol):
    """Told what happens; called in the event loop."""

    def link_changed(self, link: Link, detail: str) -> None:
        """The connection is another one now."""

    def snapshot_arrived(self, snapshot: pb.WatchGatewayResponse) -> None:
        """There is news."""


class Source(Protocol):
    """A gateway, or what stands in for one."""

    @property
    def name(self) -> str:
        """What to call it: an address, or a file."""

    @property
    def is_recording(self) -> bool:
        """Whether nothing can be asked or done."""

    async def run(self, listener: Listener) -> None:
        """Tell the listener everything until cancelled; reconnects by itself."""

    async def login(self, user: str, password: str, /) -> None:
        """Log in; the listener hears the rest.

        Raises:
            Refused: with the gateway's reason.
        """

    async def logout(self) -> None:
        """End the login; the listener hears the rest.

        Raises:
            Refused: there is none, or the gateway could not be told.
        """

    async def ask(self, method: str, request: Message, answer: type[_M], /) -> _M:
        """Make a call by its full name, as in "/mxgw.dashboard.v1.DashboardService/ListItems".

        Raises:
            Refused: with the gateway's reason; as `NotThere` or `NotServed` where that is it.
        """

    def follow(self, method: str, request: Message, answer: type[_M], /) -> AsyncIterator[_M]:
        """Yield what a streaming call answers; as `ask`."""

    def watch_audit(self) -> AsyncIterator[pb.WatchAuditResponse]:
        """Yield the end of the audit log, and then what is appended to it.

        Raises:
            Refused: with the gateway's reason.
        """

    def watch_session(self, session_id: str, /) -> AsyncIterator[pb.WatchSessionResponse]:
        """Yield looks at one session until it has ended.

        Raises:
            NotThere: it is not there, or not to be seen.
            Refused: the connection is cut.
        """

    def watch_events(self, session_id: str, /) -> AsyncIterator[pb.WatchEventsResponse]:
        """Yield a session's events; as `watch_session`."""

    async def list_items(self, session_id: str, page_token: str, /) -> pb.ListItemsResponse:
        """Return a page of a session's items.

        Raises:
            Refused: as `watch_session`.
        """

    async def list_settings(self) -> pb.ListSettingsResponse:
        """Return the settings.

        Raises:
            Refused: with the gateway's reason.
        """

    async def close_session(self, session_id: str, /) -> None:
        """End a session in order.

        Raises:
            Refused: with the gateway's reason.
        """

    async def kill_worker(self, session_id: str, /) -> None:
        """End a session by killing its worker.

        Raises:
            Refused: with the gateway's reason.
        """

    async def close(self) -> None:
        """Let go of the connection and of the login."""
