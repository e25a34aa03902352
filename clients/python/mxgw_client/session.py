"""A session: one MXAccess context with its own worker process, from opening to closing."""

from __future__ import annotations

import asyncio
import logging
import time
import weakref
from pathlib import Path
from types import TracebackType
from typing import Self

from mxgw.convert import duration_from_seconds, duration_to_seconds
from mxgw.v1 import event_service_pb2, gateway_service_pb2, session_service_pb2
from mxgw_client._calls import Calls, Pages
from mxgw_client._repeating import new_request_id, repeated
from mxgw_client.bulk import BulkCalls
from mxgw_client.enums import OnGap
from mxgw_client.errors import MxgwClientError, SessionEnded, SessionGone, SessionNotFound
from mxgw_client.position import Position, Start, after
from mxgw_client.position_file import POSITION_INTERVAL_S, PositionFile, StoredPosition
from mxgw_client.results import (
    Pong,
    SessionInfo,
    StateOfSession,
    WorkerInfo,
    item_state_from_message,
    session_from_message,
    worker_from_message,
)
from mxgw_client.resume import RESUME, ResumePolicy
from mxgw_client.streams import EventStream
from mxgw_client.subscribers import Policy, SubscriberList, subscribers_from_message
from mxgw_client.values import moment

log = logging.getLogger(__name__)

# How long closing waits for a gateway that does not answer. The lease ends the session then.
CLOSE_TIMEOUT_S = 5.0


