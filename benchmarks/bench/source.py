"""The producer for every system except mxgw: `python -m bench.source '{...}'`, started by `systems.System.turn`.

Without a rate it sends events that were made beforehand or, with `encode`, builds each event with the protobuf library,
which a publisher of the same events must do. With a rate it sends single events, each with the time at which it was
sent.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mxgw.convert import ok_status
from mxgw.v1.events_pb2 import EVENT_KIND_DATA_CHANGE, EventBatch
from mxgw.v1.values_pb2 import QUALITY_GOOD
from mxgw_worker.ipc.framing import frame

from bench.dialects import SUBJECT, connected, mqtt_connected, mqtt_publish_head, nats_connected
from bench.events import BLOCK_EVENTS, RAW_SOURCE_TIME, RECORD_BYTES, Blocks, record_of
from bench.pacing import paced
from bench.window import Window

BURST_BLOCKS = 16
_SIZE = str(RECORD_BYTES).encode()
_NS = 1_000_000_000
# From this number on, nanoseconds are encoded in five bytes, like those of most times.
_WIDE_NANOS = 1 << 28


@dataclass(frozen=True, slots=True)
class Publishing:
    """How events are sent to one system: the bytes that its protocol puts around each event and around each block."""

    connect: Callable[[str], socket.socket]
    before: bytes = b""
    after: bytes = b""
    wrap: Callable[[bytes], bytes] = bytes


PUBLISHING: dict[str, Publishing] = {
    "raw": Publishing(connected),
    "relay": Publishing(connected, wrap=frame),
    "nats": Publishing(nats_connected, b"PUB " + SUBJECT + b" " + _SIZE + b"\r\n", b"\r\n"),
    "redis_pubsub": Publishing(
        connected, b"*3\r\n$7\r\nPUBLISH\r\n$4\r\n" + SUBJECT + b"\r\n$" + _SIZE + b"\r\n", b"\r\n"
    ),
    "redis_stream": Publishing(
        connected,
        b"*8\r\n$4\r\nXADD\r\n$4\r\n"
        + SUBJECT
        + b"\r\n$6\r\nMAXLEN\r\n$1\r\n~\r\n$6\r\n900000\r\n$1\r\n*\r\n$1\r\ne\r\n$"
        + _SIZE
        + b"\r\n",
        b"\r\n",
    ),
    "mqtt0": Publishing(lambda target: mqtt_connected(target, "source"), mqtt_publish_head(0)),
    "mqtt1": Publishing(lambda target: mqtt_connected(target, "source"), mqtt_publish_head(1)),
}


def drain(connection: socket.socket) -> None:
    """Read and discard the answers of the server, so that it never waits for this process."""
    try:
        while connection.recv(1 << 20, socket.MSG_DONTWAIT):
            pass
    except BlockingIOError:
        pass


def encoded(first: int, last: int, before: bytes, after: bytes) -> bytes:
    """Return events that were built one by one with the protobuf library."""
    parts: list[bytes] = []
    for sequence in range(first, last + 1):
        batch = EventBatch()
        event = batch.events.add()
        now = time.time_ns()
        nanos = now % _NS
        if nanos < _WIDE_NANOS:
            nanos += _WIDE_NANOS
        event.sequence = sequence
        event.item_handle = event.item_serial = 1
        event.kind = EVENT_KIND_DATA_CHANGE
        event.server_handle = 1
        event.worker_time.seconds = now // _NS
        event.worker_time.nanos = nanos
        change = event.data_change
        change.value.double = sequence * 0.5
        change.quality = QUALITY_GOOD
        change.raw_quality = 192
        change.source_time.seconds = now // _NS
        change.source_time.nanos = nanos
        change.raw_source_time = RAW_SOURCE_TIME
        change.statuses.append(_OK)
        parts += (before, batch.SerializeToString(), after)
    return b"".join(parts)


_OK = ok_status()


def run(arguments: dict[str, Any]) -> None:
    """Send events until this process is killed."""
    publishing = PUBLISHING[arguments["protocol"]]
    window = Window.named()
    connection = publishing.connect(arguments["target"])
    print("ready", flush=True)
    window.wait_open()
    if rate := arguments.get("rate", 0):
        sequence = 0
        for due in paced(rate):
            for _ in range(due):
                sequence += 1
                record = record_of(sequence, time.monotonic_ns())
                connection.sendall(publishing.wrap(publishing.before + record + publishing.after))
            drain(connection)
    blocks, number = Blocks(publishing.before, publishing.after), 0
    encode = bool(arguments.get("encode"))
    while True:
        burst: list[bytes] = []
        for _ in range(1 if encode else BURST_BLOCKS):
            if encode:
                first, last = max(1, number * BLOCK_EVENTS), (number + 1) * BLOCK_EVENTS - 1
                data = encoded(first, last, publishing.before, publishing.after)
            else:
                _, last, data = blocks.block(number)
            burst.append(publishing.wrap(data))
            number += 1
        connection.sendall(b"".join(burst))
        drain(connection)
        while not window.has_room(last):
            time.sleep(0.0005)
            drain(connection)


if __name__ == "__main__":
    run(json.loads(sys.argv[1]))
