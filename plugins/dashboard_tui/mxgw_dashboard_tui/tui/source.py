"""Where the dashboard's data comes from: a gateway, or a recording. Independent of textual."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol, TypeVar

from google.protobuf.message import Message

from mxgw.dashboard.v1 import dashboard_service_pb2 as pb
from mxgw_dashboard_tui.tui.model import Link

_M = TypeVar("_M", bound=Message)


class Refused(Exception):
    """The gateway refused, or cannot be reached; the text has the reason."""


class NotThere(Refused):
    """What was asked for does not exist, or this operator may not see it; the two look alike."""


class NotServed(Refused):
    """The gateway does not have this service, because its plugin is not enabled."""


class Listener(Protocol):
    """Gets the news of a source; called in the event loop."""

    def link_changed(self, link: Link, detail: str) -> None:
        """The state of the connection changed."""

    def snapshot_arrived(self, snapshot: pb.WatchGatewayResponse) -> None:
        """A snapshot arrived."""


class Source(Protocol):
    """A gateway, or a recording of one."""

    @property
    def name(self) -> str:
        """The name to show: an address, or a file."""

    @property
    def is_recording(self) -> bool:
        """Whether it is a recording, which refuses calls."""

    async def run(self, listener: Listener) -> None:
        """Report news to the listener until cancelled; reconnect after failures."""

    async def login(self, user: str, password: str, /) -> None:
        """Log in; the listener gets the new state of the connection.

        Raises:
            Refused: with the gateway's reason.
        """

    async def logout(self) -> None:
        """End the login; the listener gets the new state of the connection.

        Raises:
            Refused: there is no login, or the gateway cannot be reached.
        """

    async def ask(self, method: str, request: Message, answer: type[_M], /) -> _M:
        """Make a call by its full name, as in "/mxgw.dashboard.v1.DashboardService/ListItems".

        Raises:
            Refused: with the gateway's reason; `NotThere` or `NotServed` when that is the reason.
        """

    def follow(self, method: str, request: Message, answer: type[_M], /) -> AsyncIterator[_M]:
        """Yield the responses of a streaming call; raises as `ask`."""

    def watch_audit(self) -> AsyncIterator[pb.WatchAuditResponse]:
        """Yield the end of the audit log, and then new entries.

        Raises:
            Refused: with the gateway's reason.
        """

    def watch_session(self, session_id: str, /) -> AsyncIterator[pb.WatchSessionResponse]:
        """Yield the details of one session until it has ended.

        Raises:
            NotThere: the session does not exist, or may not be seen.
            Refused: the connection was cut.
        """

    def watch_events(self, session_id: str, /) -> AsyncIterator[pb.WatchEventsResponse]:
        """Yield a session's events; raises as `watch_session`."""

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
        """Log out and close the connection."""
