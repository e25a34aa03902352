"""An application that reads a stream, in one of four ways: `python -m bench.application '{...}'`.

    library  mxgw_client, whole batches: the application reads sequence and value of every event
    each     mxgw_client, one event at a time with `async for`
    raw      mxgw_client, whole batches; the application reads the two fields from the protobuf messages
    bare     grpc.aio and the protobuf library without mxgw_client; the application reads the same two fields

The output is one JSON line with the number of events per second and the processor time of this process per event.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Iterable
from typing import Any

import grpc.aio

from mxgw.v1.event_service_pb2 import StreamEventsResponse
from mxgw.v1.events_pb2 import Event
from mxgw_client import DataChange, EventBatch, connect

from bench.counting import WrongStream
from bench.dialects import STREAM_EVENTS, stream_request
from bench.window import Window

WARM_UP_S = 0.3
# How many events are read one by one before the clock is read again.
PAUSE_EVENTS = 1_000


async def library(target: str, session_id: str) -> AsyncIterator[int]:
    """Yield the last sequence of each batch after the application has read its events."""
    due = 1
    async with connect(target) as gateway, gateway.attach_session(session_id) as session:
        async for frame in session.events().batches():
            if not isinstance(frame, EventBatch):
                continue
            for event in frame:
                if event.sequence != due:
                    raise WrongStream(f"event {event.sequence} came where {due} was due")
                if isinstance(event, DataChange):
                    _ = event.value
                due += 1
            yield due - 1


async def each(target: str, session_id: str) -> AsyncIterator[int]:
    due, pause = 1, PAUSE_EVENTS
    async with connect(target) as gateway, gateway.attach_session(session_id) as session:
        async for event in session.events():
            if not isinstance(event, DataChange):
                continue
            if event.sequence != due:
                raise WrongStream(f"event {event.sequence} came where {due} was due")
            _ = event.value
            due += 1
            if due == pause:
                pause += PAUSE_EVENTS
                yield due - 1


async def raw(target: str, session_id: str) -> AsyncIterator[int]:
    due = 1
    async with connect(target) as gateway, gateway.attach_session(session_id) as session:
        async for frame in session.events().batches():
            if isinstance(frame, EventBatch):
                due = touched(frame.raw, due)
                yield due - 1


async def bare(target: str, session_id: str) -> AsyncIterator[int]:
    due = 1
    async with grpc.aio.insecure_channel(target) as channel:
        call = channel.unary_stream(STREAM_EVENTS)(stream_request(session_id))
        while (data := await call.read()) is not grpc.aio.EOF:
            due = touched(StreamEventsResponse.FromString(data).events.events, due)
            yield due - 1


def touched(events: Iterable[Event], due: int) -> int:
    """Read two fields of every event; return the sequence that must come next."""
    for event in events:
        if event.sequence != due:
            raise WrongStream(f"event {event.sequence} came where {due} was due")
        _ = event.data_change.value.double
        due += 1
    return due


WAYS = {"library": library, "each": each, "raw": raw, "bare": bare}


async def run(way: str, target: str, session_id: str, seconds: float) -> dict[str, Any]:
    """Read for so many seconds after a warm-up, and return the figures."""
    window = Window.named()
    window.open()
    began = time.perf_counter()
    first = cpu = start = 0.0
    async for sequence in WAYS[way](target, session_id):
        window.sequence = sequence
        now = time.perf_counter()
        if not first:
            if now - began >= WARM_UP_S:
                first, cpu, start = sequence, time.process_time(), now
        elif now - start >= seconds:
            break
    events = window.sequence - first
    used = time.process_time() - cpu
    return {
        "events_per_s": events / (now - start),
        "events_per_cpu_s": events / used,
        "us_per_event": used / events * 1e6,
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(run(**json.loads(sys.argv[1])))), flush=True)
