"""The connection to a gateway, without `await`."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Self

from mxgw_client import gateway as asynchronous
from mxgw_client.alarms import Acknowledgement, Alarm, AlarmFilter
from mxgw_client.enums import OnGap
from mxgw_client.gateway import DEFAULT_CLIENT_NAME, DEFAULT_TARGET
from mxgw_client.options import MIB, ApiKey, Flow, Tls
from mxgw_client.position import Start
from mxgw_client.results import GatewayInfo, Pong, SessionInfo
from mxgw_client.resume import RESUME, ResumePolicy
from mxgw_client.subscribers import Policy, SubscriberList
from mxgw_client.sync import _loop
from mxgw_client.sync.session import Session
from mxgw_client.sync.streams import AlarmStream


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
    """Return a connection to the gateway at `target`. It is opened by `with`.

    The arguments are the same as those of `mxgw_client.connect`.
    """
    return Gateway(
        asynchronous.connect(
            target,
            api_key=api_key,
            tls=tls,
            insecure_api_key=insecure_api_key,
            flow=flow,
            timeout_s=timeout_s,
            max_message_bytes=max_message_bytes,
        )
    )


class Gateway:
    """A connection to a gateway, without `await`. Several threads can use it at the same time.

    Each method does the same as the method of `mxgw_client.Gateway` with the same name.
    """

    def __init__(self, gateway: asynchronous.Gateway) -> None:
        self._gateway = gateway
        self._loop_thread: _loop.LoopThread | None = None

    def open(self) -> Self:
        if self._loop_thread is None:
            thread = _loop.acquire()
            try:
                thread.run(self._gateway.open())
            except BaseException:
                _loop.release()
                raise
            self._loop_thread = thread
        return self

    def close(self) -> None:
        thread, self._loop_thread = self._loop_thread, None
        if thread is not None:
            try:
                thread.run(self._gateway.close())
            finally:
                _loop.release()

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def _loop(self) -> _loop.LoopThread:
        if self._loop_thread is None:
            raise RuntimeError("the gateway is not connected: use `with connect(...) as gateway`")
        return self._loop_thread

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
        loop = self._loop
        return Session(
            loop,
            self._gateway.open_session(
                client_name=client_name, backend=backend, tag=tag, lease_s=lease_s, keep=keep, request_id=request_id
            ),
        )

    def attach_session(self, session_id: str, *, client_name: str = DEFAULT_CLIENT_NAME) -> Session:
        loop = self._loop
        return Session(loop, self._gateway.attach_session(session_id, client_name=client_name))

    def sessions(self, *, include_ended: bool = False, timeout_s: float | None = None) -> Iterator[SessionInfo]:
        return self._loop.iterate(self._gateway.sessions(include_ended=include_ended, timeout_s=timeout_s))

    def close_session(self, session_id: str, *, timeout_s: float | None = None) -> SessionInfo:
        return self._loop.run(self._gateway.close_session(session_id, timeout_s=timeout_s))

    def subscribers(self, session_id: str, *, timeout_s: float | None = None) -> SubscriberList:
        return self._loop.run(self._gateway.subscribers(session_id, timeout_s=timeout_s))

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
        loop = self._loop
        return AlarmStream(
            loop,
            self._gateway.alarms(
                wanted=wanted,
                start=start,
                on_gap=on_gap,
                policy=policy,
                client_name=client_name,
                resume=resume,
                heartbeat_interval_s=heartbeat_interval_s,
            ),
        )

    def active_alarms(self, *, wanted: AlarmFilter | None = None, timeout_s: float | None = None) -> Iterator[Alarm]:
        return self._loop.iterate(self._gateway.active_alarms(wanted=wanted, timeout_s=timeout_s))

    def acknowledge_alarms(
        self, *references: str, comment: str = "", operator: str = "", timeout_s: float | None = None
    ) -> list[Acknowledgement]:
        return self._loop.run(
            self._gateway.acknowledge_alarms(*references, comment=comment, operator=operator, timeout_s=timeout_s)
        )

    def info(self, *, timeout_s: float | None = None) -> GatewayInfo:
        return self._loop.run(self._gateway.info(timeout_s=timeout_s))

    def ping(self, *, timeout_s: float | None = None) -> Pong:
        return self._loop.run(self._gateway.ping(timeout_s=timeout_s))

    def __repr__(self) -> str:
        return f"<sync {self._gateway!r}>"
