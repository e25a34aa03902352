"""The interface to the source of the dashboard's data: a live gateway or a recording. It is independent of textual."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol, TypeVar

from google.protobuf.message import Message

from mxgw.dashboard.v1 import dashboard_service_pb2 as pb
from mxgw_dashboard_tui.tui.model import Link

_M = TypeVar("_M", bound=Message)


class Refused(Exception):
    """The gateway refused a call, or cannot be reached; the text says why."""


class NotThere(Refused):
    """The requested object does not exist, or the operator is not allowed to see it. The gateway does not say which."""


class NotServed(Refused):
    """The gateway does not have this service, because its plugin is not enabled."""


class Listener(Protocol):
    """Receives the reports of a source. The source calls these methods in the event loop."""

    def link_changed(self, link: Link, detail: str) -> None:
        """The state of the connection changed."""

    def snapshot_arrived(self, snapshot: pb.WatchGatewayResponse) -> None:
        """A gateway report arrived: the state of the whole gateway at one moment."""


class Source(Protocol):
    """A live gateway, or a recording of a gateway."""

    @property
    def name(self) -> str:
        """The name to show: the gateway's address, or the file of the recording."""

    @property
    def is_recording(self) -> bool:
        """Whether the source is a recording, which refuses all calls."""

    async def run(self, listener: Listener) -> None:
        """Call `listener` for each gateway report and each change of the connection, until cancelled.

        After a failure a live source connects again.
        """

    async def login(self, user: str, password: str, /) -> None:
        """Log in. `run` then reports the new state of the connection to its listener.

        Raises:
            Refused: the gateway refused the login, or cannot be reached; the text says why.
        """

    async def logout(self) -> None:
        """End the login. `run` then reports the new state of the connection to its listener.

        Raises:
            Refused: there is no login, or the gateway cannot be reached.
        """

    async def ask(self, method: str, request: Message, answer: type[_M], /) -> _M:
        """Make a call by its full name, for example "/mxgw.dashboard.v1.DashboardService/ListItems".

        Raises:
            NotThere: the requested object does not exist, or the operator has no right to the call.
            NotServed: the gateway does not have this service.
            Refused: the call failed in another way; the text says why.
        """

    def follow(self, method: str, request: Message, answer: type[_M], /) -> AsyncIterator[_M]:
        """Yield the responses of a streaming call. Raises the same exceptions as `ask`."""

    def watch_audit(self) -> AsyncIterator[pb.WatchAuditResponse]:
        """Yield the newest entries of the audit log, and then each new entry.

        Raises:
            Refused: the gateway refused the call, or cannot be reached; the text says why.
        """

    def watch_session(self, session_id: str, /) -> AsyncIterator[pb.WatchSessionResponse]:
        """Yield the details of one session until it has ended.

        Raises:
            NotThere: the session does not exist, or the operator is not allowed to see it.
            Refused: the call failed in another way; the text says why.
        """

    def watch_events(self, session_id: str, /) -> AsyncIterator[pb.WatchEventsResponse]:
        """Yield a session's events. Raises the same exceptions as `watch_session`."""

    async def list_items(self, session_id: str, page_token: str, /) -> pb.ListItemsResponse:
        """Return a page of a session's items.

        Raises:
            NotThere: the session does not exist, or the operator is not allowed to see it.
            Refused: the call failed in another way; the text says why.
        """

    async def list_settings(self) -> pb.ListSettingsResponse:
        """Return the settings of the gateway.

        Raises:
            Refused: the gateway refused the call, or cannot be reached; the text says why.
        """

    async def close_session(self, session_id: str, /) -> None:
        """Close a session.

        Raises:
            Refused: the gateway refused the call, or cannot be reached; the text says why.
        """

    async def kill_worker(self, session_id: str, /) -> None:
        """End a session by killing its worker.

        Raises:
            Refused: the gateway refused the call, or cannot be reached; the text says why.
        """

    async def close(self) -> None:
        """Log out and close the connection."""
