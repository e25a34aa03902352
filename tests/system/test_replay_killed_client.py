"""A client process that is killed goes on with its position file: no event is missing, none comes twice."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
from pathlib import Path

import pytest
from support import following
from support.replaying import replay_settings, subscribe_load

from mxgw_client import Position, connect
from mxgw_client.position_file import PositionFile
from mxgw_core.testing import running_gateway
from mxgw_core.testing.checker import Seen

pytestmark = pytest.mark.asyncio


async def test_killed_again_and_again_it_records_every_event_once(tmp_path: Path) -> None:
    place, output = tmp_path / "place", tmp_path / "output"
    chance = random.Random(4)
    async with (
        running_gateway(replay_settings(3_000)) as gateway,
        connect(gateway.target) as client,
        client.open_session() as session,
    ):
        oracle = await subscribe_load(session)
        epoch = (await session.state()).position.epoch
        first = PositionFile(place, session.session_id, 0)
        first.note(Position(epoch, 0))
        first.close()

        async def run(until: int, lives_s: float | None, interval_s: float) -> int:
            arguments = (gateway.target, str(place), str(output), str(until), str(interval_s))
            process = await asyncio.create_subprocess_exec(
                sys.executable, following.__file__, *arguments, stdout=asyncio.subprocess.PIPE
            )
            assert process.stdout is not None
            assert (await process.stdout.readline()).strip() == b"following"

            if lives_s is not None:
                await asyncio.sleep(lives_s)
                process.send_signal(signal.SIGKILL)
            async with asyncio.timeout(60):
                return await process.wait()

        for interval_s in (0.0, 0.0, 0.05, 0.05):
            assert await run(1 << 60, chance.uniform(0.1, 0.4), interval_s) == -signal.SIGKILL
        until = (await session.state()).position.sequence

        assert await run(until, None, 0.05) == 0

    lines = [line.split() for line in output.read_text().splitlines()]
    sequences = [int(line[0]) for line in lines]

    assert sequences == list(range(1, len(sequences) + 1))
    assert len(sequences) >= until > 3_000
    for number, item, value in lines:
        produced = oracle.produced(epoch, int(number))

        assert produced == Seen(int(number), (1, int(item)), float(value))
