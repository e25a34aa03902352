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

# How many seconds `close` waits for the gateway's answer. If none comes, the session ends when its lease has run out.
CLOSE_TIMEOUT_S = 5.0


class Session(BulkCalls):
    """One MXAccess context; made by `Gateway.open_session` and `Gateway.attach_session`.

    Use the session in an `async with` block, or call `open` and `close`. When a call fails, it raises a subclass of
    `MxgwClientError`. Several tasks can make calls at the same time; the worker runs them one after another.

    The parameter `timeout_s` of a call is its deadline in seconds; None means the `timeout_s` given to `connect`.
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
        # The request id of an OpenSession call that was sent and has no answer yet; empty when there is none.
        self._opening_id = b""
        self._streams: weakref.WeakSet[EventStream] = weakref.WeakSet()

    @property
    def session_id(self) -> str:
        """The id of the session at the gateway; empty until `open` has opened a new session."""
        return self._session_id

    @property
    def is_open(self) -> bool:
        """True between `open` and `close` of this object. It stays True when the gateway ends the session meanwhile."""
        return self._is_open

    async def open(self) -> Self:
        """Open a new session at the gateway. For `attach_session`, load the state of the existing session instead.

        When the answer to OpenSession is lost, the request is repeated until the `timeout_s` of `connect` has passed. A
        request id ensures that the repeats never open a second session.

        Raises:
            SessionLimitReached, UnknownBackend, WorkerStartFailed, SessionNotFound: the gateway refused.
            MxgwClientError: the call failed in another way; see `errors`.
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
        # A failure leaves the id in place: perhaps the gateway opened the session and its answer was lost. A later call
        # of `open` with the same id then gets that session.
        self._opening_id = self._opening_id or new_request_id()
        own = session_service_pb2.OpenSessionRequest()
        own.CopyFrom(request)
        own.request_id = self._opening_id
        try:
            session_id = await self._ask_for(own)
        except SessionGone:
            # An earlier request with this id opened a session, its answer was lost, and the session has ended since. A
            # new id is safe here, because the session that it opens is the only one.
            own.request_id = self._opening_id = new_request_id()
            session_id = await self._ask_for(own)
        self._opening_id = b""
        return session_id

    async def _ask_for(self, request: session_service_pb2.OpenSessionRequest) -> str:
        async def attempt(left_s: float) -> session_service_pb2.OpenSessionResponse:
            return await self._calls.unary(self._calls.sessions.OpenSession, request, "OpenSession", left_s)

        return (await repeated(attempt, self._calls.options.timeout_s)).session.session_id

    async def _take_over(self) -> None:
        """Load the server handle and the items of a session that was opened by another object or program."""
        state = await self.state()
        self._server_handle = min(state.registrations, default=None)
        for entry in state.items:
            item = entry.item
            self._references.add(item.serial, item.server_handle, item.handle, item.reference)

    async def close(self) -> None:
        """Close the streams of this object and end the session at the gateway; idempotent.

        The session is not ended if it came from `attach_session`, or was opened with `keep=True`. A session that has
        already ended is no error. When the gateway does not answer, the session ends after its lease.
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
        """Return a new stream of the session's events. It opens at `async with`, or when the application reads from it.

        After a cut the stream opens again by itself and goes on after the last event that the application got. With
        `resume=None` a cut ends the stream; the application can then open another one with
        `start=after(stream.position)`.

        Args:
            start: the place of the first event. `Start.OLDEST` is the oldest event that the gateway still holds, so
                that events which came between Advise and this call are not missed.
            policy: the overflow policy, which acts when this reader falls too far behind. None: the gateway's default.
            on_gap: what the gateway does when a resume cannot be complete.
            heartbeat_interval_s: after this many seconds without other frames the gateway sends a Heartbeat. It can be
                1 to 60; None: the gateway's default.
            client_name: the name of this reader in lists of subscribers. Empty: the `client_name` of the session.
            resume: the delays and limits for opening the stream again after a cut.
            position_file: a file in which the client stores the position for the next run of the program. If it already
                contains a position, the stream begins after that position, and `start` is ignored. The stored position
                covers the events that the application has processed. An event counts as processed when the application
                asks for the next event or frame, or closes the stream. A new run of the program gets the id of the
                session to attach to from `read_position_file`.
            position_interval_s: the file is written at most once in this many seconds. With 0 it is written each time
                the application asks for the next event or frame.

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
        """Return a stream that begins after the position in `stored`, or at `start` when `stored` is None.

        The stream writes its position to `position_file`, unless that is None.
        """
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
        """Return the state of the session at the gateway. This call does not start the lease again."""
        request = session_service_pb2.GetSessionRequest(session_id=self._session_id)
        answer = await self._calls.unary(self._calls.sessions.GetSession, request, "GetSession", timeout_s)
        return session_from_message(answer.session)

    async def state(self, *, include_values: bool = False, timeout_s: float | None = None) -> StateOfSession:
        """Return the registrations and all items of the session.

        With many items this takes several calls. The registrations and the `position` come from the first of them.
        """
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
        """Return the state of the session's worker process, for example its process id and memory."""
        request = session_service_pb2.GetWorkerInfoRequest(session_id=self._session_id)
        return worker_from_message(
            await self._calls.unary(self._calls.sessions.GetWorkerInfo, request, "GetWorkerInfo", timeout_s)
        )

    async def subscribers(self, *, timeout_s: float | None = None) -> SubscriberList:
        """Return the subscribers of the session with their lag. This call does not start the lease again."""
        return await subscribers(self._calls, self._session_id, timeout_s)

    async def ping(self, *, timeout_s: float | None = None) -> Pong:
        """Measure the round trips to the gateway and to the worker. This call starts the lease again."""
        return await ping(self._calls, self._session_id, timeout_s)

    def __repr__(self) -> str:
        return f"<Session {self._session_id or 'not open'}>"


async def subscribers(calls: Calls, session_id: str, timeout_s: float | None) -> SubscriberList:
    """List the subscribers of a session."""
    request = session_service_pb2.ListSubscribersRequest(session_id=session_id)
    answer = await calls.unary(calls.sessions.ListSubscribers, request, "ListSubscribers", timeout_s)
    return subscribers_from_message(answer)


async def ping(calls: Calls, session_id: str, timeout_s: float | None) -> Pong:
    """Measure the round trip to the gateway, and also to the session's worker unless `session_id` is empty."""
    request = gateway_service_pb2.PingRequest(session_id=session_id)
    began_s = time.perf_counter()
    answer = await calls.unary(calls.gateway.Ping, request, "Ping", timeout_s)
    round_trip_s = time.perf_counter() - began_s
    worker_s = duration_to_seconds(answer.worker_round_trip) if answer.HasField("worker_round_trip") else None
    return Pong(round_trip_s, worker_s, moment(answer.gateway_time))
