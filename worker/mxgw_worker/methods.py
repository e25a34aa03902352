"""Runs the 18 methods of LMXProxyServer on the backend, and keeps the item table up to date.

Right before each backend call, the item handle is checked: it must still mean the item for which the gateway checked
rights.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import TypeAlias

from mxgw.v1 import commands_pb2 as c
from mxgw.v1.commands_pb2 import ItemOptions, MxReply, WriteResult
from mxgw.v1.session_service_pb2 import ADVISE_KIND_NONE, ADVISE_KIND_PLAIN, ADVISE_KIND_SUPERVISORY
from mxgw.v1.values_pb2 import MxStatus
from mxgw_worker.arguments import check_reference, checked_interval_ms, checked_options, checked_time, checked_value
from mxgw_worker.backends.base import E_FAIL, E_INVALIDARG, E_NOTIMPL, Backend, MxError, Tunable
from mxgw_worker.calls import Call, CallExpired, Issue, Refused
from mxgw_worker.ipc.references import MOST_REFERENCE_BYTES, reference_bytes
from mxgw_worker.items import Item, ItemTable
from mxgw_worker.turns import BackendTurn, Ticket
from mxgw_worker.writes import Completion, PendingWrite, Writes

MISSING = (
    "the backend sent no completion within workers.write_completion_timeout_s: count the write as failed and read the "
    "item back"
)

_WriteCommand: TypeAlias = c.WriteCommand | c.Write2Command | c.WriteSecuredCommand | c.WriteSecured2Command


class Methods:
    """Runs single methods. Every backend call is made while `turn`, the backend's turn (turns.py), is held."""

    def __init__(
        self,
        *,
        backend: Backend,
        items: ItemTable,
        writes: Writes,
        turn: BackendTurn,
        maximum_items: int,
        maximum_reference_bytes: int = MOST_REFERENCE_BYTES,
    ) -> None:
        self.backend = backend
        self.items = items
        self.writes = writes
        self.turn = turn
        self._maximum_items = maximum_items
        self._maximum_reference_bytes = maximum_reference_bytes

    async def register(self, call: Call, command: c.RegisterCommand) -> MxReply:
        """Run Register on the backend."""
        async with self.turn(call):
            server_handle = await self.backend.register(command.client_name)
            self.items.registrations[server_handle] = command.client_name
        return MxReply(server_handle=server_handle)

    async def unregister(self, call: Call, command: c.UnregisterCommand) -> MxReply:
        """Run Unregister, after all writes in flight to items of this registration have ended."""
        server_handle = command.server_handle
        with ExitStack() as tickets:
            seen: set[Item] = set()
            while unseen := [item for item in self.items.of_registration(server_handle) if item not in seen]:
                for item in unseen:
                    await tickets.enter_context(item.turns.line_up()).wait(call)
                seen.update(unseen)
            async with self.turn(call):
                await self.backend.unregister(server_handle)
                self.items.unregister(server_handle)
        return MxReply()

    async def add_item(self, call: Call, command: c.AddItemCommand) -> MxReply:
        """Run AddItem on the backend."""
        options = checked_options(command)
        async with self.turn(call):
            return _added(await self.add(command.server_handle, command.item_definition, "", options=options))

    async def add_item2(self, call: Call, command: c.AddItem2Command) -> MxReply:
        """Run AddItem2 on the backend."""
        options = checked_options(command)
        async with self.turn(call):
            item = await self.add(
                command.server_handle, command.item_definition, command.item_context, with_context=True, options=options
            )
        return _added(item)

    async def add_buffered_item(self, call: Call, command: c.AddBufferedItemCommand) -> MxReply:
        """Run AddBufferedItem on the backend."""
        options = checked_options(command)
        self.check_room(command.item_definition, command.item_context)
        async with self.turn(call):
            self.check_room(command.item_definition, command.item_context)
            self.check_tunable(options)
            handle = await self.backend.add_buffered_item(
                command.server_handle, command.item_definition, command.item_context
            )
            await self._tune(command.server_handle, handle, options)
            item = self.items.add(
                (command.server_handle, handle),
                command.item_definition,
                command.item_context,
                buffered=True,
                options=options,
            )
        return _added(item)

    async def add(
        self,
        server_handle: int,
        definition: str,
        context: str,
        *,
        with_context: bool = False,
        options: ItemOptions | None = None,
    ) -> Item:
        """Add an item to the backend and to the item table. The caller holds the backend's turn."""
        self.check_tunable(options)
        handle = await self.add_unnoted(server_handle, definition, context, with_context=with_context)
        await self._tune(server_handle, handle, options)
        return self.items.add((server_handle, handle), definition, context, options=options)

    def check_tunable(self, options: ItemOptions | None) -> None:
        """Refuse options that the backend does not have.

        Raises:
            Refused: ITEM_OPTIONS_NOT_SUPPORTED.
        """
        if options is not None and not isinstance(self.backend, Tunable):
            raise Refused(
                "ITEM_OPTIONS_NOT_SUPPORTED",
                f"the backend {self.backend.info().kind} reports every change: like MXAccess, it has no deadband and "
                "no sampling interval of an item. Add the item without options",
                E_NOTIMPL,
            )

    async def _tune(self, server_handle: int, item_handle: int, options: ItemOptions | None) -> None:
        """Set the options of an item that was just added. When the backend refuses them, the item is removed."""
        if options is None or not isinstance(self.backend, Tunable):
            return
        try:
            await self.backend.set_item_options(server_handle, item_handle, options)
        except BaseException:
            await self.backend.remove_item(server_handle, item_handle)
            raise

    async def add_unnoted(
        self, server_handle: int, definition: str, context: str, *, with_context: bool = False
    ) -> int:
        """Add an item to the backend only, and not to the item table. The caller holds the backend's turn."""
        self.check_room(definition, context)
        if context or with_context:
            return await self.backend.add_item2(server_handle, definition, context)
        return await self.backend.add_item(server_handle, definition)

    def check_room(self, definition: str, context: str) -> None:
        """Refuse an item without a name, with too long a reference, or beyond the limits of this worker.

        The limits are for the number of items, and for the bytes of memory of their references.

        Raises:
            MxError: E_INVALIDARG, the name is missing or the reference is too long.
            Refused: ITEM_LIMIT_REACHED.
        """
        check_reference(definition, context)
        if len(self.items) >= self._maximum_items:
            raise Refused(
                "ITEM_LIMIT_REACHED",
                f"this worker holds {len(self.items)} items, the limit is {self._maximum_items}; remove items, open "
                "another session, or raise workers.items",
            )
        held, needed = self.items.reference_bytes, reference_bytes(definition, context)
        if held + needed > self._maximum_reference_bytes:
            raise Refused(
                "ITEM_LIMIT_REACHED",
                f"the references of this worker's items take {held} bytes and this one {needed}, the limit for all is "
                f"{self._maximum_reference_bytes}; remove items, open another session, or raise limits.reference_bytes",
            )

    def check_item(self, call: Call, server_handle: int, item_handle: int, index: int = 0) -> None:
        """Check an item handle that a client has sent. This must be called right before the backend call that uses the
        handle. The caller holds the backend's turn.

        The gateway has checked the caller's rights to an item with this handle. Handles are reused, so another item can
        have the handle by now. `index` is the place of the handle in the input of the command.

        Raises:
            Refused: ITEM_CHANGED, another item has the handle now.
            MxError: E_INVALIDARG, the handle belongs to a hidden item, which only a read uses.
        """
        checked = call.item_serials
        if not checked:
            if (server_handle, item_handle) in self.items.hidden:
                raise MxError(E_INVALIDARG, f"item handle {item_handle} is not in use")
            return
        if index >= len(checked) or checked[index] != self.items.serial_of(server_handle, item_handle):
            raise Refused(
                "ITEM_CHANGED",
                f"handle {item_handle} was that of another item when the rights to it were checked: nothing was done. "
                "Await the answers to the adding and removing of items before you use their handles",
            )

    async def remove_item(self, call: Call, command: c.RemoveItemCommand) -> MxReply:
        """Run RemoveItem, after the writes in flight of the item have ended."""
        server_handle, item_handle = command.server_handle, command.item_handle
        with self._line_up(server_handle, item_handle) as ticket:
            if ticket is not None:
                await ticket.wait(call)
            async with self.turn(call):
                self.check_item(call, server_handle, item_handle)
                await self.drop(server_handle, item_handle)
        return MxReply()

    async def drop(self, server_handle: int, item_handle: int) -> None:
        """Remove an item from the backend and from the item table. The caller holds the backend's turn."""
        await self.backend.remove_item(server_handle, item_handle)
        self.items.remove((server_handle, item_handle))

    async def advise(self, call: Call, command: c.AdviseCommand) -> MxReply:
        """Run Advise on the backend."""
        async with self.turn(call):
            self.check_item(call, command.server_handle, command.item_handle)
            await self.start_advise(command.server_handle, command.item_handle, supervisory=False)
        return MxReply()

    async def advise_supervisory(self, call: Call, command: c.AdviseSupervisoryCommand) -> MxReply:
        """Run AdviseSupervisory on the backend."""
        async with self.turn(call):
            self.check_item(call, command.server_handle, command.item_handle)
            await self.start_advise(command.server_handle, command.item_handle, supervisory=True)
        return MxReply()

    async def start_advise(self, server_handle: int, item_handle: int, *, supervisory: bool) -> None:
        """Advise an item, and store the kind of its advise in the item table. The caller holds the backend's turn."""
        if supervisory:
            await self.backend.advise_supervisory(server_handle, item_handle)
        else:
            await self.backend.advise(server_handle, item_handle)
        item = self.items.get(server_handle, item_handle)
        if item is not None:
            item.advise = ADVISE_KIND_SUPERVISORY if supervisory else ADVISE_KIND_PLAIN

    async def un_advise(self, call: Call, command: c.UnAdviseCommand) -> MxReply:
        """Run UnAdvise, after the writes in flight of the item have ended."""
        server_handle, item_handle = command.server_handle, command.item_handle
        with self._line_up(server_handle, item_handle) as ticket:
            if ticket is not None:
                await ticket.wait(call)
            async with self.turn(call):
                self.check_item(call, server_handle, item_handle)
                await self.stop_advise(server_handle, item_handle)
        return MxReply()

    async def stop_advise(self, server_handle: int, item_handle: int) -> None:
        """Unadvise an item, and store this in the item table. The caller holds the backend's turn."""
        await self.backend.un_advise(server_handle, item_handle)
        item = self.items.get(server_handle, item_handle)
        if item is not None:
            item.advise = ADVISE_KIND_NONE

    async def authenticate_user(self, call: Call, command: c.AuthenticateUserCommand) -> MxReply:
        """Run AuthenticateUser on the backend."""
        async with self.turn(call):
            user_id = await self.backend.authenticate_user(command.server_handle, command.user, command.password)
        return MxReply(user_id=user_id)

    async def archestra_user_to_id(self, call: Call, command: c.ArchestraUserToIdCommand) -> MxReply:
        """Run ArchestrAUserToId on the backend."""
        async with self.turn(call):
            user_id = await self.backend.archestra_user_to_id(command.server_handle, command.user_guid)
        return MxReply(user_id=user_id)

    async def suspend(self, call: Call, command: c.SuspendCommand) -> MxReply:
        """Run Suspend on the backend."""
        return await self._suspension(call, command.server_handle, command.item_handle, suspend=True)

    async def activate(self, call: Call, command: c.ActivateCommand) -> MxReply:
        """Run Activate on the backend."""
        return await self._suspension(call, command.server_handle, command.item_handle, suspend=False)

    async def set_buffered_update_interval(self, call: Call, command: c.SetBufferedUpdateIntervalCommand) -> MxReply:
        """Run SetBufferedUpdateInterval on the backend."""
        interval_ms = checked_interval_ms(command.interval_ms)
        async with self.turn(call):
            await self.backend.set_buffered_update_interval(command.server_handle, interval_ms)
        return MxReply()

    async def write(self, call: Call, command: c.WriteCommand) -> MxReply:
        """Run Write on the backend."""
        h, i, value = *_handles(command), checked_value(command)
        return await self._write(call, command, lambda: self.backend.write(h, i, value, command.user_id))

    async def write2(self, call: Call, command: c.Write2Command) -> MxReply:
        """Run Write2 on the backend."""
        h, i, value, time_ns = *_handles(command), checked_value(command), checked_time(command)
        return await self._write(call, command, lambda: self.backend.write2(h, i, value, time_ns, command.user_id))

    async def write_secured(self, call: Call, command: c.WriteSecuredCommand) -> MxReply:
        """Run WriteSecured on the backend."""
        h, i, value = *_handles(command), checked_value(command)
        users = command.current_user_id, command.verifier_user_id
        return await self._write(call, command, lambda: self.backend.write_secured(h, i, *users, value))

    async def write_secured2(self, call: Call, command: c.WriteSecured2Command) -> MxReply:
        """Run WriteSecured2 on the backend."""
        h, i, value, time_ns = *_handles(command), checked_value(command), checked_time(command)
        users = command.current_user_id, command.verifier_user_id
        return await self._write(call, command, lambda: self.backend.write_secured2(h, i, *users, value, time_ns))

    async def issue(self, item: Item, issue: Issue) -> PendingWrite:
        """Issue a write. The caller holds the backend's turn and the item's turn. From now on the write holds the
        item's turn.
        """
        write = self.writes.begin(item)
        try:
            await issue()
        except BaseException:
            self.writes.refused(write)
            raise
        self.writes.accepted(write)
        return write

    async def issue_in_turn(self, call: Call, item: Item, ticket: Ticket, issue: Issue, index: int = 0) -> PendingWrite:
        """Wait for the turns of the item and the backend, then issue a write. `index` has the same meaning as in
        `check_item`.
        """
        with ticket:
            await ticket.wait(call)
            async with self.turn(call):
                self.check_item(call, *item.key, index)
                ticket.keep()
                return await self.issue(item, issue)

    async def await_completion(self, call: Call, write: PendingWrite) -> Completion:
        """Wait until the write has completed or timed out. For a remembered write, this continues after the deadline of
        the call.

        Raises:
            CallExpired: the deadline passed before, and the write is not remembered.
        """
        try:
            async with asyncio.timeout_at(None if call.is_remembered else call.deadline):
                return await asyncio.shield(write.completion)
        except TimeoutError:
            raise CallExpired from None

    async def _write(self, call: Call, command: _WriteCommand, issue: Issue) -> MxReply:
        issue = call.noting(issue)
        item = self.items.get(*_handles(command))
        if item is None:
            # The handle belongs to no item of this session, so the backend answers with its own error.
            async with self.turn(call):
                self.check_item(call, *_handles(command))
                await issue()
            return MxReply(write=WriteResult(write_id=self.writes.next_id()))
        write = await self.issue_in_turn(call, item, item.turns.line_up(), issue)
        if not command.wait_for_completion:
            return MxReply(write=WriteResult(write_id=write.write_id))
        return completed_reply(write, await self.await_completion(call, write))

    async def _suspension(self, call: Call, server_handle: int, item_handle: int, *, suspend: bool) -> MxReply:
        async with self.turn(call):
            self.check_item(call, server_handle, item_handle)
            act = self.backend.suspend if suspend else self.backend.activate
            status: MxStatus = await act(server_handle, item_handle)
            item = self.items.get(server_handle, item_handle)
            if item is not None and status.success != 0:
                item.suspended = suspend
        return MxReply(statuses=[status])

    def _line_up(self, server_handle: int, item_handle: int) -> AbstractContextManager[Ticket | None]:
        item = self.items.get(server_handle, item_handle)
        return nullcontext() if item is None else item.turns.line_up()


def _handles(command: _WriteCommand) -> tuple[int, int]:
    return command.server_handle, command.item_handle


def _added(item: Item) -> MxReply:
    return MxReply(item_handle=item.item_handle, item_serial=item.serial)


def completed_reply(write: PendingWrite, completion: Completion) -> MxReply:
    """Return the reply to a write, made from the completion of the write."""
    result = WriteResult(write_id=write.write_id, completed=not completion.missing)
    if completion.missing:
        return MxReply(hresult=E_FAIL, message=MISSING, reason="WRITE_COMPLETION_MISSING", write=result)
    return MxReply(statuses=completion.statuses, write=result)
