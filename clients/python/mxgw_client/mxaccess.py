"""The 18 methods of LMXProxyServer (MXAccess) as Python methods.

They behave as in MXAccess (docs/reference/mxaccess.md#methods), except that an HRESULT other than 0 raises
`MxAccessError`. The session calls Register by itself when it first needs a server handle. Methods for an item accept
an `Item` or the number of an item handle.

This module has more than 400 lines, because the methods form one list.
"""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import TypeAlias, TypedDict

from mxgw.convert import PyValue, duration_from_seconds, timestamp_from_datetime, to_value
from mxgw.v1 import command_service_pb2, commands_pb2
from mxgw_client._calls import Calls
from mxgw_client._repeating import WRITES, written_once
from mxgw_client.enums import DataType
from mxgw_client.errors import LoginFailed, MxAccessError, ProtocolViolation, WriteFailed
from mxgw_client.metadata import ItemOptions, options_to_message
from mxgw_client.references import ReferenceMap
from mxgw_client.results import Item, WriteResult
from mxgw_client.values import Status, statuses_from_messages

ItemLike: TypeAlias = Item | int

# The client waits for an answer this many seconds longer than the gateway waits for the worker. When the worker does
# not answer, the client then gets the error of the gateway, which says more than an expired deadline.
ANSWER_MARGIN_S = 1.0

_ADVICE = {
    1012: "this attribute needs write_secured with a user",
    1013: "this attribute needs write_secured with a user and a verifier",
}


class _Handles(TypedDict):
    """The two handles that name an item in a command."""

    server_handle: int
    item_handle: int


