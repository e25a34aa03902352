"""The subscribers of one run, all in one process: `python -m bench.reader '{...}'`, started by `systems.System.turn`.

They connect, open the window for the producer, and then count bytes in one loop over all sockets. In a run with a rate,
every received piece is only stored with its time, and checked after the run, so that work for one subscriber does not
delay the times of another. Even then, bytes to which the server needs an answer are processed at once. The output is
one JSON line.
"""

from __future__ import annotations

import bisect
import gc
import json
import selectors
import sys
import time
from itertools import accumulate
from typing import Any

from mxgw.v1.event_service_pb2 import StreamEventsResponse
from mxgw.v1.events_pb2 import Event
from mxgw_core.testing.checker import StreamChecker, observed

from bench.counting import WrongStream
from bench.dialects import DIALECTS, RECEIVE_BUFFER_BYTES, Feed
from bench.events import MARKER, MARKER_AT, RECORD_BYTES, SEQUENCE, SEQUENCE_AT, STAMP, STAMP_AT
from bench.http2 import WINDOW_BYTES, GrpcFeed, Kept
from bench.processes import cpu_s
from bench.window import Window

SILENCE_S = 20.0
# More bytes than one subscriber receives in a run with a rate, and fewer than its window of HTTP/2, which is not
# enlarged during such a run.
KEPT_BYTES = WINDOW_BYTES // 2
Pieces = list[tuple[int, bytes]]


