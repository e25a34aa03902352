"""A live gateway as the source of the dashboard: one gRPC channel, on which a stream brings the gateway reports.

After a failure the stream is opened again, as long as the dashboard is open.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from mxgw.convert import duration_from_seconds, duration_to_seconds
from mxgw.dashboard.v1 import dashboard_service_pb2 as pb
from mxgw.dashboard.v1 import dashboard_service_pb2_grpc
from mxgw_core.api.files import read_private
from mxgw_dashboard_tui.tui.credentials import Credentials
from mxgw_dashboard_tui.tui.model import Link
from mxgw_dashboard_tui.tui.source import Listener, NotServed, NotThere, Refused
from mxgw_dashboard_tui.tui.text import clean

_M = TypeVar("_M", bound=Message)

SERVICE = "/mxgw.dashboard.v1.DashboardService"

_CALL_TIMEOUT_S = 10.0
# When the gateway could not decide whether to renew a token, the renewal is tried again after this time.
_RENEW_AGAIN_S = 10.0
# Status codes with which the gateway refuses a call. The connection works, and trying again would change nothing.
_NO = frozenset({grpc.StatusCode.NOT_FOUND, grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED})
# When the dashboard closes, it waits at most this long for the answer to the logout.
_GOOD_BYE_S = 1.0
_FIRST_RETRY_S, _LONGEST_RETRY_S = 0.5, 5.0
# A stream without messages is treated as broken, even if TCP reports no error, when this many intervals between gateway
# reports have passed, and at least this many seconds.
_SILENT_INTERVALS = 5
_SILENT_AT_LEAST_S = 5.0


@dataclass(frozen=True, slots=True)
class Target:
    """The address of a gateway, and the files for TLS; `api_key_file` is for a gateway that knows no operators."""

    address: str
    ca: Path | None = None
    certificate: Path | None = None
    private_key: Path | None = None
    api_key_file: Path | None = None


class Connection:
    """Implements `Source` for a live gateway. Passwords are not kept after the login; tokens stay in memory only."""

    is_recording = False

    def __init__(self, target: Target, interval_s: float) -> None:
        self._target = target
        self._interval_s = interval_s
        self._channel = _channel(target)
        self._stub: Any = dashboard_service_pb2_grpc.DashboardServiceStub(self._channel)
        self._credentials = Credentials(time.perf_counter, _api_key(target))
        # Set by `login`; `run` waits for it while the gateway demands a login.
        self._logged_in = asyncio.Event()

    @property
    def name(self) -> str:
        return self._target.address

    async def run(self, listener: Listener) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._stay_logged_in(), name="dashboard:renewal")
            await self._follow(listener)

    async def _follow(self, listener: Listener) -> None:
        listener.link_changed(Link.CONNECTING, f"connecting to {self.name}")
        retry_s = _FIRST_RETRY_S
        while True:
            try:
                if await self._needs_login():
                    self._logged_in.clear()
                    listener.link_changed(Link.LOGIN, "this gateway wants to know who you are")
                    await self._logged_in.wait()
                number = self._credentials.number
                async for snapshot in self._snapshots():
                    if number != self._credentials.number:
                        break
                    if retry_s:
                        listener.link_changed(Link.LIVE, "")
                        retry_s = 0.0
                    listener.snapshot_arrived(snapshot)
                if number != self._credentials.number:
                    continue
                link, detail = Link.CUT, "the gateway ended the stream"
            except grpc.aio.AioRpcError as error:
                link, detail = _meaning(error)
                if error.code() is grpc.StatusCode.UNAUTHENTICATED:
                    self._credentials.forget()
            except TimeoutError:
                link, detail = Link.CUT, "no news from the gateway"
            retry_s = min(_LONGEST_RETRY_S, max(_FIRST_RETRY_S, retry_s * 2))
            listener.link_changed(link, detail)
            await asyncio.sleep(retry_s * random.uniform(0.8, 1.2))  # noqa: S311 - spreads retries, needs no secrecy

    async def _needs_login(self) -> bool:
        answer = await self._stub.GetAccess(
            pb.GetAccessRequest(), metadata=self._credentials.metadata, timeout=_CALL_TIMEOUT_S, wait_for_ready=False
        )
        return bool(answer.login_required and not answer.operator)

    async def _snapshots(self) -> AsyncIterator[pb.WatchGatewayResponse]:
        request = pb.WatchGatewayRequest(interval=duration_from_seconds(self._interval_s))
        call = self._stub.WatchGateway(request, metadata=self._credentials.metadata)
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

    # The following methods log an operator in and out.

    async def login(self, user: str, password: str) -> None:
        try:
            answer = await self._stub.Login(pb.LoginRequest(user=user, password=password), timeout=_CALL_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            said = clean(error.details() or "", 300)
            is_wrong = error.code() is grpc.StatusCode.UNAUTHENTICATED
            raise Refused(said if is_wrong else _meaning(error)[1]) from None
        self._credentials.begin(answer.token, duration_to_seconds(answer.valid_for))
        self._logged_in.set()

    async def logout(self) -> None:
        if not self._credentials.is_logged_in:
            raise Refused("nobody is logged in: this gateway asks for no login")
        try:
            await self.ask(f"{SERVICE}/Logout", pb.LogoutRequest(), pb.LogoutResponse)
        finally:
            # The token is forgotten even when the gateway cannot be reached, so that nobody goes on to use this login.
            self._credentials.forget()

    async def _stay_logged_in(self) -> None:
        while True:
            await self._credentials.due()
            number = self._credentials.number
            try:
                answer = await self._stub.RenewLogin(
                    pb.RenewLoginRequest(), metadata=self._credentials.metadata, timeout=_CALL_TIMEOUT_S
                )
            except grpc.aio.AioRpcError as error:
                if number != self._credentials.number:
                    continue
                if error.code() is grpc.StatusCode.UNAUTHENTICATED:
                    self._credentials.forget()
                else:
                    self._credentials.postpone(_RENEW_AGAIN_S)
            else:
                if number == self._credentials.number:
                    self._credentials.renew(answer.token, duration_to_seconds(answer.valid_for))

    # The following methods make calls and open streams.

    def watch_session(self, session_id: str) -> AsyncIterator[pb.WatchSessionResponse]:
        request = pb.WatchSessionRequest(session_id=session_id, interval=duration_from_seconds(self._interval_s))
        return self.follow(f"{SERVICE}/WatchSession", request, pb.WatchSessionResponse)

    def watch_events(self, session_id: str) -> AsyncIterator[pb.WatchEventsResponse]:
        request = pb.WatchEventsRequest(session_id=session_id)
        return self.follow(f"{SERVICE}/WatchEvents", request, pb.WatchEventsResponse)

    def watch_audit(self) -> AsyncIterator[pb.WatchAuditResponse]:
        request = pb.WatchAuditRequest(interval=duration_from_seconds(self._interval_s))
        return self.follow(f"{SERVICE}/WatchAudit", request, pb.WatchAuditResponse)

    async def list_items(self, session_id: str, page_token: str) -> pb.ListItemsResponse:
        request = pb.ListItemsRequest(session_id=session_id, page_token=page_token)
        return await self.ask(f"{SERVICE}/ListItems", request, pb.ListItemsResponse)

    async def list_settings(self) -> pb.ListSettingsResponse:
        return await self.ask(f"{SERVICE}/ListSettings", pb.ListSettingsRequest(), pb.ListSettingsResponse)

    async def close_session(self, session_id: str) -> None:
        await self.ask(
            f"{SERVICE}/CloseSession", pb.CloseSessionRequest(session_id=session_id), pb.CloseSessionResponse
        )

    async def kill_worker(self, session_id: str) -> None:
        await self.ask(f"{SERVICE}/KillWorker", pb.KillWorkerRequest(session_id=session_id), pb.KillWorkerResponse)

    async def close(self) -> None:
        if self._credentials.is_logged_in:
            try:
                async with asyncio.timeout(_GOOD_BYE_S):
                    await self.logout()
            except (Refused, TimeoutError):
                pass  # Perhaps the gateway did not end the login; the token will then expire by itself.
        self._credentials.forget()
        await self._channel.close()

    async def ask(self, method: str, request: Message, answer: type[_M]) -> _M:
        call = self._channel.unary_unary(
            method, request_serializer=type(request).SerializeToString, response_deserializer=answer.FromString
        )
        try:
            message = await call(request, metadata=self._credentials.metadata, timeout=_CALL_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise _refused(error) from None
        assert isinstance(message, answer)
        return message

    async def follow(self, method: str, request: Message, answer: type[_M]) -> AsyncIterator[_M]:
        stream = self._channel.unary_stream(
            method, request_serializer=type(request).SerializeToString, response_deserializer=answer.FromString
        )
        number = self._credentials.number
        call = stream(request, metadata=self._credentials.metadata)
        try:
            while (message := await call.read()) is not grpc.aio.EOF:
                if number != self._credentials.number:
                    raise Refused("this login is over")
                assert isinstance(message, answer)
                yield message
        except grpc.aio.AioRpcError as error:
            raise _refused(error) from None
        finally:
            call.cancel()


def _api_key(target: Target) -> str:
    return read_private(target.api_key_file).decode("ascii").strip() if target.api_key_file is not None else ""


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
        read_private(target.private_key) if target.private_key is not None else None,
        target.certificate.read_bytes() if target.certificate is not None else None,
    )
    return grpc.aio.secure_channel(target.address, credentials, options=options)


def _refused(error: grpc.aio.AioRpcError) -> Refused:
    said = _meaning(error)[1]
    if _is_absent(error):
        return NotServed(said)
    return NotThere(said) if error.code() in _NO else Refused(said)


def _is_absent(error: grpc.aio.AioRpcError) -> bool:
    """Return whether the gateway does not serve the called service, or what answers is no gateway."""
    if error.code() is grpc.StatusCode.FAILED_PRECONDITION:
        # ErrorInfo has the reason as plain text, and no other reason of the gateway contains this one.
        details = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
        return b"FEATURE_NOT_ENABLED" in (details if isinstance(details, bytes) else b"")
    return error.code() is grpc.StatusCode.UNIMPLEMENTED


def _meaning(error: grpc.aio.AioRpcError) -> tuple[Link, str]:
    said = clean(error.details() or "", 300)
    match error.code():
        case grpc.StatusCode.UNAUTHENTICATED:
            # The gateway's own text is about API keys of programs. An operator has none, and must log in again.
            return Link.LOGIN, "your login is over: log in again"
        case grpc.StatusCode.PERMISSION_DENIED:
            return Link.DENIED, said
        case _ if _is_absent(error):
            return Link.DENIED, "this gateway has no dashboard: enable its plugin dashboard_tui, or give --connect"
        case grpc.StatusCode.UNAVAILABLE:
            # gRPC's text about a failed connection has the cause after the last colon.
            cause = said.rpartition(": ")[2] if "failed to connect" in said.lower() else said
            return Link.CUT, f"no gateway answers ({cause})" if cause else "no gateway answers"
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return Link.CUT, "the gateway does not answer in time"
        case grpc.StatusCode.CANCELLED:
            return Link.CUT, "the connection was closed"
        case _:
            return Link.CUT, said or error.code().name.lower().replace("_", " ")
