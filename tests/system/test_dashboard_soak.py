"""A dashboard that is left open while sessions come and go holds no more at the end than at the beginning."""

from __future__ import annotations

import asyncio
import json
import logging
import statistics
import sys
import time

import pytest
from support.clients import Client, client_of
from support.repository import ROOT

from mxgw_core.testing import RunningGateway, running_gateway

pytestmark = pytest.mark.asyncio
log = logging.getLogger(__name__)

PROGRAM = ROOT / "tests" / "support" / "dashboard_cycles.py"
SETTINGS = {"plugins.enabled": ["dashboard_tui"], "plugins.dashboard_tui.local_role": "administrator"}
SOAK_S = 600
MIB = 1024 * 1024


async def come_and_go(client: Client) -> None:
    """Open, use and close sessions, one after the other, for ever."""
    number = 0
    while True:
        number += 1
        session = await client.open(name=f"visitor {number}", tag=f"line{number % 5}")
        await client.subscribe(session.session_id, ["Tank_001.Level"])
        await asyncio.sleep(0.3)
        await client.close(session.session_id)


async def rounds(gateway: RunningGateway, number: int, seconds: float) -> list[dict[str, int]]:
    """Return what a dashboard held after each round; at most so many, for at most so long."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "ignore", str(PROGRAM), gateway.target, str(number)),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    told: list[dict[str, int]] = []
    deadline = time.monotonic() + seconds
    try:
        while time.monotonic() < deadline and (line := await process.stdout.readline()):
            told.append(json.loads(line))
            if len(told) % 25 == 1:
                log.info("round %d: %s", len(told), told[-1])
    finally:
        if process.returncode is None and len(told) < number:
            process.terminate()
        await process.wait()
    return told


async def left_open(number: int, seconds: float) -> list[dict[str, int]]:
    async with running_gateway(SETTINGS) as gateway, client_of(gateway.target) as client:
        steady = await client.open(name="steady")
        await client.subscribe(steady.session_id, ["Tank_001.Level", "Tank_002.Level"])
        async with asyncio.TaskGroup() as tasks:
            visiting = tasks.create_task(come_and_go(client))
            told = await rounds(gateway, number, seconds)
            visiting.cancel()
    return told


def no_more_than_at_first(told: list[dict[str, int]], what: str, warm: int) -> None:
    """What is counted is the same after every round, but for a round in which something is just ending."""
    at_first = max(each[what] for each in told[warm : warm + 2])
    at_last = min(each[what] for each in told[-2:])

    assert at_last <= at_first, f"{what} grows: {[each[what] for each in told]}"


async def test_rounds_through_all_views_leave_no_task_and_no_widget() -> None:
    told = await left_open(6, 50)

    assert len(told) == 6
    for what in ("tasks", "workers", "mounted", "widgets"):
        no_more_than_at_first(told, what, warm=2)


@pytest.mark.soak
@pytest.mark.timeout(SOAK_S + 120)
async def test_ten_minutes_of_coming_and_going_sessions_leave_no_memory_task_or_widget() -> None:
    told = await left_open(1_000_000, SOAK_S)
    # By then everything that keeps a bounded past is full: at this interval its ten minutes are two and a half.
    warm = len(told) * 2 // 5
    early, late = (
        statistics.median(each["rss_bytes"] for each in part) for part in (told[warm : warm + 20], told[-20:])
    )
    log.info("%d rounds; memory %.1f MiB, later %.1f MiB", len(told), early / MIB, late / MIB)

    assert len(told) > 60
    assert late - early < 3 * MIB
    for what in ("tasks", "workers", "mounted", "widgets"):
        no_more_than_at_first(told, what, warm)