class Readers:
    """The sockets of one run, and what was received from them."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        self._window = Window.named()
        self._keep = bool(arguments.get("stamps"))
        self._selector = selectors.DefaultSelector()
        self._buffer = bytearray(RECEIVE_BUFFER_BYTES)
        self._pids: list[list[int]] = arguments["pids"]
        self.feeds: list[Feed] = []
        self.pieces: list[Pieces] = []
        connect = DIALECTS[arguments["dialect"]]
        began = time.perf_counter()
        for index in range(arguments["subscribers"]):
            connection, feed = connect(arguments["target"], {**arguments, "index": index})
            connection.setblocking(False)
            pieces: Pieces = []
            self._selector.register(connection, selectors.EVENT_READ, (connection, feed, pieces))
            self.feeds.append(feed)
            self.pieces.append(pieces)
        # The subscribers connect one after another. Each waits until StreamOpened, or its like, says that it is
        # attached.
        self.attach_ms = (time.perf_counter() - began) * 1000 / arguments["subscribers"]

    def open(self) -> None:
        """Let the producer begin."""
        self._window.open()

    def read_for(self, seconds: float, target_events: int = 0) -> dict[str, Any]:
        """Read for so many seconds, and return what was read and used in this time.

        With `target_events` reading ends earlier, when all subscribers have so many events.

        Raises:
            WrongStream: an event was lost, repeated or swapped, or none came for a long time.
        """
        feeds = self.feeds
        first = [feed.sequence for feed in feeds]
        used = [cpu_s(pids) for pids in self._pids]
        began = now = time.perf_counter()
        until = began + seconds
        while now < until and not (target_events and min(feed.sequence for feed in feeds) >= target_events):
            self._read_once()
            now = time.perf_counter()
        return {
            "seconds": now - began,
            "events": sum(feed.sequence for feed in feeds) - sum(first),  # this is 0 while pieces are only stored
            "cpu_s": [cpu_s(pids) - before for pids, before in zip(self._pids, used, strict=True)],
        }

    def _read_once(self) -> None:
        ready = self._selector.select(SILENCE_S)
        if not ready:
            raise WrongStream(f"nothing came for {SILENCE_S:g} s")
        buffer = self._buffer
        for key, _ in ready:
            connection, feed, pieces = key.data
            size = connection.recv_into(buffer)
            arrived_ns = time.monotonic_ns()
            if not size:
                raise WrongStream("the server closed the connection")
            if self._keep:
                pieces.append((arrived_ns, bytes(buffer[:size])))
            if feed.answers or not self._keep:
                feed.feed(buffer, 0, size)
        if not self._keep:
            self._window.sequence = min(feed.sequence for feed in self.feeds)

    def look(self) -> None:
        """Check the pieces that were stored during the run.

        Raises:
            WrongStream: an event was lost, repeated or swapped, or more bytes came than a run is allowed to receive.
        """
        for feed, pieces in zip(self.feeds, self.pieces, strict=True):
            if feed.answers:
                continue
            if sum(len(piece) for _, piece in pieces) > KEPT_BYTES:
                raise WrongStream("more came than subscribers make room for at a rate: measure for a shorter time")
            for arrived_ns, piece in pieces:
                if isinstance(feed, GrpcFeed):
                    feed.arrived_ns = arrived_ns
                feed.feed(bytearray(piece), 0, len(piece))


# After the run


def check(messages: list[Kept], *, is_complete: bool, is_filtered: bool = False) -> int:
    """Pass the kept messages to the stream checker of the system tests, and return how many events it saw.

    A complete stream is checked as a whole. When only some messages were kept, each must contain exactly the events
    from its first sequence up to the first sequence of the next message. A filtered stream must be in order and contain
    only items with even handles.

    Raises:
        WrongStream: the stream broke a promise.
    """
    checker = StreamChecker(may_lose=lambda _: False)
    checker.attach()
    events = 0
    for kept in messages:
        message = StreamEventsResponse.FromString(kept.message)
        if is_complete or not message.HasField("events"):
            for observation in observed(message):
                checker.observe(observation)
            events += len(message.events.events)
            continue
        sequences = [event.sequence for event in message.events.events]
        if is_filtered:
            if sequences != sorted(set(sequences)) or any(event.item_handle % 2 for event in message.events.events):
                raise WrongStream(f"a filtered message at {sequences[0]} is out of order or shows what it should not")
            events += len(sequences)
            continue
        following = kept.next_sequence or sequences[-1] + 1
        if sequences != list(range(sequences[0], following)):
            raise WrongStream(f"a message of events {sequences[0]} to {following - 1} does not hold them all in order")
        events += len(sequences)
    if checker.violations:
        raise WrongStream(checker.report())
    return events


def delays_of_messages(messages: list[Kept], after_ns: int) -> list[int]:
    """Return the delay of every event in nanoseconds. A gRPC message counts as arrived when it is complete."""
    delays: list[int] = []
    for kept in messages:
        if kept.arrived_ns >= after_ns:
            events: list[Event] = list(StreamEventsResponse.FromString(kept.message).events.events)
            delays += [kept.arrived_ns - int(event.data_change.value.double) for event in events]
    return delays


def delays_of_pieces(pieces: Pieces, after_ns: int) -> list[int]:
    """Return the delay of every event in nanoseconds. An event counts as arrived with its last byte.

    Raises:
        WrongStream: an event was lost, repeated or swapped.
    """
    data = b"".join(piece for _, piece in pieces)
    ends = list(accumulate(len(piece) for _, piece in pieces))
    delays: list[int] = []
    due, at = 1, data.find(MARKER)
    while at >= 0 and at - MARKER_AT + RECORD_BYTES <= len(data):
        start = at - MARKER_AT
        (sequence,) = SEQUENCE.unpack_from(data, start + SEQUENCE_AT)
        if sequence != due:
            raise WrongStream(f"event {sequence} came where {due} was due")
        arrived_ns = pieces[bisect.bisect_left(ends, start + RECORD_BYTES)][0]
        if arrived_ns >= after_ns:
            delays.append(arrived_ns - int(STAMP.unpack_from(data, start + STAMP_AT)[0]))
        due += 1
        at = data.find(MARKER, at + len(MARKER))
    return delays


def percentiles(delays: list[int]) -> dict[str, float]:
    delays.sort()
    return {f"p{p}_us": delays[min(len(delays) - 1, len(delays) * p // 100)] / 1000 for p in (50, 99)} | {
        "delays": len(delays)
    }


def main(arguments: dict[str, Any]) -> dict[str, Any]:
    """Read and check the streams, and return the figures."""
    readers = Readers(arguments)
    gc.collect()
    gc.freeze()
    gc.disable()
    readers.open()
    readers.read_for(arguments["warm_up_s"])
    warm_ns = time.monotonic_ns()
    result = readers.read_for(arguments["seconds"], arguments.get("target_events", 0))
    gc.enable()
    readers.look()
    result["attach_ms"] = readers.attach_ms
    streams = [feed for feed in readers.feeds if isinstance(feed, GrpcFeed)]
    filtered = bool(arguments.get("is_filtered"))
    is_complete = bool(arguments.get("stamps"))
    result["checked"] = sum(check(feed.kept, is_complete=is_complete, is_filtered=filtered) for feed in streams)
    if streams:
        result["messages"] = sum(feed.messages for feed in streams)
        result["message_bytes"] = sum(feed.events_bytes for feed in streams) / max(1, result["messages"])
    if arguments.get("stamps"):
        delays = [delay for feed in streams for delay in delays_of_messages(feed.kept, warm_ns)]
        if not streams:
            delays = [delay for pieces in readers.pieces for delay in delays_of_pieces(pieces, warm_ns)]
        result |= percentiles(delays) | {"events": len(delays)}
    return result


if __name__ == "__main__":
    try:
        print(json.dumps(main(json.loads(sys.argv[1]))), flush=True)
    except (WrongStream, OSError) as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from None
