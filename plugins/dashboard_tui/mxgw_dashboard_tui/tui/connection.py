"""A gateway as source: one channel, one stream of snapshots, reconnected for as long as the dashboard is open."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from mxgw.convert import duration_from_seconds
from mxgw.dashboard.v1 import dashboard_service_pb2 as pb
from mxgw.dashboard.v1 import dashboard_service_pb2_grpc
from mxgw_dashboard_tui.tui.model import Link
from mxgw_dashboard_tui.tui.source import Listener, Refused
from mxgw_dashboard_tui.tui.text import clean

_M = TypeVar("_M", bound=Message)

_CALL_TIMEOUT_S = 10.0
_FIRST_RETRY_S, _LONGEST_RETRY_S = 0.5, 5.0
# A stream without news for so many intervals is dead, whatever TCP thinks of it.
_SILENT_INTERVALS = 5
_SILENT_AT_LEAST_S = 5.0


@dataclass(frozen=True, slots=True)
class Target:
    """Which gateway, and how to reach it."""

    address: str
    ca: Path | None = None
    certificate: Path | None = None
    private_key: Path | None = None


class Connection:
    """See `Source`. The password is handed on and kept nowhere; the token is kept in memory only."""

    is_recording = False

    def __init__(self, target: Target, interval_s: float) -> None:
        self._target = target
        self._interval_s = interval_s
        self._channel = _channel(target)
        self._stub: Any = dashboard_service_pb2_grpc.DashboardServiceStub(self._channel)
        self._token = ""
        # Set by a login; awaited by `run` while one is needed.
        self._logged_in = asyncio.Event()

    @property
    def name(self) -> str:
        return self._target.address

    async def run(self, listener: Listener) -> None:
        listener.link_changed(Link.CONNECTING, f"connecting to {self.name}")
        retry_s = _FIRST_RETRY_S
        while True:
            try:
                if await self._needs_login():
                    self._logged_in.clear()
                    listener.link_changed(Link.LOGIN, "this gateway wants to know who you are")
                    await self._logged_in.wait()
                async for snapshot in self._snapshots():
                    if retry_s:
                        listener.link_changed(Link.LIVE, "")
                        retry_s = 0.0
                    listener.snapshot_arrived(snapshot)
                link, detail = Link.CUT, "the gateway ended the stream"
            except grpc.aio.AioRpcError as error:
                link, detail = _meaning(error)
                if error.code() is grpc.StatusCode.UNAUTHENTICATED:
                    self._token = ""
            except TimeoutError:
                link, detail = Link.CUT, "no news from the gateway"
            retry_s = min(_LONGEST_RETRY_S, max(_FIRST_RETRY_S, retry_s * 2))
            listener.link_changed(link, detail)
            await asyncio.sleep(retry_s * random.uniform(0.8, 1.2))  # noqa: S311 - spreads retries, guards nothing

    async def _needs_login(self) -> bool:
        answer = await self._stub.GetAccess(
            pb.GetAccessRequest(), metadata=self._metadata(), timeout=_CALL_TIMEOUT_S, wait_for_ready=False
        )
        return bool(answer.login_required and not answer.operator)

    async def _snapshots(self) -> AsyncIterator[pb.WatchGatewayResponse]:
        request = pb.WatchGatewayRequest(interval=duration_from_seconds(self._interval_s))
        call = self._stub.WatchGateway(request, metadata=self._metadata())
        silent_s = max(_SILENT_AT_LEAST_S, _SILENT_INTERVALS * self._interval_s)
        try:
            while True:
                async with asyncio.timeout(silent_s):
                    message = await call.read()
                if message is grpc.aio.EOF:
                    return
                yield message
        finally:
            call.cancel()

    async def login(self, user: str, password: str) -> None:
        answer = await self._ask("Login", pb.LoginRequest(user=user, password=password), pb.LoginResponse)
        self._token = answer.token
        self._logged_in.set()

    async def watch_session(self, session_id: str) -> AsyncIterator[pb.WatchSessionResponse]:
        request = pb.WatchSessionRequest(session_id=session_id, interval=duration_from_seconds(self._interval_s))
        async for message in self._stream("WatchSession", request, pb.WatchSessionResponse):
            yield message

    async def watch_events(self, session_id: str) -> AsyncIterator[pb.WatchEventsResponse]:
        request = pb.WatchEventsRequest(session_id=session_id)
        async for message in self._stream("WatchEvents", request, pb.WatchEventsResponse):
            yield message

    async def list_items(self, session_id: str, page_token: str) -> pb.ListItemsResponse:
        request = pb.ListItemsRequest(session_id=session_id, page_token=page_token)
        return await self._ask("ListItems", request, pb.ListItemsResponse)

    async def list_settings(self) -> pb.ListSettingsResponse:
        return await self._ask("ListSettings", pb.ListSettingsRequest(), pb.ListSettingsResponse)

    async def close_session(self, session_id: str) -> None:
        await self._ask("CloseSession", pb.CloseSessionRequest(session_id=session_id), pb.CloseSessionResponse)

    async def kill_worker(self, session_id: str) -> None:
        await self._ask("KillWorker", pb.KillWorkerRequest(session_id=session_id), pb.KillWorkerResponse)

    async def close(self) -> None:
        self._token = ""
        await self._channel.close()

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self._token}"),) if self._token else ()

    async def _ask(self, method: str, request: Message, answer: type[_M]) -> _M:
        try:
            message = await getattr(self._stub, method)(request, metadata=self._metadata(), timeout=_CALL_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise Refused(_meaning(error)[1]) from None
        assert isinstance(message, answer)
        return message

    async def _stream(self, method: str, request: Message, answer: type[_M]) -> AsyncIterator[_M]:
        call = getattr(self._stub, method)(request, metadata=self._metadata())
        try:
            while (message := await call.read()) is not grpc.aio.EOF:
                assert isinstance(message, answer)
                yield message
        except grpc.aio.AioRpcError as error:
            raise Refused(_meaning(error)[1]) from None
        finally:
            call.cancel()


def _channel(target: Target) -> grpc.aio.Channel:
    options = (
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.max_receive_message_length", 64 * 1024 * 1024),
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.min_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 2000),
        ("grpc.enable_http_proxy", 0),
    )
    if target.ca is None:
        return grpc.aio.insecure_channel(target.address, options=options)
    credentials = grpc.ssl_channel_credentials(
        target.ca.read_bytes(),
        target.private_key.read_bytes() if target.private_key is not None else None,
        target.certificate.read_bytes() if target.certificate is not None else None,
    )
    return grpc.aio.secure_channel(target.address, credentials, options=options)


def _meaning(error: grpc.aio.AioRpcError) -> tuple[Link, str]:
    said = clean(error.details() or "", 300)
    match error.code():
        case grpc.StatusCode.UNAUTHENTICATED:
            return Link.LOGIN, said or "log in again"
        case grpc.StatusCode.PERMISSION_DENIED:
            return Link.DENIED, said
        case grpc.StatusCode.UNIMPLEMENTED:
            return Link.DENIED, "this gateway has no dashboard: enable its plugin dashboard_tui, or give --connect"
        case grpc.StatusCode.UNAVAILABLE:
            return Link.CUT, f"no gateway answers ({said})" if said else "no gateway answers"
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return Link.CUT, "the gateway does not answer in time"
        case grpc.StatusCode.CANCELLED:
            return Link.CUT, "the connection was closed"
        case _:
            return Link.CUT, said or error.code().name.lower().replace("_", " ")
