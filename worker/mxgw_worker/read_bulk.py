"""ReadBulk. MXAccess has no read. So the result of a reference is the last value of an advised item.

When no such item is advised, a hidden item is advised for the read, and its first real value is the result.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from mxgw.convert import duration_to_seconds
from mxgw.v1.commands_pb2 import BulkItemResult, BulkResult, ItemReference, MxReply, ReadBulkCommand
from mxgw.worker.v1.worker_pb2 import CommandReply
from mxgw_worker.arguments import check_no_options
from mxgw_worker.backends.base import E_FAIL, MxError
from mxgw_worker.calls import Call, failed_item
from mxgw_worker.encoded_events import data_change_of
from mxgw_worker.items import Item, Key
from mxgw_worker.methods import Methods
from mxgw_worker.reads import ReadBatch, Reading

log = logging.getLogger(__name__)

# The part of the command's time that is reserved for making and sending the answer.
_ANSWER_RESERVE = 0.1
_LONGEST_ANSWER_RESERVE_S = 0.5


@dataclass(frozen=True, slots=True)
class _Awaited:
    """A reference that waits for a value, either of a hidden item or of an item of the session."""

    reading: Reading
    item_handle: int
    hidden: Key | None = None
    item: Item | None = None


class ReadBulk:
    """Runs ReadBulk. All references are advised before any value is awaited. Clients never see the hidden items."""

    def __init__(self, methods: Methods, read_timeout_s: float) -> None:
        self._methods = methods
        self._items = methods.items
        self._turn = methods.turn
        self._read_timeout_s = read_timeout_s

    async def read(self, call: Call, command: ReadBulkCommand) -> None:
        """Answer the call with a value or a failure for each reference. Hidden items are removed after the answer."""
        wait_until = self._wait_until(call, command)
        batch = ReadBatch()
        results: list[BulkItemResult | _Awaited] = []
        try:
            async with self._turn(call):
                for reference in command.items:
                    results.append(await self._begin(batch, command.server_handle, reference))
                    await self._turn.breathe(call)
            # On a busy machine, the timer of the read and the timer of the deadline can both be due when the event loop
            # runs. Whichever timer runs first, the answer has the values that have come.
            call.last_words = lambda: _answer(results)
            with suppress(TimeoutError):
                async with asyncio.timeout_at(wait_until):
                    await batch.wait()
            call.answer(_answer(results))
        finally:
            await self._clear([one for one in results if isinstance(one, _Awaited)])

    async def _begin(self, batch: ReadBatch, server_handle: int, reference: ItemReference) -> BulkItemResult | _Awaited:
        """Return the result of a reference from its last value, or start to wait for a value. The caller holds the
        backend's turn.
        """
        try:
            check_no_options(reference)
        except MxError as error:
            return failed_item(error)
        definition, context = reference.item_definition, reference.item_context
        item = self._items.advised(server_handle, definition, context)
        if item is not None:
            if item.last_record is not None and not item.last_is_initialising:
                value = data_change_of(item.last_record)
                return BulkItemResult(
                    item_handle=item.item_handle, item_serial=item.serial, value=value, was_cached=True
                )
            reading = Reading(batch)
            item.readings[reading] = None
            return _Awaited(reading, item.item_handle, item=item)
        methods = self._methods
        try:
            item_handle = await methods.add_unnoted(server_handle, definition, context)
        except Exception as error:
            return failed_item(error)
        key = (server_handle, item_handle)
        if key in self._items.items or key in self._items.hidden:
            # The handle belongs to another item, which must not be removed after the read.
            return failed_item(RuntimeError(f"the backend gave out item handle {item_handle}, which is in use"))
        reading = Reading(batch)
        self._items.hide(key, reading)
        try:
            await methods.backend.advise(server_handle, item_handle)
        except Exception as error:
            reading.abandon()
            await self._remove_hidden(key, reading)
            return failed_item(error)
        return _Awaited(reading, item_handle, hidden=key)

    async def _clear(self, awaited: list[_Awaited]) -> None:
        """Take the backend's turn and remove the hidden items. This is done even if the call has failed."""
        for one in awaited:
            if one.item is not None:
                del one.item.readings[one.reading]
        hidden = [(one.hidden, one.reading) for one in awaited if one.hidden is not None]
        if not hidden:
            return
        after = Call(lambda _reply: None, 0)
        async with self._turn(after):
            for key, reading in hidden:
                if self._items.hidden.get(key) is reading:
                    try:
                        await self._methods.backend.un_advise(*key)
                    except Exception as error:
                        log.warning("the item of a read could not be unadvised: %s", error)
                    await self._remove_hidden(key, reading)
                    await self._turn.breathe(after)

    async def _remove_hidden(self, key: Key, reading: Reading) -> None:
        """Remove a hidden item. If the backend fails to remove it, the item stays hidden."""
        try:
            await self._methods.backend.remove_item(*key)
        except Exception as error:
            log.warning("the item of a read could not be removed: %s", error)
            return
        if self._items.hidden.get(key) is reading:
            del self._items.hidden[key]

    def _wait_until(self, call: Call, command: ReadBulkCommand) -> float:
        """Return the time at which to stop waiting, in the event loop's time. It is early enough to answer within the
        deadline.
        """
        timeout_s = duration_to_seconds(command.timeout) if command.HasField("timeout") else 0.0
        if not 0 < timeout_s <= self._read_timeout_s:
            timeout_s = self._read_timeout_s
        until = asyncio.get_running_loop().time() + timeout_s
        if call.deadline is None:
            return until
        reserve_s = min(call.timeout_ms / 1000 * _ANSWER_RESERVE, _LONGEST_ANSWER_RESERVE_S)
        return min(until, call.deadline - reserve_s)


def _answer(results: Sequence[BulkItemResult | _Awaited]) -> CommandReply:
    bulk = BulkResult(items=[one if isinstance(one, BulkItemResult) else _outcome(one) for one in results])
    return CommandReply(mx=MxReply(bulk=bulk))


def _outcome(awaited: _Awaited) -> BulkItemResult:
    # The result of a hidden item has no handle, because the handle is not valid any more when the caller gets the
    # answer.
    result = BulkItemResult(value=awaited.reading.value)
    if awaited.item is not None:
        result.item_handle, result.item_serial = awaited.item_handle, awaited.item.serial
    if not awaited.reading.arrived:
        result.hresult = E_FAIL
        result.reason = "READ_TIMED_OUT"
        result.message = "no real value came in time; give the read a longer timeout, or raise workers.read_timeout_s"
    return result
