"""SubscribeBulk, UnsubscribeBulk and WriteBulk. Each returns one result per item, in input order. A failed item makes
no other item fail.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from dataclasses import dataclass

from mxgw.v1.commands_pb2 import (
    BulkItemResult,
    BulkResult,
    BulkWrite,
    MxReply,
    SubscribeBulkCommand,
    UnsubscribeBulkCommand,
    WriteBulkCommand,
    WriteResult,
)
from mxgw.v1.session_service_pb2 import ADVISE_KIND_NONE
from mxgw_worker.arguments import checked_options, checked_time, checked_value
from mxgw_worker.backends.base import E_FAIL
from mxgw_worker.calls import Call, CallExpired, Issue, Refused, failed_item
from mxgw_worker.items import Item
from mxgw_worker.methods import MISSING, Methods
from mxgw_worker.turns import Ticket
from mxgw_worker.writes import Completion, PendingWrite

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Deferred:
    """An entry that waits for the item's turn (turns.py). The ticket is its place in the queue of the item."""

    index: int
    item: Item
    ticket: Ticket


class Bulk:
    """Runs bulk calls as series of single methods. The backend's turn is taken once for all entries. Only the entries
    of busy items, whose turns other calls have, run later.
    """

    def __init__(self, methods: Methods) -> None:
        self._methods = methods
        self._turn = methods.turn

    async def subscribe(self, call: Call, command: SubscribeBulkCommand) -> MxReply:
        """Call AddItem and Advise for every reference. An item that cannot be advised is removed again."""
        methods = self._methods
        server_handle = command.server_handle
        results = []
        async with self._turn(call):
            for reference in command.items:
                item: Item | None = None
                try:
                    options = checked_options(reference)
                    item = await methods.add(
                        server_handle, reference.item_definition, reference.item_context, options=options
                    )
                    await methods.start_advise(server_handle, item.item_handle, supervisory=command.supervisory)
                    results.append(BulkItemResult(item_handle=item.item_handle, item_serial=item.serial))
                except Exception as error:
                    if item is not None:
                        await self._discard(server_handle, item.item_handle)
                    results.append(failed_item(error))
                await self._turn.breathe(call)
        return _reply(results)

    async def unsubscribe(self, call: Call, command: UnsubscribeBulkCommand) -> MxReply:
        """Call UnAdvise and RemoveItem for every handle. Items with a write in flight come last."""
        server_handle = command.server_handle
        deferred: list[_Deferred] = []
        results = []
        try:
            async with self._turn(call):
                for index, item_handle in enumerate(command.item_handles):
                    item = self._methods.items.get(server_handle, item_handle)
                    try:
                        ticket = None if item is None else item.turns.line_up()
                        if item is not None and ticket is not None and not ticket.has_turn:
                            deferred.append(_Deferred(index, item, ticket))
                            results.append(BulkItemResult())
                            continue
                        with ticket or nullcontext():
                            results.append(await self._unsubscribe(call, server_handle, item_handle, index))
                    except Exception as error:
                        results.append(failed_item(error, item_handle))
                    await self._turn.breathe(call)

            async def later(one: _Deferred) -> BulkItemResult:
                with one.ticket:
                    await one.ticket.wait(call)
                    async with self._turn(call):
                        return await self._unsubscribe(call, server_handle, one.item.item_handle, one.index)

            await _finish(results, deferred, later)
        finally:
            for one in deferred:
                one.ticket.leave()
        return _reply(results)

    async def write(self, call: Call, command: WriteBulkCommand) -> MxReply:
        """Write every entry. All writes are issued before any completion is awaited. Only a second write to the same
        item waits for the first write to complete.
        """
        methods = self._methods
        issued: dict[int, PendingWrite] = {}
        deferred: list[_Deferred] = []
        results = []
        try:
            async with self._turn(call):
                for index, entry in enumerate(command.writes):
                    item = methods.items.get(command.server_handle, entry.item_handle)
                    try:
                        issue = call.noting(self._issue_of(command.server_handle, entry))
                        methods.check_item(call, command.server_handle, entry.item_handle, index)
                        if item is None:
                            await issue()
                            results.append(_written(entry.item_handle, methods.writes.next_id()))
                        else:
                            ticket = item.turns.line_up()
                            if ticket.has_turn:
                                ticket.keep()
                                issued[index] = await methods.issue(item, issue)
                                results.append(_written(entry.item_handle, issued[index].write_id))
                            else:
                                deferred.append(_Deferred(index, item, ticket))
                                results.append(BulkItemResult())
                    except Exception as error:
                        results.append(failed_item(error, entry.item_handle))
                    await self._turn.breathe(call)

            async def later(one: _Deferred) -> BulkItemResult:
                issue = call.noting(self._issue_of(command.server_handle, command.writes[one.index]))
                write = await methods.issue_in_turn(call, one.item, one.ticket, issue, one.index)
                issued[one.index] = write
                return _written(one.item.item_handle, write.write_id)

            await _finish(results, deferred, later)
        except CallExpired:
            if not (call.is_remembered and call.has_issued):
                raise
            _fill_unissued(results, command)
        finally:
            for one in deferred:
                one.ticket.leave()
        if command.wait_for_completion:
            for index, write in issued.items():
                results[index] = _completed(write, await methods.await_completion(call, write))
        return _reply(results)

    async def _unsubscribe(self, call: Call, server_handle: int, item_handle: int, index: int) -> BulkItemResult:
        """Call UnAdvise if the item is advised, and then RemoveItem. The caller holds the turns of the backend and of
        the item.
        """
        methods = self._methods
        item = methods.items.get(server_handle, item_handle)
        try:
            methods.check_item(call, server_handle, item_handle, index)
            if item is not None and item.advise != ADVISE_KIND_NONE:
                await methods.stop_advise(server_handle, item_handle)
            await methods.drop(server_handle, item_handle)
        except Exception as error:
            return failed_item(error, item_handle)
        return BulkItemResult(item_handle=item_handle)

    async def _discard(self, server_handle: int, item_handle: int) -> None:
        try:
            await self._methods.drop(server_handle, item_handle)
        except Exception as error:
            log.warning("an item that could not be advised could not be removed either: %s", error)

    def _issue_of(self, server_handle: int, entry: BulkWrite) -> Issue:
        backend = self._methods.backend
        value = checked_value(entry)
        time_ns = checked_time(entry)
        if time_ns is None:
            return lambda: backend.write(server_handle, entry.item_handle, value, entry.user_id)
        return lambda: backend.write2(server_handle, entry.item_handle, value, time_ns, entry.user_id)


