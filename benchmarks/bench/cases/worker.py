"""How fast one worker encodes, numbers, keeps and sends data changes, compared with the protobuf library alone.

The comparison, called the floor, builds the same events as protobuf messages in batches of 256 and serialises each
batch. It does not number, keep or send them. Figures with `cpu` are processor time, which a busy machine disturbs less.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable

from mxgw.convert import ok_status, to_value
from mxgw.v1.events_pb2 import EVENT_KIND_DATA_CHANGE, EventBatch
from mxgw.v1.values_pb2 import MX_STATUS_CATEGORY_OK, MX_STATUS_DETAIL_SUCCESS, QUALITY_GOOD
from mxgw_worker.gateway_connection import block_frame
from mxgw_worker.items import ItemTable
from mxgw_worker.outbox import Block, Outbox
from mxgw_worker.sink import WorkerSink
from mxgw_worker.writes import Writes

from bench.context import Context
from bench.measuring import Result
from bench.processes import BenchmarkFailed

TITLE = "Worker alone"
GOAL = 0.7
EVENTS = 102_400
ITEMS = 1000
BURST = 256
FLOOR_BATCH = 256
BLOCK_BYTES = 256 * 1024
DRAIN = "import os\nwhile os.read(0, 1 << 20): pass"
NS = 1_000_000_000


def floor(events: int) -> tuple[float, float]:
    """Return the elapsed seconds and the processor seconds for building and serialising the events."""
    started, cpu_started = time.perf_counter(), time.process_time()
    for first in range(0, events, FLOOR_BATCH):
        batch = EventBatch()
        for sequence in range(first + 1, first + FLOOR_BATCH + 1):
            now = time.time_ns()
            event = batch.events.add()
            event.sequence = sequence
            event.item_handle = event.item_serial = sequence % ITEMS + 1
            event.kind = EVENT_KIND_DATA_CHANGE
            event.server_handle = 1
            worker_time = event.worker_time
            worker_time.seconds = now // NS
            worker_time.nanos = now % NS
            change = event.data_change
            change.value.double = sequence * 0.5
            change.quality = QUALITY_GOOD
            change.raw_quality = 192
            source_time = change.source_time
            source_time.seconds = now // NS
            source_time.nanos = now % NS
            status = change.statuses.add()
            status.success = -1
            status.category = MX_STATUS_CATEGORY_OK
            status.detected_by = 3
            status.raw_detected_by = 1
            status.detail = MX_STATUS_DETAIL_SUCCESS
        batch.SerializeToString()
    return time.perf_counter() - started, time.process_time() - cpu_started


def worker(events: int) -> tuple[float, float]:
    """Return the elapsed seconds and the processor seconds for the events in a worker.

    They go through the sink, the outbox and a Unix socket that another process reads.
    """
    outbox = Outbox(limit_events=10_000, limit_bytes=8 * 1024 * 1024, maximum_frame_bytes=4 * 1024 * 1024)
    items = ItemTable(lambda: 0)
    for handle in range(1, ITEMS + 1):
        items.add((1, handle), f"Tag{handle}.PV")
    sink = WorkerSink(
        outbox=outbox, items=items, writes=Writes(30.0), on_event=lambda: None, on_failed=lambda _detail: None
    )
    ours, theirs = socket.socketpair()
    drain = subprocess.Popen((sys.executable, "-c", DRAIN), stdin=theirs)
    theirs.close()
    value = to_value(0.5)
    statuses = [ok_status()]
    started, cpu_started = time.perf_counter(), time.process_time()
    for first in range(0, events, BURST):
        for sequence in range(first + 1, first + BURST + 1):
            value.double = sequence * 0.5
            sink.data_change(1, sequence % ITEMS + 1, value, 192, time.time_ns(), statuses)
        while isinstance(block := outbox.take(BLOCK_BYTES), Block):
            ours.sendall(block_frame(block))
    seconds = time.perf_counter() - started, time.process_time() - cpu_started
    ours.close()
    drain.wait()
    if outbox.events_lost or outbox.head_sequence != events:
        raise BenchmarkFailed("the worker lost events; the figure means nothing")
    return seconds


def run(context: Context) -> Result:
    """Measure the floor and the worker in turn in this process."""
    events = EVENTS // 4 if context.quick else EVENTS
    result = Result("worker", TITLE, {"events": events})
    runs = context.alternate(
        "worker", {"worker": lambda: figures(worker, events), "protobuf floor": lambda: figures(floor, events)}
    )
    circumstance = "one worker"
    result.add(runs, circumstance, events_per_s="events/s", events_per_cpu_s="events/s")
    result.compare(runs, "events_per_s", "worker", "protobuf floor", circumstance, goal=GOAL)
    result.compare(runs, "events_per_cpu_s", "worker", "protobuf floor", circumstance)
    return context.finish(result)


def figures(measured: Callable[[int], tuple[float, float]], events: int) -> dict[str, float]:
    seconds, cpu_s = measured(events)
    return {"events_per_s": events / seconds, "events_per_cpu_s": events / cpu_s}
