"""Calls for many items at once.

Each call returns one result per item, in the order of the input. When one item fails, the others are still processed.
"""

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
from mxgw_client.metadata import ItemOptions, metadata_from_message, options_to_message
from mxgw_client.mxaccess import ItemLike, MxAccess
from mxgw_client.results import (
    BrowseNode,
    Item,
    ItemOutcome,
    MetadataOutcome,
    Reading,
    SubscribeOutcome,
    WriteOutcome,
    node_from_message,
    reading_from_message,
)
from mxgw_client.values import Status, statuses_from_messages

Reference: TypeAlias = str | tuple[str, str]
"""A reference, or a relative reference and the object to which it belongs."""

# A read whose caller sets `wait_s` gets a deadline that is at least this many seconds longer.
READ_MARGIN_S = 5.0


@dataclass(frozen=True, slots=True)
class BulkWrite:
    """One write of `write_bulk`. `time` is the source time of the value: None makes a Write, a time makes a Write2.

    A `time` without a time zone is taken as UTC.
    """

    item: ItemLike
    value: PyValue
    time: datetime | None = None
    user_id: int = 0
    data_type: DataType | None = None


class Subscription:
    """The items that one call of `Session.subscribe` added and advised.

    `subscription["Tank01.Level"]` is the item with that reference. The end of an `async with` block unadvises and
    removes all items.
    """

    def __init__(self, session: BulkCalls, items: Sequence[Item]) -> None:
        self._session = session
        self._items = tuple(items)
        self._is_closed = False

    @property
    def items(self) -> tuple[Item, ...]:
        """The items, in the order in which their references were given."""
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
        """UnAdvise and remove all items; idempotent. Wait for the completions of your writes before you call this."""
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
    """The calls for many items, and the convenient calls `subscribe`, `read`, `write_once` and `browse`."""

    async def subscribe_bulk(
        self,
        references: Sequence[Reference],
        *,
        supervisory: bool = False,
        options: ItemOptions | None = None,
        server_handle: int | None = None,
        timeout_s: float | None = None,
    ) -> list[SubscribeOutcome]:
        """Add and advise every reference. If `supervisory` is True, the items are advised with AdviseSupervisory.

        `options` are for all of the items.
        """
        server = await self._server(server_handle)
        pairs = [_pair(reference) for reference in references]
        wanted = options_to_message(options)
        command = commands_pb2.SubscribeBulkCommand(
            server_handle=server,
            items=[
                commands_pb2.ItemReference(item_definition=name, item_context=context, options=wanted)
                for name, context in pairs
            ],
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
        """Unadvise and remove every item."""
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
        """Write to every item. `writes` is a list of `BulkWrite`s or a mapping from items to values.

        With `wait` the call returns when all writes have completed, otherwise when they were accepted.
        """
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
        """Return the current value of every reference.

        When the session has an advised item with the reference, the value is that of its last data change. Otherwise
        the worker adds and advises the reference for a moment, waits up to `wait_s` seconds for the first value (None:
        the worker's default), and removes it. The events of this moment are not sent to subscribers.
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

    async def item_metadata(
        self, references: Sequence[Reference], *, timeout_s: float | None = None
    ) -> list[MetadataOutcome]:
        """Return what the source says about every reference: units, ranges, types, access. No item is added.

        A backend whose source says nothing about items answers with the reason METADATA_NOT_SUPPORTED for each.
        """
        pairs = [_pair(reference) for reference in references]
        command = commands_pb2.GetItemMetadataCommand(
            items=[commands_pb2.ItemReference(item_definition=name, item_context=context) for name, context in pairs]
        )
        results = await self._bulk(commands_pb2.MxCommand(get_item_metadata=command), len(pairs), timeout_s)
        return [
            MetadataOutcome(
                *_outcome(name, result),
                metadata_from_message(result.metadata) if result.HasField("metadata") else None,
            )
            for (name, _), result in zip(pairs, results, strict=True)
        ]

    # Shorter calls for common tasks

    async def subscribe(
        self, *references: Reference, supervisory: bool = False, options: ItemOptions | None = None
    ) -> Subscription:
        """Add and advise all references, or none of them.

            async with await session.subscribe("Tank01.Level", "Tank02.Level") as tanks:
                ...

        The data changes of the items come in `Session.events`. MXAccess also accepts a reference that does not exist;
        the failure then comes as the status of a data change.

        Raises:
            SubscribeFailed: some references were refused. The items of the other references were removed again.
        """
        outcomes = await self.subscribe_bulk(references, supervisory=supervisory, options=options)
        items = [outcome.item for outcome in outcomes if outcome.item is not None]
        failed = {o.reference: o.message or o.reason or f"HRESULT {o.hresult}" for o in outcomes if o.item is None}
        if failed:
            if items:
                await self.unsubscribe_bulk(items)
            raise SubscribeFailed(failed)
        return Subscription(self, items)

    async def read(self, reference: Reference, *, wait_s: float | None = None) -> Reading:
        """Return the current value of one reference, as `read_bulk` does for many.

        A value with a failure status is returned and raises nothing; check `Reading.ok`.

        Raises:
            MxAccessError: MXAccess failed, or no value came within `wait_s`.
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

        This subscribes to the reference (supervisory) and waits up to `wait_s` seconds for the first value, because
        MXAccess needs it to know the type. It then writes, waits for the completion, and unsubscribes. If the session
        already has an item with this reference and a value, the write goes to that item. To write more than once, call
        `subscribe` and `write` instead.

        Raises:
            MxAccessError: no value came within `wait_s`, or the write was not accepted.
            WriteFailed: the write completed with a failure, or its completion did not come.
        """
        async with await self.subscribe(reference, supervisory=True) as subscription:
            answered_by = (await self.read(reference, wait_s=wait_s)).item_handle
            item = subscription.items[0]
            if answered_by:
                item = replace(item, handle=answered_by, serial=0)
            await self.write(item, value, user_id=user_id, wait=True, data_type=data_type)

    async def browse(
        self,
        parent: str = "",
        *,
        name_contains: str = "",
        include_metadata: bool = False,
        page_size: int = 0,
        timeout_s: float | None = None,
    ) -> AsyncIterator[BrowseNode]:
        """Yield the children of a node of the backend's address space.

        `parent` is the `BrowseNode.path` of the node; empty means the root. `name_contains` selects the children whose
        name contains this text, without regard to case. With `include_metadata`, the children with a reference have
        what `item_metadata` returns, as far as the backend knows any. The children are requested page by page,
        `page_size` at a time (0: the gateway's default).
        """
        request = command_service_pb2.BrowseRequest(
            session_id=self._session_id,
            parent=parent,
            name_contains=name_contains,
            page_size=page_size,
            include_metadata=include_metadata,
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
        """Return the server handle that all items have in common, as the request has a single server handle.

        Raises:
            ValueError: the items have different server handles.
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
