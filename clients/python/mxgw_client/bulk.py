"""Many items in one call: one result per item, in the order of the input; one item's failure fails no other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from types import TracebackType
from typing import Self, TypeAlias

from mxgw.convert import PyValue, duration_from_seconds, timestamp_from_datetime, to_value
from mxgw.v1 import command_service_pb2, commands_pb2
from mxgw_client._calls import Pages
from mxgw_client.enums import DataType
from mxgw_client.errors import ProtocolViolation, SubscribeFailed
from mxgw_client.mxaccess import ItemLike, MxAccess
from mxgw_client.results import (
    BrowseNode,
    Item,
    ItemOutcome,
    Reading,
    SubscribeOutcome,
    WriteOutcome,
    node_from_message,
    reading_from_message,
)
from mxgw_client.values import Status, statuses_from_messages

Reference: TypeAlias = str | tuple[str, str]
"""A reference, or a relative reference and the object to which it belongs."""

# How much longer than its wait for a first value a read may take.
READ_MARGIN_S = 5.0


@dataclass(frozen=True, slots=True)
class BulkWrite:
    """One write of write_bulk. With `time` it is a Write2: the source time of the value; a naive `time` is UTC."""

    item: ItemLike
    value: PyValue
    time: datetime | None = None
    user_id: int = 0
    data_type: DataType | None = None


class Subscription:
    """Items that were added and advised together, by `Session.subscribe`.

    `subscription["Tank01.Level"]` is the item with that reference. Leaving `async with` unadvises and removes them all.
    """

    def __init__(self, session: BulkCalls, items: Sequence[Item]) -> None:
        self._session = session
        self._items = tuple(items)
        self._is_closed = False

    @property
    def items(self) -> tuple[Item, ...]:
        """The items, in the order of the references."""
        return self._items

    def __getitem__(self, reference: str) -> Item:
        for item in self._items:
            if item.reference == reference:
                return item
        raise KeyError(reference)

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    async def close(self) -> None:
        """UnAdvise and RemoveItem for all; idempotent. Wait for the completions of writes first."""
        if not self._is_closed:
            self._is_closed = True
            await self._session.unsubscribe_bulk(self._items)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<Subscription to {len(self)} items>"


class BulkCalls(MxAccess):
    """The bulk calls, and the shorter calls made of them: `subscribe`, `read`, `write_once` and `browse`."""

    async def subscribe_bulk(
        self,
        references: Sequence[Reference],
        *,
        supervisory: bool = False,
        server_handle: int | None = None,
        timeout_s: float | None = None,
    ) -> list[SubscribeOutcome]:
        """AddItem and Advise (or AdviseSupervisory) for every reference."""
        server = await self._server(server_handle)
        pairs = [_pair(reference) for reference in references]
        command = commands_pb2.SubscribeBulkCommand(
            server_handle=server,
            items=[commands_pb2.ItemReference(item_definition=name, item_context=context) for name, context in pairs],
            supervisory=supervisory,
        )
        results = await self._bulk(commands_pb2.MxCommand(subscribe_bulk=command), len(pairs), timeout_s)
        outcomes = []
        for (name, context), result in zip(pairs, results, strict=True):
            item = None
            if _is_accepted(result):
                item = Item(result.item_handle, name, server, context, result.item_serial)
                self._references.add(item.serial, server, item.handle, name)
            outcomes.append(SubscribeOutcome(*_outcome(name, result), item))
        return outcomes

    async def unsubscribe_bulk(
        self, items: Sequence[ItemLike], *, server_handle: int | None = None, timeout_s: float | None = None
    ) -> list[ItemOutcome]:
        """UnAdvise and RemoveItem for every item."""
        server = await self._server_of(items, server_handle)
        handles = [item.handle if isinstance(item, Item) else item for item in items]
        names = [_name(item) for item in items]
        command = commands_pb2.UnsubscribeBulkCommand(server_handle=server, item_handles=handles)
        serials = [self._serial_of(item, server) for item in items]
        results = await self._bulk(commands_pb2.MxCommand(unsubscribe_bulk=command), len(handles), timeout_s)
        for serial, handle, result in zip(serials, handles, results, strict=True):
            if _is_accepted(result):
                self._references.remove(serial, server, handle)
        return [ItemOutcome(*_outcome(name, result)) for name, result in zip(names, results, strict=True)]

    async def write_bulk(
        self,
        writes: Sequence[BulkWrite] | Mapping[Item, PyValue],
        *,
        wait: bool = False,
        server_handle: int | None = None,
        timeout_s: float | None = None,
    ) -> list[WriteOutcome]:
        """Write every item; a mapping is {item: value}. With `wait` it returns once all have completed."""
        entries = [BulkWrite(*pair) for pair in writes.items()] if isinstance(writes, Mapping) else list(writes)
        items = [entry.item for entry in entries]
        server = await self._server_of(items, server_handle)
        command = commands_pb2.WriteBulkCommand(
            server_handle=server, writes=[_write(entry) for entry in entries], wait_for_completion=wait
        )
        results = await self._bulk(commands_pb2.MxCommand(write_bulk=command), len(entries), timeout_s)
        return [
            WriteOutcome(*_outcome(_name(item), result), result.write.write_id, result.write.completed)
            for item, result in zip(items, results, strict=True)
        ]

    async def read_bulk(
        self,
        references: Sequence[Reference],
        *,
        wait_s: float | None = None,
        server_handle: int | None = None,
        timeout_s: float | None = None,
    ) -> list[Reading]:
        """Return the current values.

        For an item that is advised this is its last data change. Any other reference is added and advised for a moment,
        without events on the stream; its first value may take up to `wait_s` seconds (None: the worker's default).
        """
        server = await self._server(server_handle)
        pairs = [_pair(reference) for reference in references]
        command = commands_pb2.ReadBulkCommand(
            server_handle=server,
            items=[commands_pb2.ItemReference(item_definition=name, item_context=context) for name, context in pairs],
            timeout=None if wait_s is None else duration_from_seconds(wait_s),
        )
        if timeout_s is None and wait_s is not None:
            timeout_s = max(self._calls.options.timeout_s, wait_s + READ_MARGIN_S)
        results = await self._bulk(commands_pb2.MxCommand(read_bulk=command), len(pairs), timeout_s)
        return [reading_from_message(name, result) for (name, _), result in zip(pairs, results, strict=True)]

    # Conveniences

    async def subscribe(self, *references: Reference, supervisory: bool = False) -> Subscription:
        """Add and advise all references, or none of them.

            async with await session.subscribe("Tank01.Level", "Tank02.Level") as tanks:
                ...

        The events have their `reference`. MXAccess accepts a wrong name too; the failure comes later, as the status of
        a data change.

        Raises:
            SubscribeFailed: some references were refused; the accepted ones were removed again.
        """
        outcomes = await self.subscribe_bulk(references, supervisory=supervisory)
        items = [outcome.item for outcome in outcomes if outcome.item is not None]
        failed = {o.reference: o.message or o.reason or f"HRESULT {o.hresult}" for o in outcomes if o.item is None}
        if failed:
            if items:
                await self.unsubscribe_bulk(items)
            raise SubscribeFailed(failed)
        return Subscription(self, items)

    async def read(self, reference: Reference, *, wait_s: float | None = None) -> Reading:
        """Read one item, as `read_bulk` does. A value with a failure status is returned; see `Reading.ok`.

        Raises:
            MxAccessError: MXAccess failed, or no value came in time.
        """
        reading = (await self.read_bulk([reference], wait_s=wait_s))[0]
        if reading.hresult != 0 or reading.reason:
            reading.raise_if_failed()
        return reading

    async def write_once(
        self,
        reference: Reference,
        value: PyValue,
        *,
        user_id: int = 0,
        data_type: DataType | None = None,
        wait_s: float | None = None,
    ) -> None:
        """Write one value to a reference, and return when the write has completed.

        It subscribes (supervisory), waits up to `wait_s` seconds for the first value, from which MXAccess knows the
        type, writes, waits for the completion, and unsubscribes. If the session already has an item of this reference
        with a value, that item is written. To write more than once, subscribe and use `write`.

        Raises:
            MxAccessError: no value came in time, or the write was not accepted.
            WriteFailed: the write completed with a failure.
        """
        async with await self.subscribe(reference, supervisory=True) as subscription:
            answered_by = (await self.read(reference, wait_s=wait_s)).item_handle
            item = subscription.items[0]
            if answered_by:
                item = replace(item, handle=answered_by, serial=0)
            await self.write(item, value, user_id=user_id, wait=True, data_type=data_type)

    async def browse(
        self, parent: str = "", *, name_contains: str = "", page_size: int = 0, timeout_s: float | None = None
    ) -> AsyncIterator[BrowseNode]:
        """Yield the children of `parent` (a `BrowseNode.path`; empty for the root), fetched page by page."""
        request = command_service_pb2.BrowseRequest(
            session_id=self._session_id, parent=parent, name_contains=name_contains, page_size=page_size
        )
        pages = Pages(request, lambda: self._calls.unary(self._calls.commands.Browse, request, "browse", timeout_s))
        async for page in pages:
            for node in page.nodes:
                yield node_from_message(node)

    async def _bulk(
        self, command: commands_pb2.MxCommand, inputs: int, timeout_s: float | None
    ) -> Sequence[commands_pb2.BulkItemResult]:
        reply = await self.invoke(command, timeout_s=timeout_s)
        if len(reply.bulk.items) != inputs:
            raise ProtocolViolation(f"{inputs} inputs, but {len(reply.bulk.items)} results")
        return reply.bulk.items

    async def _server_of(self, items: Sequence[ItemLike], server_handle: int | None) -> int:
        """Return the one server handle of all items; a bulk call has room for one only.

        Raises:
            ValueError: the items belong to several registrations.
        """
        servers = {item.server_handle for item in items if isinstance(item, Item)}
        if server_handle is not None:
            servers.add(server_handle)
        if len(servers) > 1:
            raise ValueError(f"the items belong to {len(servers)} registrations; make one bulk call for each")
        return servers.pop() if servers else await self._server()


def _pair(reference: Reference) -> tuple[str, str]:
    return (reference, "") if isinstance(reference, str) else reference


def _name(item: ItemLike) -> str:
    return item.reference if isinstance(item, Item) else ""


def _is_accepted(result: commands_pb2.BulkItemResult) -> bool:
    return result.hresult == 0 and not result.reason


def _outcome(reference: str, result: commands_pb2.BulkItemResult) -> tuple[str, int, int, str, str, tuple[Status, ...]]:
    return (
        reference,
        result.item_handle,
        result.hresult,
        result.message,
        result.reason,
        statuses_from_messages(result.statuses),
    )


def _write(entry: BulkWrite) -> commands_pb2.BulkWrite:
    return commands_pb2.BulkWrite(
        item_handle=entry.item.handle if isinstance(entry.item, Item) else entry.item,
        value=to_value(entry.value, entry.data_type),
        time=None if entry.time is None else timestamp_from_datetime(entry.time),
        user_id=entry.user_id,
    )
