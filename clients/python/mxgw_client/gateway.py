"""The connection to a gateway, where a program begins: sessions, alarms, and the gateway itself."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

from mxgw.convert import duration_from_seconds
from mxgw.v1 import alarm_service_pb2, event_service_pb2, gateway_service_pb2, session_service_pb2
from mxgw_client._calls import Calls, Pages
from mxgw_client.alarms import Acknowledgement, Alarm, AlarmFilter, alarm_from_message
from mxgw_client.enums import AcknowledgeOutcome, OnGap
from mxgw_client.errors import NotAGateway
from mxgw_client.options import MIB, ApiKey, ConnectOptions, Flow, Target, Tls
from mxgw_client.position import Start
from mxgw_client.results import GatewayInfo, Pong, SessionInfo, gateway_from_message, session_from_message
from mxgw_client.resume import RESUME, ResumePolicy
from mxgw_client.session import Session, ping, subscribers
from mxgw_client.streams import AlarmStream
from mxgw_client.subscribers import Policy, SubscriberList

CONTRACT = "mxgw.v1"
DEFAULT_TARGET = "127.0.0.1:50051"
DEFAULT_CLIENT_NAME = "mxgw-client"


def connect(
    target: str = DEFAULT_TARGET,
    *,
    api_key: str | ApiKey | None = None,
    tls: Tls | bool = False,
    insecure_api_key: bool = False,
    flow: Flow | str = Flow.BOUNDED,
    timeout_s: float = 30.0,
    max_message_bytes: int = 4 * MIB,
) -> Gateway:
    """Return the gateway at `target` (`host:port`, `[ipv6]:port` or `unix:/path`); `async with` it to connect.

        async with connect("127.0.0.1:50051") as gateway, gateway.open_session() as session:
            ...

    `tls=True` trusts the system's certificates; `Tls(...)` names files. The API key is sent with every call, and only
    over TLS, loopback or a Unix socket unless `insecure_api_key` is True. `flow` limits how many bytes of a stream may
    be on the way (see `Flow`). `timeout_s` is the deadline, in seconds, of calls that name none. `max_message_bytes`
    must be at least the gateway's `limits.message_bytes`.

    Raises:
        ConnectionOptionError: an option has no usable value, or two of them contradict each other.
        ValueError: `target` is no address.
    """
    return Gateway(
        ConnectOptions(
            target=Target.parse(target),
            tls=(Tls() if tls is True else tls) or None,
            api_key=ApiKey(api_key) if isinstance(api_key, str) else api_key,
            insecure_api_key=insecure_api_key,
            flow=Flow(flow),
            timeout_s=timeout_s,
            max_message_bytes=max_message_bytes,
        )
    )


class Gateway:
    """A connection to a gateway; made by `connect`.

    Use it as `async with`, or `open` and `close` it in the same event loop.
    """

    def __init__(self, options: ConnectOptions) -> None:
        self._options = options
        self._open_calls: Calls | None = None
        # Runs the reads of the streams, which never raise: the failure of one would end the others.
        self._tasks: asyncio.TaskGroup | None = None
        self._sessions: weakref.WeakSet[Session] = weakref.WeakSet()
        self._alarm_streams: weakref.WeakSet[AlarmStream] = weakref.WeakSet()

    async def open(self) -> Self:
        """Connect, and check that a gateway with this contract answers.

        Raises:
            GatewayUnreachable, NotAGateway, Unauthenticated: the text says what was tried and what would help.
        """
        if self._open_calls is not None:
            return self
        self._open_calls = Calls(self._options)
        try:
            await self._check_contract()
            self._tasks = await asyncio.TaskGroup().__aenter__()
        except BaseException:
            await self._open_calls.close()
            self._open_calls = None
            raise
        return self

    async def _check_contract(self) -> None:
        contract = (await self.info()).contract
        if contract != CONTRACT:
            raise NotAGateway(
                f"{self._options.target.text} serves {contract!r}, this client speaks {CONTRACT!r}: use the client "
                "release that belongs to the gateway"
            )

    async def close(self) -> None:
        """Close the sessions opened here, their streams, and the connection; idempotent."""
        calls, self._open_calls = self._open_calls, None
        tasks, self._tasks = self._tasks, None
        if calls is None or tasks is None:
            return
        try:
            for stream in list(self._alarm_streams):
                await stream.close()
            for session in list(self._sessions):
                await session.close()
            await tasks.__aexit__(None, None, None)
        finally:
            await calls.close()

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def _calls(self) -> Calls:
        if self._open_calls is None:
            raise RuntimeError("the gateway is not connected: use `async with connect(...) as gateway`")
        return self._open_calls

    # Sessions

    def open_session(
        self,
        *,
        client_name: str = DEFAULT_CLIENT_NAME,
        backend: str = "",
        tag: str = "",
        lease_s: float | None = None,
        keep: bool = False,
        request_id: bytes = b"",
    ) -> Session:
        """Return a new session; `async with` it to open it, and to close it at the end.

        `client_name` (at most 128 characters) is shown to operators and used for Register. `backend` is one of those in
        the gateway's settings; empty means the default. `tag` (at most 64 characters) decides which operators see the
        session. `lease_s` is how many seconds it may be idle before the gateway ends it. With `keep` it stays open at
        the end, for `attach_session` in a later run.

        A `request_id` (16 to 64 bytes) makes the opening repeatable: opening again with the same id and the same other
        arguments returns the same session, even in a later run of the program. Without it every call opens a new one.
        """
        request = session_service_pb2.OpenSessionRequest(
            client_name=client_name,
            backend=backend,
            tag=tag,
            lease=None if lease_s is None else duration_from_seconds(lease_s),
            request_id=request_id,
        )
        return self._session(client_name=client_name, request=request, keep=keep)

    def attach_session(self, session_id: str, *, client_name: str = DEFAULT_CLIENT_NAME) -> Session:
        """Return a session that is open already, for a program that was restarted. Leaving it does not close it."""
        return self._session(client_name=client_name, session_id=session_id)

    def _session(
        self,
        *,
        client_name: str,
        request: session_service_pb2.OpenSessionRequest | None = None,
        session_id: str = "",
        keep: bool = True,
    ) -> Session:
        calls, tasks = self._calls, self._tasks
        assert tasks is not None
        session = Session(calls, tasks, client_name=client_name, request=request, session_id=session_id, keep=keep)
        self._sessions.add(session)
        return session

    async def sessions(
        self, *, include_ended: bool = False, timeout_s: float | None = None
    ) -> AsyncIterator[SessionInfo]:
        """Yield the sessions the caller may see, oldest first."""
        request = session_service_pb2.ListSessionsRequest(include_ended=include_ended)
        pages = Pages(
            request, lambda: self._calls.unary(self._calls.sessions.ListSessions, request, "ListSessions", timeout_s)
        )
        async for page in pages:
            for message in page.sessions:
                yield session_from_message(message)

    async def close_session(self, session_id: str, *, timeout_s: float | None = None) -> SessionInfo:
        """Close a session by its id, and return how it ended."""
        request = session_service_pb2.CloseSessionRequest(session_id=session_id)
        answer = await self._calls.unary(self._calls.sessions.CloseSession, request, "CloseSession", timeout_s)
        return session_from_message(answer.session)

    async def subscribers(self, session_id: str, *, timeout_s: float | None = None) -> SubscriberList:
        """Return the readers of a session's events and their lag; does not extend the lease."""
        return await subscribers(self._calls, session_id, timeout_s)

    # Alarms

    def alarms(
        self,
        *,
        wanted: AlarmFilter | None = None,
        start: Start = Start.SNAPSHOT,
        on_gap: OnGap = OnGap.SNAPSHOT,
        policy: Policy | None = None,
        client_name: str = DEFAULT_CLIENT_NAME,
        resume: ResumePolicy | None = RESUME,
        heartbeat_interval_s: float | None = None,
    ) -> AlarmStream:
        """Return the stream of the plant's alarms (plugin `alarms`): the active ones, then every change.

            active = AlarmList()
            async with gateway.alarms() as stream:
                async for item in stream:
                    active.apply(item)

        `wanted` selects alarms (None: all). The other arguments are as in `Session.events`.
        """
        calls, tasks = self._calls, self._tasks
        assert tasks is not None
        request = alarm_service_pb2.StreamAlarmsRequest(
            start=start.to_message(),
            on_gap=event_service_pb2.OnGap.ValueType(on_gap),
            filter=(wanted or AlarmFilter()).to_message(),
            client_name=client_name,
            policy=policy.to_message() if policy is not None else None,
            heartbeat_interval=None if heartbeat_interval_s is None else duration_from_seconds(heartbeat_interval_s),
        )
        stream = AlarmStream(calls, request, tasks, start=start, resume=resume)
        self._alarm_streams.add(stream)
        return stream

    async def active_alarms(
        self, *, wanted: AlarmFilter | None = None, timeout_s: float | None = None
    ) -> AsyncIterator[Alarm]:
        """Yield the active alarms in the order of their references. `wanted` selects some of them (None: all)."""
        request = alarm_service_pb2.QueryActiveAlarmsRequest(filter=(wanted or AlarmFilter()).to_message())
        pages = Pages(
            request,
            lambda: self._calls.unary(self._calls.alarms.QueryActiveAlarms, request, "QueryActiveAlarms", timeout_s),
        )
        async for page in pages:
            for active in page.alarms:
                yield alarm_from_message(active.alarm)

    async def acknowledge_alarms(
        self, *references: str, comment: str = "", operator: str = "", timeout_s: float | None = None
    ) -> list[Acknowledgement]:
        """Acknowledge alarms by their references, and return one result for each, in the same order.

        A refused acknowledgement does not raise; see `Acknowledgement.outcome`. The source gets `comment` and
        `operator`, the name of the person for whom the program acts.
        """
        request = alarm_service_pb2.AcknowledgeAlarmRequest(references=references, comment=comment, operator=operator)
        answer = await self._calls.unary(self._calls.alarms.AcknowledgeAlarm, request, "AcknowledgeAlarm", timeout_s)
        return [
            Acknowledgement(r.reference, AcknowledgeOutcome(r.outcome), r.hresult, r.message) for r in answer.results
        ]

    # The gateway itself

    async def info(self, *, timeout_s: float | None = None) -> GatewayInfo:
        """Return the gateway's version, plugins, backends and limits (`raw.limits`)."""
        request = gateway_service_pb2.GetGatewayInfoRequest()
        answer = await self._calls.unary(self._calls.gateway.GetGatewayInfo, request, "GetGatewayInfo", timeout_s)
        return gateway_from_message(answer)

    async def ping(self, *, timeout_s: float | None = None) -> Pong:
        """Send a ping to the gateway."""
        return await ping(self._calls, "", timeout_s)

    def __repr__(self) -> str:
        state = "connected" if self._open_calls else "not connected"
        return f"<Gateway {self._options.target.text}, {state}>"