class Session(BulkCalls):
    """One MXAccess context; made by `Gateway.open_session` and `Gateway.attach_session`.

    Use it as `async with`, or `open` and `close` it. All calls raise `MxgwClientError`s. Several tasks may call at the
    same time; the session's worker runs the calls one after another. `timeout_s` is the deadline of a call in seconds;
    None means that of `connect`.
    """

    def __init__(
        self,
        calls: Calls,
        tasks: asyncio.TaskGroup,
        *,
        client_name: str,
        request: session_service_pb2.OpenSessionRequest | None,
        session_id: str = "",
        keep: bool = False,
    ) -> None:
        super().__init__(calls, client_name)
        self._tasks = tasks
        self._request = request
        self._keep = keep
        self._session_id = session_id
        self._is_open = False
        # The request id of an opening that has no answer yet.
        self._opening_id = b""
        self._streams: weakref.WeakSet[EventStream] = weakref.WeakSet()

    @property
    def session_id(self) -> str:
        """The gateway's name for the session; empty before it is open."""
        return self._session_id

    @property
    def is_open(self) -> bool:
        """Whether this object opened or attached the session and did not close it. The gateway may have ended it."""
        return self._is_open

    async def open(self) -> Self:
        """Open the session at the gateway, or look up the one to attach to.

        When the answer is lost the opening is repeated, for the `timeout_s` of `connect`. It never opens a second
        session.

        Raises:
            SessionLimitReached, UnknownBackend, WorkerStartFailed, SessionNotFound, ...: see `errors`.
        """
        if self._is_open:
            return self
        if self._request is not None:
            self._session_id = await self._open_once(self._request)
        else:
            await self._take_over()
        self._is_open = True
        return self

    async def _open_once(self, request: session_service_pb2.OpenSessionRequest) -> str:
        if request.request_id:
            return await self._ask_for(request)
        # Kept after a failure: the session may have been opened, and a later `open` with the same id finds it.
        self._opening_id = self._opening_id or new_request_id()
        own = session_service_pb2.OpenSessionRequest()
        own.CopyFrom(request)
        own.request_id = self._opening_id
        try:
            session_id = await self._ask_for(own)
        except SessionGone:
            # That session was opened, its answer was lost, and it has ended since. So this opens no second session.
            own.request_id = self._opening_id = new_request_id()
            session_id = await self._ask_for(own)
        self._opening_id = b""
        return session_id

    async def _ask_for(self, request: session_service_pb2.OpenSessionRequest) -> str:
        async def attempt(left_s: float) -> session_service_pb2.OpenSessionResponse:
            return await self._calls.unary(self._calls.sessions.OpenSession, request, "OpenSession", left_s)

        return (await repeated(attempt, self._calls.options.timeout_s)).session.session_id

    async def _take_over(self) -> None:
        """Load the registrations and items of a session that another object or program opened."""
        state = await self.state()
        self._server_handle = min(state.registrations, default=None)
        for entry in state.items:
            item = entry.item
            self._references.add(item.serial, item.server_handle, item.handle, item.reference)

    async def close(self) -> None:
        """Close the streams, and the session itself unless it was attached to or is to be kept; idempotent.

        A session that has ended already is no error. When the gateway does not answer, the lease ends the session.
        """
        if not self._is_open:
            return
        self._is_open = False
        for stream in list(self._streams):
            await stream.close()
        if self._keep:
            return
        request = session_service_pb2.CloseSessionRequest(session_id=self._session_id)
        try:
            await self._calls.unary(self._calls.sessions.CloseSession, request, "CloseSession", CLOSE_TIMEOUT_S)
        except (SessionNotFound, SessionEnded):
            log.debug("session %s had ended already", self._session_id)
        except MxgwClientError as error:
            log.warning("session %s was not closed, its lease will end it: %s", self._session_id, error)

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    # Events

    def events(
        self,
        *,
        start: Start = Start.OLDEST,
        policy: Policy | str | None = None,
        on_gap: OnGap = OnGap.UNSPECIFIED,
        heartbeat_interval_s: float | None = None,
        client_name: str = "",
        resume: ResumePolicy | None = RESUME,
        position_file: Path | str | None = None,
        position_interval_s: float = POSITION_INTERVAL_S,
    ) -> EventStream:
        """Return the session's event stream; it opens when it is entered or first read.

        `start` OLDEST begins with the oldest event that the gateway holds, so that no event since Advise is missed.
        `policy` decides what happens when this reader falls behind (None: the gateway's default), `on_gap` what happens
        when a resume cannot be complete. A Heartbeat comes after `heartbeat_interval_s` (1 to 60 s) of silence.

        After a cut the stream comes back by itself as `resume` says. With None it ends, and the application may open
        another one, started `after(stream.position)`.

        `position_file` names a file that keeps the position for the next run of the program. Its position, if it has
        one, is used instead of `start`. The position in it is that of the events which the application has processed:
        an event counts as processed when the application asks for the next one, or closes the stream. It is written at
        most every `position_interval_s` seconds; with 0, before each next event is returned. At the start of a program,
        `read_position_file` returns the session to attach to.

        Raises:
            PositionFileError: the file is unreadable, has other content, or belongs to another session.
        """
        file = None if position_file is None else PositionFile(position_file, self._session_id, position_interval_s)
        return self._event_stream(
            start,
            policy,
            on_gap,
            heartbeat_interval_s,
            client_name,
            resume,
            stored=file.stored if file is not None else None,
            position_file=file,
        )

    def _event_stream(
        self,
        start: Start,
        policy: Policy | str | None,
        on_gap: OnGap,
        heartbeat_interval_s: float | None,
        client_name: str,
        resume: ResumePolicy | None,
        *,
        stored: StoredPosition | None,
        position_file: PositionFile | None,
    ) -> EventStream:
        """Return a stream that begins after `stored`, else at `start`, and keeps its position in `position_file`."""
        request = event_service_pb2.StreamEventsRequest(
            session_id=self._session_id,
            on_gap=event_service_pb2.OnGap.ValueType(on_gap),
            client_name=client_name or self._client_name,
            heartbeat_interval=None if heartbeat_interval_s is None else duration_from_seconds(heartbeat_interval_s),
        )
        if stored is not None:
            start = after(stored.position)
            request.with_snapshot = stored.snapshot_owed
        request.start.CopyFrom(start.to_message())
        if policy is not None:
            choice = Policy(policy) if isinstance(policy, str) else policy
            request.policy.CopyFrom(choice.to_message())
        stream = EventStream(
            self._calls,
            request,
            self._references,
            self._tasks,
            start=start,
            resume=resume,
            position_file=position_file,
        )
        self._streams.add(stream)
        return stream

    # The state of session and worker

    async def info(self, *, timeout_s: float | None = None) -> SessionInfo:
        """Return the session as the gateway sees it; does not extend the lease."""
        request = session_service_pb2.GetSessionRequest(session_id=self._session_id)
        answer = await self._calls.unary(self._calls.sessions.GetSession, request, "GetSession", timeout_s)
        return session_from_message(answer.session)

    async def state(self, *, include_values: bool = False, timeout_s: float | None = None) -> StateOfSession:
        """Return the registrations and all items. Many items take several calls; `position` is as of the first."""
        request = session_service_pb2.GetSessionStateRequest(session_id=self._session_id, include_values=include_values)
        method, calls = "GetSessionState", self._calls
        answer = Pages(request, lambda: calls.unary(calls.sessions.GetSessionState, request, method, timeout_s))
        pages = [page async for page in answer]
        return StateOfSession(
            position=Position.from_message(pages[0].position),
            registrations={entry.server_handle: entry.client_name for entry in pages[0].registrations},
            items=tuple(item_state_from_message(item) for page in pages for item in page.items),
        )

    async def worker_info(self, *, timeout_s: float | None = None) -> WorkerInfo:
        """Return what the gateway knows of the session's worker process."""
        request = session_service_pb2.GetWorkerInfoRequest(session_id=self._session_id)
        return worker_from_message(
            await self._calls.unary(self._calls.sessions.GetWorkerInfo, request, "GetWorkerInfo", timeout_s)
        )

    async def subscribers(self, *, timeout_s: float | None = None) -> SubscriberList:
        """Return the readers of the session's events and their lag; does not extend the lease."""
        return await subscribers(self._calls, self._session_id, timeout_s)

    async def ping(self, *, timeout_s: float | None = None) -> Pong:
        """Send a ping to gateway and worker; extends the lease."""
        return await ping(self._calls, self._session_id, timeout_s)

    def __repr__(self) -> str:
        return f"<Session {self._session_id or 'not open'}>"


async def subscribers(calls: Calls, session_id: str, timeout_s: float | None) -> SubscriberList:
    """List the subscribers of a session."""
    request = session_service_pb2.ListSubscribersRequest(session_id=session_id)
    answer = await calls.unary(calls.sessions.ListSubscribers, request, "ListSubscribers", timeout_s)
    return subscribers_from_message(answer)


async def ping(calls: Calls, session_id: str, timeout_s: float | None) -> Pong:
    """Ping the gateway, and the worker when a session is named."""
    request = gateway_service_pb2.PingRequest(session_id=session_id)
    began_s = time.perf_counter()
    answer = await calls.unary(calls.gateway.Ping, request, "Ping", timeout_s)
    round_trip_s = time.perf_counter() - began_s
    worker_s = duration_to_seconds(answer.worker_round_trip) if answer.HasField("worker_round_trip") else None
    return Pong(round_trip_s, worker_s, moment(answer.gateway_time))
