"""The client process of a benchmark: reads a stream for some seconds and prints what came.

It counts events by the sequence at the head of each message and parses nothing else, so that the server is what is
measured. With `latency` it parses everything, and compares each event's worker time with its own clock.

Prints one JSON line when the window begins and one with the result when it ends.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from struct import Struct

import grpc.aio
import uvloop

from mxgw.convert import timestamp_to_ns
from mxgw.v1.event_service_pb2 import StartPosition, StreamEventsRequest, StreamEventsResponse
from mxgw_client import connect

from window import Window

WARM_UP_S = 0.4
STREAM = "/mxgw.v1.EventService/StreamEvents"
OPTIONS = [("grpc.max_receive_message_length", 16 * 1024 * 1024), ("grpc.use_local_subchannel_pool", 1)]
# StreamEventsResponse.events, which begins with a length; EventBatch.events; Event.sequence.
_EVENTS_TAG = 0x12
_SEQUENCE = Struct("<Q")


def first_sequence(message: bytes) -> int:
    """Return the sequence of the first event of a message, 0 when it is no event frame."""
    if message[0] != _EVENTS_TAG:
        return 0
    at = 1
    for _ in range(2):  # the batch's length and the record's tag, then the record's length and the sequence's tag
        while message[at] & 0x80:
            at += 1
        at += 2
    return int(_SEQUENCE.unpack_from(message, at)[0])


async def throughput(read: Callable[[], Awaitable[bytes]], seconds: float, *, numbered: bool) -> dict[str, float]:
    """Read for `seconds` and return figures of them; unnumbered streams are counted in bytes."""
    window = Window.named()
    window.sequence = 0
    until = time.perf_counter() + WARM_UP_S
    while time.perf_counter() < until:
        window.sequence = first_sequence(await read()) or window.sequence
    print(json.dumps({"began": True}), flush=True)
    messages = total_bytes = gaps = 0
    first = last = 0
    began = now = time.perf_counter()
    while now - began < seconds or not messages:
        message = await read()
        now = time.perf_counter()
        sequence = first_sequence(message)
        if not sequence and numbered:
            gaps += StreamEventsResponse.FromString(message).HasField("gap")
            continue
        if sequence:
            first, last = first or sequence, sequence
            window.sequence = sequence
        messages += 1
        total_bytes += len(message)
    return {
        "seconds": now - began,
        "messages": messages,
        "bytes": total_bytes,
        "gaps": gaps,
        # From the first message's head to the last one's: one message of thousands is left out.
        "events": last - first if numbered else 0,
    }


async def latency(read: Callable[[], Awaitable[bytes]], seconds: float) -> dict[str, float]:
    """Return p50 and p99 in microseconds, from the worker's clock to this process."""
    print(json.dumps({"began": True}), flush=True)
    delays: list[int] = []
    until = time.perf_counter() + WARM_UP_S + seconds
    warm = time.perf_counter() + WARM_UP_S
    while (now := time.perf_counter()) < until:
        message = await read()
        arrived_ns = time.time_ns()
        if now >= warm:
            events = StreamEventsResponse.FromString(message).events.events
            delays += [arrived_ns - timestamp_to_ns(event.worker_time) for event in events]
    delays.sort()
    return {
        "events": len(delays),
        "p50_us": delays[len(delays) // 2] / 1000,
        "p99_us": delays[len(delays) * 99 // 100] / 1000,
    }


async def read_gateway(
    target: str, backend: str, items: int, seconds: float, *, measure_latency: bool, api_key: str = ""
) -> None:
    """Open a session of `backend`, subscribe to `items` of a load, and measure its stream."""
    metadata = (("authorization", f"Bearer {api_key}"),) if api_key else ()
    async with connect(target, api_key=api_key or None) as gateway, gateway.open_session(backend=backend) as session:
        if items:
            await session.subscribe(*(f"Load.Item{number:05d}" for number in range(1, items + 1)))
        async with grpc.aio.insecure_channel(target, options=OPTIONS) as channel:
            request = StreamEventsRequest(session_id=session.session_id, start=StartPosition(oldest_retained={}))
            call = channel.unary_stream(STREAM)(request.SerializeToString(), metadata=metadata)
            result = latency(call.read, seconds) if measure_latency else throughput(call.read, seconds, numbered=True)
            print(json.dumps(await result), flush=True)
            call.cancel()


async def read_bytes(target: str, method: str, message_bytes: int, seconds: float) -> None:
    """Measure a stream of `byte_server.py`."""
    async with grpc.aio.insecure_channel(target, options=OPTIONS) as channel:
        call = channel.unary_stream(f"/bench/{method}")(str(message_bytes).encode())
        print(json.dumps(await throughput(call.read, seconds, numbered=method == "relay")), flush=True)
        call.cancel()


if __name__ == "__main__":
    arguments = json.loads(sys.argv[1])
    kind = arguments.pop("kind")
    if key_file := arguments.pop("key_file", ""):
        arguments["api_key"] = Path(key_file).read_text().strip()
    uvloop.run(read_gateway(**arguments) if kind == "gateway" else read_bytes(**arguments))
