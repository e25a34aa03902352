"""Ten thousand items of a server by another library, for ten minutes (make soak; MXGW_SOAK_S sets another time)."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from mxgw.v1.values_pb2 import MxStatus, MxValue
from mxgw_worker.backends.opcua import OpcUaBackend

from .harness import NS, Sink
from .node_server import node_process

log = logging.getLogger(__name__)

ITEMS, PERIOD_MS = 10_000, 500
DURATION_S = float(os.environ.get("MXGW_SOAK_S", "600"))


class CountingSink(Sink):
    """Checks that each counter goes on by one, and keeps no values."""

    def __init__(self) -> None:
        super().__init__()
        self.last: dict[int, int] = {}
        self.received = 0
        self.missing: list[tuple[int, int, int]] = []
        self.complete = asyncio.Event()  # set when every item has a value

    def data_change(
        self,
        server_handle: int,
        item_handle: int,
        value: MxValue,
        quality: int,
        source_time_ns: int | None,
        statuses: Sequence[MxStatus],
        raw_source_time: str = "",
    ) -> None:
        before = self.last.get(item_handle)
        if before is not None and value.integer != before + 1:
            self.missing.append((item_handle, before, value.integer))
        self.last[item_handle] = value.integer
        self.received += 1
        if len(self.last) == ITEMS:
            self.complete.set()


@pytest.mark.soak
@pytest.mark.timeout(DURATION_S + 300)
@pytest.mark.asyncio
async def test_ten_thousand_items_at_two_changes_a_second_lose_nothing(tmp_path: Path) -> None:
    sink = CountingSink()
    with node_process(tmp_path, items=ITEMS, period_ms=PERIOD_MS) as endpoint:
        backend = OpcUaBackend({"url": endpoint})
        await backend.start(sink)
        try:
            server = await backend.register("soak")
            for number in range(ITEMS):
                await backend.advise(server, await backend.add_item(server, f"{NS}Load.{number}"))
            async with asyncio.timeout(120):
                await sink.complete.wait()
            started, before, cpu = time.monotonic(), sink.received, time.process_time()
            await asyncio.sleep(DURATION_S)
            elapsed_s = time.monotonic() - started
            received, cpu_s = sink.received - before, time.process_time() - cpu
        finally:
            await backend.stop()
    log.info(
        "%d values in %.0f s: %.0f/s, %.2f cores here", received, elapsed_s, received / elapsed_s, cpu_s / elapsed_s
    )

    assert sink.missing == []
    assert sink.gaps() == []
    # How often the server changes its counters is up to its own timer, which is late on a busy machine; the log tells.
    assert received > ITEMS
