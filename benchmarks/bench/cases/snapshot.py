"""The time until a subscriber has the last values of 10,000 items, compared with encoding and parsing them."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import grpc.aio

from mxgw.v1.event_service_pb2 import StartPosition, StreamEventsRequest, StreamEventsResponse

from bench.context import Context
from bench.dialects import STREAM_EVENTS
from bench.gateway import Mxgw
from bench.measuring import Result
from bench.processes import BenchmarkFailed

TITLE = "Snapshot of 10,000 items"
ITEMS = 10_000


def run(context: Context) -> Result:
    """Measure the snapshot and the encoding in turn, on one session."""
    result = Result("snapshot", TITLE, {"items": ITEMS})
    system = Mxgw(roomy=False)
    with context.running([system]):
        runs = asyncio.run(_measure(system, context))
    circumstance = f"{ITEMS} items"
    result.add(runs, circumstance, total_ms="ms")
    result.compare(runs, "total_ms", "snapshot", "encode and parse", circumstance)
    result.notes.append(
        "snapshot: a new stream with SNAPSHOT_THEN_LIVE until SnapshotEnd, read with grpc.aio, unparsed"
    )
    result.notes.append("encode and parse: the same messages parsed and serialised once each by the protobuf library")
    return context.finish(result)


async def _measure(system: Mxgw, context: Context) -> dict[str, list[dict[str, Any]]]:
    snapshots: list[dict[str, Any]] = []
    floors: list[dict[str, Any]] = []
    async with system.connect() as gateway, gateway.open_session(backend="sim") as session:
        outcomes = await session.subscribe_bulk([f"Load.Item{number:05d}" for number in range(1, ITEMS + 1)])
        for outcome in outcomes:
            outcome.raise_if_failed()
        request = StreamEventsRequest(session_id=session.session_id, start=StartPosition(snapshot_then_live={}))
        async with grpc.aio.insecure_channel(system.target) as channel:
            for number in range(context.pairs):
                context.on_step(f"{number + 1} of {context.pairs}")
                began = time.perf_counter()
                call = channel.unary_stream(STREAM_EVENTS)(request.SerializeToString())
                messages: list[bytes] = []
                # SnapshotEnd is field 5 of the message of the stream.
                while not (messages and messages[-1][:1] == b"\x2a"):
                    messages.append(await call.read())
                snapshots.append({"total_ms": (time.perf_counter() - began) * 1000})
                call.cancel()
                began = time.perf_counter()
                parsed = [StreamEventsResponse.FromString(message) for message in messages]
                for message in parsed:
                    message.SerializeToString()
                floors.append({"total_ms": (time.perf_counter() - began) * 1000})
                items = sum(len(message.snapshot.items) for message in parsed)
                if items != ITEMS:
                    raise BenchmarkFailed(f"a snapshot had {items} of {ITEMS} items")
                await _wait_until_gone(session)
    return {"snapshot": snapshots, "encode and parse": floors}


async def _wait_until_gone(session: Any) -> None:
    async with asyncio.timeout(10):
        while (await session.subscribers()).subscribers:  # noqa: ASYNC110 - only asking tells
            await asyncio.sleep(0.02)
