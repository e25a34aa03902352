"""Answers that the server breaks off with an abort chunk (OPC 10000-6, 6.7.3): the request fails at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any
from unittest.mock import patch

import pytest
from asyncua import ua
from asyncua.common.connection import MessageChunk
from asyncua.ua.ua_binary import nodeid_from_binary, struct_to_binary

from mxgw.v1.events_pb2 import SOURCE_HEALTH_GOOD
from mxgw_worker.backends.base import MxError
from mxgw_worker.backends.opcua.options import OpcUaOptions

from .harness import running_backend
from .plant import Plant

_O = ua.ObjectIds


@contextmanager
def aborted(kind: int, code: int, count: int, *, larger_than: int = 0) -> Iterator[SimpleQueue[int]]:
    """Break off the next `count` answers of a kind that have more bytes; the queue gets the size of each."""
    make = MessageChunk.message_to_chunks
    sizes: SimpleQueue[int] = SimpleQueue()
    left = count

    def chunks(policy: Any, body: bytes, most: int, **more: Any) -> Any:
        nonlocal left
        is_wanted = len(body) > larger_than and nodeid_from_binary(ua.utils.Buffer(body)) == ua.NodeId(kind)
        if not is_wanted or not left:
            return make(policy, body, most, **more)
        left -= 1
        sizes.put(len(body))
        (chunk,) = make(policy, struct_to_binary(ua.ErrorMessage(ua.StatusCode(code), "too large")), most, **more)
        chunk.MessageHeader.ChunkType = ua.ChunkType.Abort
        return [chunk]

    with patch.object(MessageChunk, "message_to_chunks", chunks):
        yield sizes


@pytest.mark.parametrize("code", ["BadResponseTooLarge", "BadTcpMessageTooLarge"])
@pytest.mark.asyncio
async def test_a_request_whose_answer_is_aborted_fails_at_once_and_alone(plant: Plant, code: str) -> None:
    kind, number = _O.BrowseResponse_Encoding_DefaultBinary, getattr(ua.StatusCodes, code)
    async with running_backend(plant.url) as (backend, sink):
        with aborted(kind, number, 1), pytest.raises(MxError, match="BadResponseTooLarge"):
            await backend.browse("/Objects/2:Odd")

        assert len(await backend.browse("/Objects/2:Odd")) > 8
        assert sink.healths() == [SOURCE_HEALTH_GOOD]


@pytest.mark.asyncio
async def test_aborted_notifications_are_fetched_and_publishing_goes_on(plant: Plant) -> None:
    aborts = OpcUaOptions.parse({"url": plant.url}).publish_requests + 1
    written = [[float(number)] * 100 for number in range(aborts + 1)]  # larger than any message without values
    async with running_backend(plant.url, {"publishing_interval_ms": 10}) as (backend, sink):
        handle = await backend.register("aborts")
        item = await backend.add_item(handle, "ns=2;s=A")
        await backend.advise(handle, item)
        await sink.first(item)
        kind = _O.PublishResponse_Encoding_DefaultBinary
        # All publish requests that wait at the server are broken off, and one that was sent after them.
        for value in written[:-1]:
            with aborted(kind, ua.StatusCodes.BadResponseTooLarge, 1, larger_than=800) as sizes:
                plant.set_value("ns=2;s=A", ua.Variant(value))
                await asyncio.to_thread(sizes.get, timeout=60)
        plant.set_value("ns=2;s=A", ua.Variant(written[-1]))
        await sink.until(lambda: len(sink.changes(item)) > len(written))

        assert [change.value for change in sink.changes(item)[1:]] == written
        assert sink.gaps() == []
        assert sink.healths() == [SOURCE_HEALTH_GOOD]