class MxAccess:
    """The methods of MXAccess. `BulkCalls` adds calls for many items; `Session` adds opening, closing and events."""

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
        """The server handle that methods use by default; None until the session has registered."""
        return self._server_handle

    async def register(self, client_name: str = "", *, timeout_s: float | None = None) -> int:
        """Register, and return the new server handle.

        Most programs need not call this, because the other methods register when there is no server handle yet. The
        handle of the first registration is the default of all methods. A program with several registrations passes the
        other handles as `server_handle`.
        """
        command = commands_pb2.MxCommand(
            register=commands_pb2.RegisterCommand(client_name=client_name or self._client_name)
        )
        handle = _handle(await self.invoke(command, timeout_s=timeout_s), "server_handle")
        if self._server_handle is None:
            self._server_handle = handle
        return handle

    async def unregister(self, server_handle: int | None = None, *, timeout_s: float | None = None) -> None:
        """Unregister: release a server handle and every item that was added with it. None means the default handle."""
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
        self,
        reference: str,
        *,
        options: ItemOptions | None = None,
        server_handle: int | None = None,
        timeout_s: float | None = None,
    ) -> Item:
        """Add an item (AddItem), on some backends with a deadband or a sampling interval of its own.

        MXAccess also accepts a reference that does not exist; the failure then comes as the status of a data change.
        """
        server = await self._server(server_handle)
        command = commands_pb2.MxCommand(
            add_item=commands_pb2.AddItemCommand(
                server_handle=server, item_definition=reference, options=options_to_message(options)
            )
        )
        return await self._add(command, server, reference, "", timeout_s)

    async def add_item2(
        self,
        reference: str,
        context: str,
        *,
        options: ItemOptions | None = None,
        server_handle: int | None = None,
        timeout_s: float | None = None,
    ) -> Item:
        """Add an item by a reference relative to the object `context` (AddItem2)."""
        server = await self._server(server_handle)
        command = commands_pb2.MxCommand(
            add_item2=commands_pb2.AddItem2Command(
                server_handle=server,
                item_definition=reference,
                item_context=context,
                options=options_to_message(options),
            )
        )
        return await self._add(command, server, reference, context, timeout_s)

    async def add_buffered_item(
        self,
        reference: str,
        context: str = "",
        *,
        options: ItemOptions | None = None,
        server_handle: int | None = None,
        timeout_s: float | None = None,
    ) -> Item:
        """Add an item whose changes come as `BufferedDataChange` events after it is advised (AddBufferedItem)."""
        server = await self._server(server_handle)
        command = commands_pb2.MxCommand(
            add_buffered_item=commands_pb2.AddBufferedItemCommand(
                server_handle=server,
                item_definition=reference,
                item_context=context,
                options=options_to_message(options),
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
        """Remove an item (RemoveItem). After this, MXAccess can give its handle to another item."""
        command = commands_pb2.RemoveItemCommand(**await self._handles(item))
        serial = self._serial_of(item, command.server_handle)
        await self.invoke(commands_pb2.MxCommand(remove_item=command), timeout_s=timeout_s)
        self._references.remove(serial, command.server_handle, command.item_handle)

    def _serial_of(self, item: ItemLike, server_handle: int) -> int:
        """Return the serial of an item; 0 when it is not known.

        Call this before RemoveItem, because the handle can belong to another item afterwards.
        """
        return item.serial if isinstance(item, Item) else self._references.serial_of(server_handle, item)

    async def _handles(self, item: ItemLike) -> _Handles:
        if isinstance(item, Item):
            return {"server_handle": item.server_handle, "item_handle": item.handle}
        return {"server_handle": await self._server(), "item_handle": item}

    # Data changes

    async def advise(self, item: ItemLike, *, timeout_s: float | None = None) -> None:
        """Begin to get data changes of an item (Advise).

        MXAccess treats writes to the item as made by a person, so some writes need a login.
        """
        command = commands_pb2.AdviseCommand(**await self._handles(item))
        await self.invoke(commands_pb2.MxCommand(advise=command), timeout_s=timeout_s)

    async def advise_supervisory(self, item: ItemLike, *, timeout_s: float | None = None) -> None:
        """Begin to get data changes of an item (AdviseSupervisory).

        MXAccess treats writes to the item as made by the program itself, so they need no login.
        """
        command = commands_pb2.AdviseSupervisoryCommand(**await self._handles(item))
        await self.invoke(commands_pb2.MxCommand(advise_supervisory=command), timeout_s=timeout_s)

    async def un_advise(self, item: ItemLike, *, timeout_s: float | None = None) -> None:
        """Stop the data changes of an item (UnAdvise).

        When you have written to the item, wait for the completion of the write before you call this.
        """
        command = commands_pb2.UnAdviseCommand(**await self._handles(item))
        await self.invoke(commands_pb2.MxCommand(un_advise=command), timeout_s=timeout_s)

    async def suspend(self, item: ItemLike, *, timeout_s: float | None = None) -> Status:
        """Suspend an advised item, and return the status that MXAccess answers. An OperationComplete event follows."""
        command = commands_pb2.SuspendCommand(**await self._handles(item))
        return _out_status(await self.invoke(commands_pb2.MxCommand(suspend=command), timeout_s=timeout_s))

    async def activate(self, item: ItemLike, *, timeout_s: float | None = None) -> Status:
        """Activate a suspended item, and return the status that MXAccess answers."""
        command = commands_pb2.ActivateCommand(**await self._handles(item))
        return _out_status(await self.invoke(commands_pb2.MxCommand(activate=command), timeout_s=timeout_s))

    async def set_buffered_update_interval(
        self, interval_ms: int, *, server_handle: int | None = None, timeout_s: float | None = None
    ) -> None:
        """Set the time between two buffered data changes of an item, in milliseconds (SetBufferedUpdateInterval)."""
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
        """Write a value to an item (Write). The item must be advised, and its first data change must have come.

        With `wait` the call returns when the write has completed. Otherwise the call returns when the write was
        accepted; the WriteComplete event with the same `write_id` then says whether the write succeeded. `data_type`
        chooses the type in MXAccess when a Python type stands for several, for example DataType.FLOAT or DOUBLE for a
        Python float.

        Raises:
            MxAccessError: the write was not accepted: the item is not advised, or its type is not known yet.
            WriteFailed: `wait` is True, and the write completed with a failure or its completion did not come.
        """
        command = commands_pb2.WriteCommand(
            **await self._handles(item),
            value=to_value(value, data_type),
            user_id=user_id,
            wait_for_completion=wait,
        )
        return await self._write(
            commands_pb2.MxCommand(write=command), command.item_handle, wait=wait, timeout_s=timeout_s
        )

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
        """Write a value with `time` as its source time (Write2). The rest is as in `write`.

        A `time` without a time zone is taken as UTC.
        """
        command = commands_pb2.Write2Command(
            **await self._handles(item),
            value=to_value(value, data_type),
            time=timestamp_from_datetime(time),
            user_id=user_id,
            wait_for_completion=wait,
        )
        return await self._write(
            commands_pb2.MxCommand(write2=command), command.item_handle, wait=wait, timeout_s=timeout_s
        )

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
        """Write a value in the name of a user, and of a verifier if the item needs one (WriteSecured).

        The ids of user and verifier come from `authenticate_user`. The rest is as in `write`. A plain `write` to an
        item that needs a user fails with the status detail 1012; when the item also needs a verifier, with 1013.
        """
        command = commands_pb2.WriteSecuredCommand(
            **await self._handles(item),
            current_user_id=user_id,
            verifier_user_id=verifier_id,
            value=to_value(value, data_type),
            wait_for_completion=wait,
        )
        return await self._write(
            commands_pb2.MxCommand(write_secured=command), command.item_handle, wait=wait, timeout_s=timeout_s
        )

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
        """Write a value in the name of a user, with `time` as its source time (WriteSecured2).

        The rest is as in `write_secured`. A `time` without a time zone is taken as UTC.
        """
        command = commands_pb2.WriteSecured2Command(
            **await self._handles(item),
            current_user_id=user_id,
            verifier_user_id=verifier_id,
            value=to_value(value, data_type),
            time=timestamp_from_datetime(time),
            wait_for_completion=wait,
        )
        return await self._write(
            commands_pb2.MxCommand(write_secured2=command), command.item_handle, wait=wait, timeout_s=timeout_s
        )

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
        """Log a user in, and return the user id for writes (AuthenticateUser).

        A Galaxy without security accepts any name; see docs/reference/mxaccess.md#logins.

        Raises:
            LoginFailed: MXAccess did not accept the user or the password.
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
        """Return the user id for writes of the user with this GUID (ArchestrAUserToId)."""
        server = await self._server(server_handle)
        command = commands_pb2.MxCommand(
            archestra_user_to_id=commands_pb2.ArchestraUserToIdCommand(server_handle=server, user_guid=user_guid)
        )
        return _handle(await self.invoke(command, timeout_s=timeout_s), "user_id")

    # The call that all methods above use

    async def invoke(
        self, command: commands_pb2.MxCommand, *, timeout_s: float | None = None, request_id: bytes = b""
    ) -> commands_pb2.MxReply:
        """Send one protobuf command, and return the reply of MXAccess. All other methods call this method.

        `timeout_s` is the deadline of the command at the gateway. The gateway shortens it to its own limit (30 s by
        default).

        Every write is sent with a request id. When its answer is lost, the write is sent again until the deadline, and
        it is carried out only once. Pass your own `request_id` (16 to 64 bytes, for writes only) when your program
        wants to be able to repeat the write later.

        Raises:
            MxAccessError: the HRESULT of the reply is not 0, or the reply has another reason for a failure.
            CommandTimedOut: no answer came before the deadline. The outcome is unknown.
            MxgwClientError: the gateway refused the command; see `errors`.
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
