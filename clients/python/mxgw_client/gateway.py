"""The connection to a gateway. A program begins with `connect`, and opens sessions and alarm streams from there."""

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
    """Return a connection to the gateway at `target`. It is opened by `async with`.

        async with connect("127.0.0.1:50051") as gateway, gateway.open_session() as session:
            ...

    Args:
        target: the address of the gateway, as `host:port`, `[ipv6]:port` or `unix:/path`.
        api_key: the API key to send with every call. It is refused when it would cross a network without TLS, unless
            `insecure_api_key` is True.
        tls: True uses TLS and trusts the certificates of the system. `Tls(...)` names other certificates.
        insecure_api_key: True allows the API key on a network without TLS.
        flow: how many bytes of a stream can be on their way to the application; see `Flow`.
        timeout_s: the deadline in seconds of calls that get no `timeout_s` of their own.
        max_message_bytes: the largest message that is sent or accepted. It must not be less than the setting
            `limits.message_bytes` of the gateway.

    Raises:
        ConnectionOptionError: an option has a wrong value, or two options contradict each other.
        ValueError: `target` is not an address.
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

    Use the connection in an `async with` block, or call `open` and `close` in the same event loop.
    """

    def __init__(self, options: ConnectOptions) -> None:
        self._options = options
        self._open_calls: Calls | None = None
        # Runs the tasks that read the streams. These tasks never raise, because a failed task would cancel the others.
        self._tasks: asyncio.TaskGroup | None = None
        self._sessions: weakref.WeakSet[Session] = weakref.WeakSet()
        self._alarm_streams: weakref.WeakSet[AlarmStream] = weakref.WeakSet()

    async def open(self) -> Self:
        """Connect, and check that a gateway with this contract answers.

        Raises:
            GatewayUnreachable, NotAGateway, Unauthenticated: the text says what was tried, and what would help.
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
        """Close all streams and sessions that were made by this object, and then the connection; idempotent.

        Sessions that came from `attach_session`, or were opened with `keep=True`, stay open at the gateway.
        """
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
        """Return a new session. It is opened by `async with`, and closed at the end of the block.

        Args:
            client_name: a name for this program, at most 128 characters. Operators see it, and MXAccess gets it with
                Register.
            backend: the name of a backend in the gateway's settings; empty means the default backend.
            tag: a word, at most 64 characters, by which the gateway decides which operators see the session.
            lease_s: the gateway ends the session after this many seconds without use; None: the gateway's default.
            keep: True leaves the session open at the end of the block, for `attach_session` in a later run.
            request_id: 16 to 64 bytes. Opening a session again with the same id and the same other arguments returns
                the same session, even in a later run of the program. When it is empty, a new session is opened.
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
        """Return a session that is already open at the gateway, for example for a program that was restarted.

        The end of `async with`, or `close`, does not end such a session.
        """
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
        """Yield the sessions that the caller is allowed to see, oldest first.

        With `include_ended` also those that have ended and that the gateway still remembers.
        """
        request = session_service_pb2.ListSessionsRequest(include_ended=include_ended)
        pages = Pages(
            request, lambda: self._calls.unary(self._calls.sessions.ListSessions, request, "ListSessions", timeout_s)
        )
        async for page in pages:
            for message in page.sessions:
                yield session_from_message(message)

    async def close_session(self, session_id: str, *, timeout_s: float | None = None) -> SessionInfo:
        """End the session with this id, and return its last state."""
        request = session_service_pb2.CloseSessionRequest(session_id=session_id)
        answer = await self._calls.unary(self._calls.sessions.CloseSession, request, "CloseSession", timeout_s)
        return session_from_message(answer.session)

    async def subscribers(self, session_id: str, *, timeout_s: float | None = None) -> SubscriberList:
        """Return the subscribers of a session with their lag. This call does not start the lease again."""
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
        """Return a stream of the plant's alarms: first the active alarms, then every change. Needs the plugin alarms.

            active = AlarmList()
            async with gateway.alarms() as stream:
                async for item in stream:
                    active.apply(item)

        `wanted` selects the alarms; None means all alarms. The other arguments are the same as in `Session.events`.
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
        """Yield the active alarms, sorted by reference. `wanted` selects the alarms; None means all alarms."""
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
        """Acknowledge the alarms with these references. Return one result per reference, in the same order.

        When the source refuses an acknowledgement, nothing is raised; check `Acknowledgement.outcome`. The source gets
        `comment` and `operator`. `operator` is the name of the person for whom the program acts.
        """
        request = alarm_service_pb2.AcknowledgeAlarmRequest(references=references, comment=comment, operator=operator)
        answer = await self._calls.unary(self._calls.alarms.AcknowledgeAlarm, request, "AcknowledgeAlarm", timeout_s)
        return [
            Acknowledgement(r.reference, AcknowledgeOutcome(r.outcome), r.hresult, r.message) for r in answer.results
        ]

    # The gateway itself

    async def info(self, *, timeout_s: float | None = None) -> GatewayInfo:
        """Return the version, plugins and backends of the gateway, and its limits in `raw.limits`."""
        request = gateway_service_pb2.GetGatewayInfoRequest()
        answer = await self._calls.unary(self._calls.gateway.GetGatewayInfo, request, "GetGatewayInfo", timeout_s)
        return gateway_from_message(answer)

    async def ping(self, *, timeout_s: float | None = None) -> Pong:
        """Measure the round trip to the gateway."""
        return await ping(self._calls, "", timeout_s)

    def __repr__(self) -> str:
        state = "connected" if self._open_calls else "not connected"
        return f"<Gateway {self._options.target.text}, {state}>"
