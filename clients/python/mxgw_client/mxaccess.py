"""The 18 methods of LMXProxyServer as typed calls.

An HRESULT other than 0 raises `MxAccessError`; everything else is as MXAccess does it
(docs/reference/mxaccess.md#methods). Handles are kept for the caller: the session registers once, on first use,
and every method takes an `Item` or a bare handle.
"""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import TypeAlias

from mxgw.convert import PyValue, duration_from_seconds, timestamp_from_datetime, to_value
from mxgw.v1 import command_service_pb2, commands_pb2
from mxgw_client._calls import Calls
from mxgw_client._repeating import WRITES, written_once
from mxgw_client.enums import DataType
from mxgw_client.errors import LoginFailed, MxAccessError, ProtocolViolation, WriteFailed
from mxgw_client.references import ReferenceMap
from mxgw_client.results import Item, WriteResult
from mxgw_client.values import Status, statuses_from_messages

ItemLike: TypeAlias = Item | int

# How much later than the gateway the client gives up, so that the gateway's own, typed answer comes first.
ANSWER_MARGIN_S = 1.0

_ADVICE = {
    1012: "this attribute needs write_secured with a user",
    1013: "this attribute needs write_secured with a user and a verifier",
}


class MxAccess:
    """The calls themselves; `Session` adds its life, bulk calls and events."""

    def __init__(self, calls: Calls, client_name: str) -> None:
        self._calls = calls
        self._client_name = client_name
        self._session_id = ""
        self._server_handle: int | None = None
        self._registering = asyncio.Lock()
        self._references = ReferenceMap()

    # Registration

    @property
    def server_handle(self) -> int | None:
        """The handle of the first registration; None before the first use."""
        return self._server_handle

    async def register(self, client_name: str = "", *, timeout_s: float | None = None) -> int:
        """Register and return a server handle.

        Needed only for more than one registration, or to choose the moment: methods register by themselves. The
        first handle becomes the session's; others are passed as `server_handle=`.
        """
        command = commands_pb2.MxCommand(
            register=commands_pb2.RegisterCommand(client_name=client_name or self._client_name)
        )
        handle = _handle(await self.invoke(command, timeout_s=timeout_s), "server_handle")
        if self._server_handle is None:
            self._server_handle = handle
        return handle

    async def unregister(self, server_handle: int | None = None, *, timeout_s: float | None = None) -> None:
        """Release a server handle and every item under it; the session's own when none is given."""
        handle = self._server_handle if server_handle is None else server_handle
        if handle is None:
            return
        command = commands_pb2.MxCommand(unregister=commands_pb2.UnregisterCommand(server_handle=handle))
        await self.invoke(command, timeout_s=timeout_s)
        self._references.remove_server(handle)
        if handle == self._server_handle:
            self._server_handle = None

    async def _server(self, server_handle: int | None = None) -> int:
        if server_handle is not None:
            return server_handle
        if self._server_handle is None:
            async with self._registering:
                if self._server_handle is None:
                    await self.register()
        assert self._server_handle is not None
        return self._server_handle

    # Items

    async def add_item(
        self, reference: str, *, server_handle: int | None = None, timeout_s: float | None = None
    ) -> Item:
        """AddItem. A wrong name seems to work: its failure comes as the status of a data change."""
        server = await self._server(server_handle)
        command = commands_pb2.MxCommand(
            add_item=commands_pb2.AddItemCommand(server_handle=server, item_definition=reference)
        )
        return await self._add(command, server, reference, "", timeout_s)

    async def add_item2(
        self, reference: str, context: str, *, server_handle: int | None = None, timeout_s: float | None = None
    ) -> Item:
        """AddItem2: `context` is the object that a relative reference starts from."""
        server = await self._server(server_handle)
        command = commands_pb2.MxCommand(
            add_item2=commands_pb2.AddItem2Command(
                server_handle=server, item_definition=reference, item_context=context
            )
        )
        return await self._add(command, server, reference, context, timeout_s)

    async def add_buffered_item(
        self, reference: str, context: str = "", *, server_handle: int | None = None, timeout_s: float | None = None
    ) -> Item:
        """AddBufferedItem: once advised, its changes come as BufferedDataChange."""
        server = await self._server(server_handle)
        command = commands_pb2.MxCommand(
            add_buffered_item=commands_pb2.AddBufferedItemCommand(
                server_handle=server, item_definition=reference, item_context=context
            )
        )
        return await self._add(command, server, reference, context, timeout_s)

    async def _add(
        self, command: commands_pb2.MxCommand, server: int, reference: str, context: str, timeout_s: float | None
    ) -> Item:
        reply = await self.invoke(command, timeout_s=timeout_s)
        item = Item(_handle(reply, "item_handle"), reference, server, context, reply.item_serial)
        self._references.add(item.serial, server, item.handle, reference)
        return item

    async def remove_item(self, item: ItemLike, *, timeout_s: float | None = None) -> None:
        """RemoveItem. The handle may be given out again."""
        server, handle = await self._handles(item)
        command = commands_pb2.MxCommand(
            remove_item=commands_pb2.RemoveItemCommand(server_handle=server, item_handle=handle)
        )
        serial = self._serial_of(item, server)
        await self.invoke(command, timeout_s=timeout_s)
        self._references.remove(serial, server, handle)

    def _serial_of(self, item: ItemLike, server_handle: int) -> int:
        """Return which item is meant, before a call after which its handle may stand for another."""
        return item.serial if isinstance(item, Item) else self._references.serial_of(server_handle, item)

    async def _handles(self, item: ItemLike) -> tuple[int, int]:
        if isinstance(item, Item):
            return item.server_handle, item.handle
        return await self._server(), item

    # Data changes

    async def advise(self, item: ItemLike, *, timeout_s: float | None = None) -> None:
        """Advise: data changes follow, writes count as an operator's."""
        server, handle = await self._handles(item)
        command = commands_pb2.MxCommand(advise=commands_pb2.AdviseCommand(server_handle=server, item_handle=handle))
        await self.invoke(command, timeout_s=timeout_s)

    async def advise_supervisory(self, item: ItemLike, *, timeout_s: float | None = None) -> None:
        """AdviseSupervisory: data changes follow, writes count as the client's own and need no login."""
        server, handle = await self._handles(item)
        command = commands_pb2.MxCommand(
            advise_supervisory=commands_pb2.AdviseSupervisoryCommand(server_handle=server, item_handle=handle)
        )
        await self.invoke(command, timeout_s=timeout_s)

    async def un_advise(self, item: ItemLike, *, timeout_s: float | None = None) -> None:
        """UnAdvise. Not before the completion of a write of the item has come."""
        server, handle = await self._handles(item)
        command = commands_pb2.MxCommand(
            un_advise=commands_pb2.UnAdviseCommand(server_handle=server, item_handle=handle)
        )
        await self.invoke(command, timeout_s=timeout_s)

    async def suspend(self, item: ItemLike, *, timeout_s: float | None = None) -> Status:
        """Suspend an advised item and return the out status; an OperationComplete event follows."""
        server, handle = await self._handles(item)
        command = commands_pb2.MxCommand(suspend=commands_pb2.SuspendCommand(server_handle=server, item_handle=handle))
        return _out_status(await self.invoke(command, timeout_s=timeout_s))

    async def activate(self, item: ItemLike, *, timeout_s: float | None = None) -> Status:
        """Activate a suspended item and return the out status."""
        server, handle = await self._handles(item)
        command = commands_pb2.MxCommand(
            activate=commands_pb2.ActivateCommand(server_handle=server, item_handle=handle)
        )
        return _out_status(await self.invoke(command, timeout_s=timeout_s))

    async def set_buffered_update_interval(
        self, interval_ms: int, *, server_handle: int | None = None, timeout_s: float | None = None
    ) -> None:
        """SetBufferedUpdateInterval: how often buffered data changes are sent, in milliseconds."""
        server = await self._server(server_handle)
        command = commands_pb2.MxCommand(
            set_buffered_update_interval=commands_pb2.SetBufferedUpdateIntervalCommand(
                server_handle=server, interval_ms=interval_ms
            )
        )
        await self.invoke(command, timeout_s=timeout_s)

    # Writes

    async def write(
        self,
        item: ItemLike,
        value: PyValue,
        *,
        user_id: int = 0,
        wait: bool = False,
        data_type: DataType | None = None,
        timeout_s: float | None = None,
    ) -> WriteResult:
        """Write an advised item whose first data change has come.

        Without `wait` it returns when the write was accepted; the result is the WriteComplete event with its
        `write_id`. With `wait` it returns when the write completed. `data_type` chooses between types a Python value
        does not tell apart, such as DataType.FLOAT and DOUBLE.

        Raises:
            MxAccessError: the write was not accepted (the item is not advised, or its type is not known yet).
            WriteFailed: with `wait`: it completed with a failure, or no completion came.
        """
        server, handle = await self._handles(item)
        command = commands_pb2.MxCommand(
            write=commands_pb2.WriteCommand(
                server_handle=server,
                item_handle=handle,
                value=to_value(value, data_type),
                user_id=user_id,
                wait_for_completion=wait,
            )
        )
        return await self._write(command, handle, wait=wait, timeout_s=timeout_s)

    async def write2(
        self,
        item: ItemLike,
        value: PyValue,
        time: datetime,
        *,
        user_id: int = 0,
        wait: bool = False,
        data_type: DataType | None = None,
        timeout_s: float | None = None,
    ) -> WriteResult:
        """Write2: `write` with the caller's source time; a naive `time` is UTC."""
        server, handle = await self._handles(item)
        command = commands_pb2.MxCommand(
            write2=commands_pb2.Write2Command(
                server_handle=server,
                item_handle=handle,
                value=to_value(value, data_type),
                time=timestamp_from_datetime(time),
                user_id=user_id,
                wait_for_completion=wait,
            )
        )
        return await self._write(command, handle, wait=wait, timeout_s=timeout_s)

    async def write_secured(
        self,
        item: ItemLike,
        value: PyValue,
        *,
        user_id: int,
        verifier_id: int = 0,
        wait: bool = False,
        data_type: DataType | None = None,
        timeout_s: float | None = None,
    ) -> WriteResult:
        """WriteSecured, with one user (status detail 1012) or a user and a verifier (1013)."""
        server, handle = await self._handles(item)
        command = commands_pb2.MxCommand(
            write_secured=commands_pb2.WriteSecuredCommand(
                server_handle=server,
                item_handle=handle,
                current_user_id=user_id,
                verifier_user_id=verifier_id,
                value=to_value(value, data_type),
                wait_for_completion=wait,
            )
        )
        return await self._write(command, handle, wait=wait, timeout_s=timeout_s)

    async def write_secured2(
        self,
        item: ItemLike,
        value: PyValue,
        time: datetime,
        *,
        user_id: int,
        verifier_id: int = 0,
        wait: bool = False,
        data_type: DataType | None = None,
        timeout_s: float | None = None,
    ) -> WriteResult:
        """WriteSecured2: `write_secured` with the caller's source time; a naive `time` is UTC."""
        server, handle = await self._handles(item)
        command = commands_pb2.MxCommand(
            write_secured2=commands_pb2.WriteSecured2Command(
                server_handle=server,
                item_handle=handle,
                current_user_id=user_id,
                verifier_user_id=verifier_id,
                value=to_value(value, data_type),
                time=timestamp_from_datetime(time),
                wait_for_completion=wait,
            )
        )
        return await self._write(command, handle, wait=wait, timeout_s=timeout_s)

    async def _write(
        self, command: commands_pb2.MxCommand, handle: int, *, wait: bool, timeout_s: float | None
    ) -> WriteResult:
        reply = await self.invoke(command, timeout_s=timeout_s)
        if reply.WhichOneof("result") != "write":
            raise ProtocolViolation("the reply to a write has no write id")
        statuses = statuses_from_messages(reply.statuses)
        failed = next((status for status in statuses if not status.ok), None)
        if wait and (failed or not reply.write.completed):
            advice = _ADVICE.get(failed.detail, "") if failed else "its outcome is unknown: read the item back"
            text = "the write was refused" if failed else "no completion came in time"
            raise WriteFailed(f"write of item {handle}", 0, reply.message or text, statuses, reply.reason, advice)
        return WriteResult(handle, reply.write.write_id, reply.write.completed, statuses)

    # Users

    async def authenticate_user(
        self, user: str, password: str, *, server_handle: int | None = None, timeout_s: float | None = None
    ) -> int:
        """AuthenticateUser: return the user id for writes.

        Raises:
            LoginFailed: MXAccess answered 0. (A Galaxy without security accepts any name:
                docs/reference/mxaccess.md#logins.)
        """
        server = await self._server(server_handle)
        command = commands_pb2.MxCommand(
            authenticate_user=commands_pb2.AuthenticateUserCommand(server_handle=server, user=user, password=password)
        )
        reply = await self.invoke(command, timeout_s=timeout_s)
        if reply.WhichOneof("result") != "user_id" or reply.user_id == 0:
            raise LoginFailed("authenticate_user", reply.hresult, "the user or password was not accepted")
        return reply.user_id

    async def archestra_user_to_id(
        self, user_guid: str, *, server_handle: int | None = None, timeout_s: float | None = None
    ) -> int:
        """ArchestrAUserToId: return the user id of a GUID."""
        server = await self._server(server_handle)
        command = commands_pb2.MxCommand(
            archestra_user_to_id=commands_pb2.ArchestraUserToIdCommand(server_handle=server, user_guid=user_guid)
        )
        return _handle(await self.invoke(command, timeout_s=timeout_s), "user_id")

    # The one way to the gateway

    async def invoke(
        self, command: commands_pb2.MxCommand, *, timeout_s: float | None = None, request_id: bytes = b""
    ) -> commands_pb2.MxReply:
        """Send one command as it is and return MXAccess's reply; the other methods are made of this.

        `timeout_s` is the command's deadline at the gateway (its own limit, 30 s by default, caps it). A write
        bears a request id and is carried out once: when its answer is lost it is asked for again, until the deadline.
        `request_id` (16 to 64 bytes, writes only) is one of your own, to repeat the write by yourself.

        Raises:
            MxAccessError: the reply's HRESULT is not 0.
            CommandTimedOut: no answer in time; the outcome is unknown.
            MxgwClientError: the gateway refused; see `errors`.
        """
        deadline_s = self._calls.deadline_s(timeout_s)
        request = command_service_pb2.InvokeRequest(session_id=self._session_id, command=command, request_id=request_id)
        method = command.WhichOneof("command") or "invoke"

        async def attempt(left_s: float) -> command_service_pb2.InvokeResponse:
            request.timeout.CopyFrom(duration_from_seconds(left_s))
            return await self._calls.unary(
                self._calls.commands.Invoke, request, method, timeout_s=left_s + ANSWER_MARGIN_S
            )

        once = written_once(request, attempt, deadline_s) if method in WRITES else attempt(deadline_s)
        reply = (await once).reply
        if reply.hresult != 0 or reply.reason:
            kind = WriteFailed if reply.WhichOneof("result") == "write" else MxAccessError
            raise kind(method, reply.hresult, reply.message, statuses_from_messages(reply.statuses), reply.reason)
        return reply


def _handle(reply: commands_pb2.MxReply, field: str) -> int:
    if reply.WhichOneof("result") != field:
        raise ProtocolViolation(f"the reply has no {field}")
    handle: int = getattr(reply, field)
    return handle


def _out_status(reply: commands_pb2.MxReply) -> Status:
    if not reply.statuses:
        raise ProtocolViolation("the reply has no status")
    return statuses_from_messages(reply.statuses)[0]
