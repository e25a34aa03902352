"""Converts written values to the type of their node, and sends them in bulk. Each write is answered by a write
completion.

All waiting writes are sent in one request, and several requests can be under way at a time. An item with a write in
flight waits for the answer, so that its writes stay in order. While the server is not connected, a write is refused at
once as a communication error. It is not kept for later.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from asyncua import ua

from mxgw.v1.values_pb2 import MxStatus

from . import status
from .coerce import NodeType, NotWritable, to_variant
from .emitter import Emitter
from .items import Item, WriteJob
from .references import BadReference, chunks, parse, resolve
from .server_connection import ServerConnection
from .types import DataTypes

log = logging.getLogger(__name__)

_REQUESTS_IN_FLIGHT = 8
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


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
        jobs = {item: item.writes.popleft() for item in items if item.writes}
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
        await self._resolve(jobs, results)
        await self._learn_types([item for item in jobs if item not in results], results)
        values: dict[Item, ua.WriteValue] = {}
        for item, job in jobs.items():
            if item not in results:
                try:
                    values[item] = _write_value(item, job)
                except NotWritable as refusal:
                    results[item] = status.local_failure(status.OPERATIONAL, refusal.detail)
        for some in chunks(list(values), self._connection.limits.write):
            parameters = ua.WriteParameters()
            parameters.NodesToWrite = [values[item] for item in some]
            try:
                codes = [code.value for code in await self._connection.session.write(parameters)]
            except (ua.UaError, OSError, TimeoutError) as error:
                # This error concerns only the writes of this request. The writes that earlier requests sent keep their
                # answers.
                results.update(dict.fromkeys(some, status.exception_statuses(error)))
                continue
            for item, code in zip(some, codes, strict=True):
                results[item] = status.result_statuses(code)
                if code == ua.StatusCodes.BadTypeMismatch:
                    item.node_type = None  # The type was changed on the server: it is read again before the next write.
        return results

    async def _resolve(self, jobs: dict[Item, WriteJob], results: dict[Item, Sequence[MxStatus]]) -> None:
        references = {}
        for item in jobs:
            if item.node_id is None:
                try:
                    references[item] = parse(item.definition, item.context, self._connection.namespaces)
                except BadReference:
                    results[item] = status.failure_statuses(ua.StatusCodes.BadNodeIdInvalid)
        if not references:
            return
        for item, found in zip(references, await resolve(self._connection, list(references.values())), strict=True):
            if isinstance(found, int):
                results[item] = status.failure_statuses(found)
            else:
                item.node_id = found

    async def _learn_types(self, items: Sequence[Item], results: dict[Item, Sequence[MxStatus]]) -> None:
        unknown = [item for item in items if item.node_type is None]
        if not unknown:
            return
        found = await self._types.node_types([item.node_id for item in unknown])
        for item, node_type in zip(unknown, found, strict=True):
            if isinstance(node_type, NodeType):
                item.node_type = node_type
            else:
                results[item] = status.failure_statuses(node_type)


def _write_value(item: Item, job: WriteJob) -> ua.WriteValue:
    assert item.node_type is not None
    data = ua.DataValue(to_variant(job.value, item.node_type), StatusCode=None)
    if job.time_ns is not None:
        data.SourceTimestamp = _EPOCH + timedelta(microseconds=job.time_ns // 1000)
    return ua.WriteValue(NodeId=item.node_id, AttributeId=ua.AttributeIds.Value, Value=data)
