"""Converts written values to the type of their node, and sends them in bulk. Each write is answered by a write
completion.

All waiting writes are sent in one request, and several requests can be under way at a time. An item with a write in
flight waits for the answer, so that its writes stay in order. While the server is not connected, a write is refused at
once as a communication error. It is not kept for later.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta

from asyncua import ua

from mxgw.v1.values_pb2 import MxStatus

from . import status
from .batches import Refused, in_batches
from .coerce import OUT_OF_RANGE, NodeType, NotWritable, to_variant
from .emitter import Emitter
from .items import Item, WriteJob
from .link import Link, session_ended
from .references import is_path, locate
from .server_connection import ServerConnection
from .types import DataTypes

log = logging.getLogger(__name__)

_REQUESTS_IN_FLIGHT = 8
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# The times that OPC UA can encode. Source: OPC 10000-6, 5.2.2.5.
_FIRST_TIME, _LAST_TIME = datetime(1601, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 58, 999_999, tzinfo=UTC)


class Writer:
    """Keeps the writes of each item in order. `run` sends writes until cancelled; `submit` can be called at any
    time.
    """

    def __init__(self, connection: ServerConnection, emitter: Emitter, types: DataTypes) -> None:
        self._connection = connection
        self._emitter = emitter
        self._types = types
        self._ready: dict[Item, None] = {}
        self._wake = asyncio.Event()  # Set when an item has a write that can be sent.
        self._slots = asyncio.Semaphore(_REQUESTS_IN_FLIGHT)

    def submit(self, item: Item, job: WriteJob) -> None:
        """Accept a write; its completion follows."""
        item.writes.append(job)
        if not item.writing:
            self._ready[item] = None
            self._wake.set()

    async def run(self) -> None:
        """Send accepted writes until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                await self._wake.wait()
                await self._slots.acquire()
                self._wake.clear()
                batch, self._ready = list(self._ready), {}
                tasks.create_task(self._send(batch), name="opcua:write")

    async def _send(self, items: Sequence[Item]) -> None:
        # An item can be in two batches, when a write was submitted before this task started.
        jobs = {item: item.writes.popleft() for item in items if item.writes and not item.writing}
        for item in jobs:
            item.writing = True
        try:
            results = await self._write(jobs)
        except (ua.UaError, OSError, TimeoutError) as error:
            results = dict.fromkeys(jobs, status.exception_statuses(error))
        finally:
            self._slots.release()
        for item, statuses in results.items():
            item.writing = False
            self._emitter.write_complete(item, statuses)
            if item.writes and not item.removed:
                self._ready[item] = None
                self._wake.set()

    async def _write(self, jobs: dict[Item, WriteJob]) -> dict[Item, Sequence[MxStatus]]:
        results: dict[Item, Sequence[MxStatus]] = {}
        # All requests go to one connection: node ids that were found on it can name other nodes on the next one.
        link = self._connection.link
        found_before = {item for item in jobs if item.node_on(link) is not None}
        typed_before = {item for item in found_before if item.node_type is not None}
        nodes = await self._resolve(link, jobs, results)
        types = await self._learn_types(link, nodes, results)
        values: dict[Item, ua.WriteValue] = {}
        for item, node_type in types.items():
            try:
                value = _write_value(nodes[item], node_type, jobs[item])
                if not link.limits.takes(value.Value.Value):
                    raise NotWritable(OUT_OF_RANGE)  # noqa: TRY301 - the same as above
                values[item] = value
            except NotWritable as refusal:
                results[item] = status.local_failure(status.OPERATIONAL, refusal.detail)

        async def send(some: Sequence[Item]) -> list[int | Exception]:
            parameters = ua.WriteParameters()
            parameters.NodesToWrite = [values[item] for item in some]
            try:
                return [code.value for code in await link.session.write(parameters)]
            except (OSError, TimeoutError) as error:
                failure: Exception = error
            except ua.UaStatusCodeError as error:
                if not session_ended(error):
                    raise
                failure = error
            # This error concerns only the writes of this request. The writes that earlier requests sent keep their
            # answers.
            return [failure] * len(some)

        writable = list(values)
        answers = await in_batches(link, "write", writable, send, repeatable=False)
        changed: dict[Item, WriteJob] = {}
        for item, answer in zip(writable, answers, strict=True):
            results[item] = _statuses(answer)
            if answer == ua.StatusCodes.BadTypeMismatch:
                item.node_type = None
                if item in typed_before:
                    changed[item] = jobs[item]
            elif isinstance(answer, int) and status.node_is_gone(answer):
                item.forget_node()
                if item in found_before and is_path(item.definition):
                    changed[item] = jobs[item]
        if changed:
            # The server has other nodes under these paths by now, or they have other types. It has refused these
            # writes, so none happens twice.
            try:
                results.update(await self._write(changed))
            except (ua.UaError, OSError, TimeoutError) as error:
                log.info("writes to nodes that have changed: %s", type(error).__name__)
        return results

    async def _resolve(
        self, link: Link, items: Collection[Item], results: dict[Item, Sequence[MxStatus]]
    ) -> dict[Item, ua.NodeId]:
        # The nodes are returned, because another task can forget what an item remembers while this one waits.
        nodes = {item: node_id for item in items if (node_id := item.node_on(link)) is not None}
        unknown = [item for item in items if item not in nodes]
        found_all = await locate(link, [(item.definition, item.context) for item in unknown])
        for item, found in zip(unknown, found_all, strict=True):
            if isinstance(found, int):
                results[item] = status.failure_statuses(found)
            else:
                item.found(found, link)
                nodes[item] = found
        return nodes

    async def _learn_types(
        self, link: Link, nodes: dict[Item, ua.NodeId], results: dict[Item, Sequence[MxStatus]]
    ) -> dict[Item, NodeType]:
        types = {item: item.node_type for item in nodes if item.node_type is not None}
        unknown = [item for item in nodes if item not in types]
        found_all = await self._types.node_types(link, [nodes[item] for item in unknown])
        for item, found in zip(unknown, found_all, strict=True):
            if isinstance(found, NodeType):
                types[item] = found
                if item.node_on(link) == nodes[item]:
                    item.node_type = found
            else:
                results[item] = status.failure_statuses(found)
                if status.node_is_gone(found):
                    item.forget_node()
        return types


def _statuses(answer: int | Exception | Refused) -> Sequence[MxStatus]:
    if isinstance(answer, int):
        return status.result_statuses(answer)
    if isinstance(answer, Exception):
        return status.exception_statuses(answer)
    if answer.sent:
        return status.failure_statuses(answer.code)
    # The reference was checked before, so it is the value that cannot be encoded or is too large.
    return status.local_failure(status.OPERATIONAL, OUT_OF_RANGE)


def _write_value(node_id: ua.NodeId, node_type: NodeType, job: WriteJob) -> ua.WriteValue:
    """Return what is written.

    Raises:
        NotWritable: the value does not fit the node, or OPC UA cannot express it.
    """
    try:
        data = ua.DataValue(to_variant(job.value, node_type), StatusCode=None)
        if job.time_ns is not None:
            data.SourceTimestamp = _EPOCH + timedelta(microseconds=job.time_ns // 1000)
    except (ValueError, OverflowError, ua.UaError) as error:
        raise NotWritable(OUT_OF_RANGE) from error
    # The library writes the first or the last of these times instead of one outside of them.
    if data.SourceTimestamp is not None and not _FIRST_TIME <= data.SourceTimestamp <= _LAST_TIME:
        raise NotWritable(OUT_OF_RANGE)
    return ua.WriteValue(NodeId=node_id, AttributeId=ua.AttributeIds.Value, Value=data)