async def _finish(
    results: list[BulkItemResult],
    deferred: list[_Deferred],
    later: Callable[[_Deferred], Awaitable[BulkItemResult]],
) -> None:
    """Run the deferred entries. Each entry runs as soon as it has its item's turn.

    Raises:
        CallExpired: the deadline passed before all entries were done.
    """
    if not deferred:
        return

    async def run(one: _Deferred) -> None:
        try:
            results[one.index] = await later(one)
        except CallExpired:
            expired.append(one)
        except Exception as error:
            results[one.index] = failed_item(error, one.item.item_handle)

    expired: list[_Deferred] = []
    async with asyncio.TaskGroup() as tasks:
        for one in deferred:
            tasks.create_task(run(one), name=f"bulk:{one.index}")
    if expired:
        raise CallExpired


def _fill_unissued(results: list[BulkItemResult], command: WriteBulkCommand) -> None:
    """Give a result to every entry that was not issued, because a repeat of the call gets the results of all
    entries.
    """
    nothing = BulkItemResult()
    late = Refused("WRITE_NOT_ISSUED", "the deadline of the call passed before this write was issued: write it again")
    results.extend(nothing for _ in command.writes[len(results) :])
    for index, entry in enumerate(command.writes):
        if results[index] == nothing:
            results[index] = failed_item(late, entry.item_handle)


def _written(item_handle: int, write_id: int) -> BulkItemResult:
    return BulkItemResult(item_handle=item_handle, write=WriteResult(write_id=write_id))


def _completed(write: PendingWrite, completion: Completion) -> BulkItemResult:
    result = _written(write.item.item_handle, write.write_id)
    if completion.missing:
        result.hresult = E_FAIL
        result.message = MISSING
        result.reason = "WRITE_COMPLETION_MISSING"
    else:
        result.write.completed = True
        result.statuses.extend(completion.statuses)
    return result


def _reply(results: list[BulkItemResult]) -> MxReply:
    return MxReply(bulk=BulkResult(items=results))
