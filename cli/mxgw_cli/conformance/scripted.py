"""A small gateway on a real socket that answers as a script says, also where that breaks the contract."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc import aio

from mxgw import convert
from mxgw.v1 import (
    command_service_pb2,
    command_service_pb2_grpc,
    commands_pb2,
    event_service_pb2,
    events_pb2,
    gateway_service_pb2,
    gateway_service_pb2_grpc,
    session_service_pb2,
    session_service_pb2_grpc,
    values_pb2,
)

EPOCH = bytes(range(16))
SESSION_ID = "session-1"
# `bytes` are sent as they are, also when they are no message.
Frames = AsyncIterator[event_service_pb2.StreamEventsResponse | bytes]
Context = aio.ServicerContext[Any, Any]
Reply = Callable[[commands_pb2.MxCommand], commands_pb2.MxReply | Awaitable[commands_pb2.MxReply]]


@dataclass
class Refusal(Exception):
    """Raise it in a script to end the call as a gateway would. Without `reason` there are no details."""

    code: grpc.StatusCode
    reason: str = ""
    text: str = "refused"
    metadata: dict[str, str] = field(default_factory=dict)
    retry_after_s: float | None = None
    domain: str = "mxgw"
    raw_details: bytes | None = None

    def trailing(self) -> tuple[tuple[str, bytes], ...]:
        details = []
        if self.reason:
            info = error_details_pb2.ErrorInfo(reason=self.reason, domain=self.domain, metadata=self.metadata)
            details.append(_any(info))
        if self.retry_after_s is not None:
            retry = error_details_pb2.RetryInfo(retry_delay=convert.duration_from_seconds(self.retry_after_s))
            details.append(_any(retry))
        if self.raw_details is None and not details:
            return ()
        status = status_pb2.Status(code=self.code.value[0], message=self.text, details=details)
        raw = status.SerializeToString() if self.raw_details is None else self.raw_details
        return (("grpc-status-details-bin", raw),)


def _any(message: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed


def opened(
    from_sequence: int = 0, *, heartbeat_s: float = 5.0, resuming: bool = False, recovered: bool = False
) -> event_service_pb2.StreamEventsResponse:
    return event_service_pb2.StreamEventsResponse(
        opened=events_pb2.StreamOpened(
            epoch=EPOCH,
            from_sequence=from_sequence,
            head_sequence=from_sequence,
            oldest_sequence=1,
            was_resuming=resuming,
            recovered=recovered,
            heartbeat_interval=convert.duration_from_seconds(heartbeat_s),
            policy="disconnect",
            subscriber_id="s1",
        )
    )


def change(
    sequence: int, value: convert.PyValue = None, *, item: int = 1, serial: int = 0, ok: bool = True
) -> events_pb2.Event:
    return events_pb2.Event(
        sequence=sequence,
        item_serial=serial or item,
        item_handle=item,
        kind=events_pb2.EVENT_KIND_DATA_CHANGE,
        server_handle=1,
        worker_time=convert.timestamp_from_ns(1_700_000_000_000_000_000 + sequence),
        data_change=events_pb2.DataChange(
            value=convert.to_value(float(sequence) if value is None else value),
            quality=values_pb2.QUALITY_GOOD,
            raw_quality=192,
            source_time=convert.timestamp_from_ns(1_700_000_000_000_000_000),
            statuses=[convert.ok_status() if ok else convert.status(0, 4, 1, 1003)],
        ),
    )


def batch(*events: events_pb2.Event) -> event_service_pb2.StreamEventsResponse:
    return event_service_pb2.StreamEventsResponse(events=events_pb2.EventBatch(events=events))


def changes(first: int, last: int) -> event_service_pb2.StreamEventsResponse:
    return batch(*(change(sequence) for sequence in range(first, last + 1)))


def heartbeat(sequence: int) -> event_service_pb2.StreamEventsResponse:
    return event_service_pb2.StreamEventsResponse(
        heartbeat=events_pb2.Heartbeat(
            position=events_pb2.Position(epoch=EPOCH, sequence=sequence),
            head_sequence=sequence,
            worker_state=events_pb2.WORKER_STATE_READY,
            source_health=events_pb2.SOURCE_HEALTH_GOOD,
        )
    )


def gap(first: int, last: int, *, count: int = 0, reason: int = 1) -> event_service_pb2.StreamEventsResponse:
    return event_service_pb2.StreamEventsResponse(
        gap=events_pb2.Gap(
            epoch=EPOCH,
            first_lost=first,
            last_lost=last,
            count=count,
            reason=events_pb2.GapReason.ValueType(reason),
            detail="lost",
        )
    )


@dataclass
class Script:
    """The answers of the gateway, and the calls it got."""

    # By command name: a function that returns the reply or raises a Refusal.
    replies: dict[str, Reply]
    stream: Callable[[event_service_pb2.StreamEventsRequest, Context], Frames] | None = None
    refusals: dict[str, Refusal] = field(default_factory=dict)
    # By call: refusals for its first calls, one each. After them `refusals` and `replies` count.
    first: dict[str, list[Refusal]] = field(default_factory=dict)
    # Called for every call, with its name, before it is answered. It may wait, or raise a Refusal.
    before: Callable[[str, object], Awaitable[None]] | None = None
    contract: str = "mxgw.v1"
    head_sequence: int = 0
    pages: list[session_service_pb2.GetSessionStateResponse] = field(default_factory=list)
    nodes: list[list[commands_pb2.BrowseNode]] = field(default_factory=list)
    calls: list[tuple[str, object]] = field(default_factory=list)
    metadata: list[dict[str, str]] = field(default_factory=list)
    streams_ended: int = 0

    def called(self, name: str) -> list[object]:
        return [request for called, request in self.calls if called == name]


def default_replies() -> dict[str, Reply]:
    handles = iter(range(1, 1_000_000))

    def add(command: commands_pb2.MxCommand) -> commands_pb2.MxReply:
        handle = next(handles)
        return commands_pb2.MxReply(item_handle=handle, item_serial=handle)

    def write(command: commands_pb2.MxCommand) -> commands_pb2.MxReply:
        body = getattr(command, command.WhichOneof("command") or "")
        wait = body.wait_for_completion
        return commands_pb2.MxReply(
            write=commands_pb2.WriteResult(write_id=7, completed=wait), statuses=[convert.ok_status()] if wait else []
        )

    def nothing(command: commands_pb2.MxCommand) -> commands_pb2.MxReply:
        return commands_pb2.MxReply()

    def bulk(command: commands_pb2.MxCommand) -> commands_pb2.MxReply:
        added = [next(handles) for _ in command.subscribe_bulk.items]
        items = [commands_pb2.BulkItemResult(item_handle=handle, item_serial=handle) for handle in added]
        return commands_pb2.MxReply(bulk=commands_pb2.BulkResult(items=items))

    def unsubscribe(command: commands_pb2.MxCommand) -> commands_pb2.MxReply:
        items = [commands_pb2.BulkItemResult(item_handle=h) for h in command.unsubscribe_bulk.item_handles]
        return commands_pb2.MxReply(bulk=commands_pb2.BulkResult(items=items))

    def status(command: commands_pb2.MxCommand) -> commands_pb2.MxReply:
        return commands_pb2.MxReply(statuses=[convert.ok_status()])

    def user(command: commands_pb2.MxCommand) -> commands_pb2.MxReply:
        return commands_pb2.MxReply(user_id=42)

    return {
        "register": lambda command: commands_pb2.MxReply(server_handle=1),
        "add_item": add,
        "add_item2": add,
        "add_buffered_item": add,
        "write": write,
        "write2": write,
        "write_secured": write,
        "write_secured2": write,
        "authenticate_user": user,
        "archestra_user_to_id": user,
        "suspend": status,
        "activate": status,
        "subscribe_bulk": bulk,
        "unsubscribe_bulk": unsubscribe,
        **dict.fromkeys(
            (
                "unregister",
                "remove_item",
                "advise",
                "advise_supervisory",
                "un_advise",
                "set_buffered_update_interval",
            ),
            nothing,
        ),
    }


class _Services(
    session_service_pb2_grpc.SessionServiceServicer,
    command_service_pb2_grpc.CommandServiceServicer,
    gateway_service_pb2_grpc.GatewayServiceServicer,
):
    def __init__(self, script: Script) -> None:
        self.script = script

    async def _note(self, name: str, request: object, context: Context) -> None:
        self.script.calls.append((name, request))
        self.script.metadata.append({key: str(value) for key, value in context.invocation_metadata() or ()})
        if self.script.before is not None:
            try:
                await self.script.before(name, request)
            except Refusal as refusal:
                await _refuse(context, refusal)
        if self.script.first.get(name):
            await _refuse(context, self.script.first[name].pop(0))
        if name in self.script.refusals:
            await _refuse(context, self.script.refusals[name])

    async def GetGatewayInfo(self, request: Any, context: Context) -> Any:  # noqa: N802
        await self._note("GetGatewayInfo", request, context)
        return gateway_service_pb2.GetGatewayInfoResponse(
            version="0.1.0", contract=self.script.contract, backends=["sim"], default_backend="sim"
        )

    async def Ping(self, request: Any, context: Context) -> Any:  # noqa: N802
        await self._note("Ping", request, context)
        answer = gateway_service_pb2.PingResponse(payload=request.payload)
        if request.session_id:
            answer.worker_round_trip.CopyFrom(convert.duration_from_seconds(0.002))
        return answer

    async def OpenSession(self, request: Any, context: Context) -> Any:  # noqa: N802
        await self._note("OpenSession", request, context)
        return session_service_pb2.OpenSessionResponse(session=self._session())

    async def CloseSession(self, request: Any, context: Context) -> Any:  # noqa: N802
        await self._note("CloseSession", request, context)
        return session_service_pb2.CloseSessionResponse(session=self._session())

    async def GetSession(self, request: Any, context: Context) -> Any:  # noqa: N802
        await self._note("GetSession", request, context)
        return session_service_pb2.GetSessionResponse(session=self._session())

    async def ListSessions(self, request: Any, context: Context) -> Any:  # noqa: N802
        await self._note("ListSessions", request, context)
        second = session_service_pb2.Session(session_id="session-2")
        if request.page_token:
            return session_service_pb2.ListSessionsResponse(sessions=[second])
        return session_service_pb2.ListSessionsResponse(sessions=[self._session()], next_page_token="2")

    async def GetSessionState(self, request: Any, context: Context) -> Any:  # noqa: N802
        await self._note("GetSessionState", request, context)
        if self.script.pages:
            return self.script.pages[int(request.page_token or "0")]
        return session_service_pb2.GetSessionStateResponse(
            position=events_pb2.Position(epoch=EPOCH, sequence=self.script.head_sequence)
        )

    async def ListSubscribers(self, request: Any, context: Context) -> Any:  # noqa: N802
        await self._note("ListSubscribers", request, context)
        return session_service_pb2.ListSubscribersResponse()

    async def GetWorkerInfo(self, request: Any, context: Context) -> Any:  # noqa: N802
        await self._note("GetWorkerInfo", request, context)
        return session_service_pb2.GetWorkerInfoResponse(pid=99, backend="sim 0.1.0", epoch=EPOCH, items=3)

    async def Invoke(self, request: Any, context: Context) -> Any:  # noqa: N802
        name = request.command.WhichOneof("command")
        await self._note(name, request, context)
        try:
            answer = self.script.replies[name](request.command)
            reply = answer if isinstance(answer, commands_pb2.MxReply) else await answer
        except Refusal as refusal:
            await _refuse(context, refusal)
        return command_service_pb2.InvokeResponse(reply=reply)

    async def Browse(self, request: Any, context: Context) -> Any:  # noqa: N802
        await self._note("Browse", request, context)
        page = int(request.page_token or "0")
        more = page + 1 < len(self.script.nodes)
        return command_service_pb2.BrowseResponse(
            nodes=self.script.nodes[page], next_page_token=str(page + 1) if more else ""
        )

    async def StreamEvents(self, request: Any, context: Context) -> Frames:  # noqa: N802
        await self._note("StreamEvents", request, context)
        assert self.script.stream is not None
        try:
            async for frame in self.script.stream(request, context):
                yield frame
        except Refusal as refusal:
            await _refuse(context, refusal)
        finally:
            self.script.streams_ended += 1

    def _session(self) -> session_service_pb2.Session:
        return session_service_pb2.Session(
            session_id=SESSION_ID, state=session_service_pb2.SESSION_STATE_READY, epoch=EPOCH, backend="sim"
        )


async def _refuse(context: Context, refusal: Refusal) -> None:
    await context.abort(refusal.code, refusal.text, refusal.trailing())


@dataclass
class Scripted:
    """A running scripted gateway."""

    target: str
    script: Script
    server: aio.Server


@contextlib.asynccontextmanager
async def scripted_gateway(
    address: str = "127.0.0.1:0", credentials: grpc.ServerCredentials | None = None
) -> AsyncIterator[Scripted]:
    """Run one until the block is left."""
    server = aio.server()
    script = Script(default_replies())
    services = _Services(script)
    session_service_pb2_grpc.add_SessionServiceServicer_to_server(services, server)
    command_service_pb2_grpc.add_CommandServiceServicer_to_server(services, server)
    gateway_service_pb2_grpc.add_GatewayServiceServicer_to_server(services, server)
    # Not by the generated code, which would not let a script send what is no message.
    stream = grpc.unary_stream_rpc_method_handler(
        services.StreamEvents,
        request_deserializer=event_service_pb2.StreamEventsRequest.FromString,
        response_serializer=lambda frame: frame if isinstance(frame, bytes) else frame.SerializeToString(),
    )
    events = {"StreamEvents": stream}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("mxgw.v1.EventService", events)])
    port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    await server.start()
    try:
        yield Scripted(address if address.startswith("unix:") else f"127.0.0.1:{port}", script, server)
    finally:
        await server.stop(None)
