"""Keys with a limit on the events they get and on those kept for them."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from support.clients import read_events, refused
from support.keys import client_with, guarded_gateway

from mxgw_acl.key_limits import KeyPace
from mxgw_acl.keys import Constraints

LOAD = {"backends.sim.profile": "load", "backends.sim.items": 50, "backends.sim.rate": 2_000}
ITEMS = [f"Load.Item{number:05d}" for number in range(1, 51)]


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_rate_is_kept_in_the_long_run_whatever_the_pieces_are() -> None:
    clock = Clock()
    pace = KeyPace(10.0, clock=clock)
    sent = 0
    began = clock.now
    for piece in [1, 7, 100, 3, 40, 2] * 5:
        while (wait_s := pace.wait_s()) > 0:
            clock.now += wait_s
        pace.sent(piece)
        sent += piece

    # The burst of a second, and the last piece, are beyond the rate; no more is.
    assert sent - 40 - 2 - 10 <= (clock.now - began) * 10 <= sent


def test_silence_is_saved_up_for_a_second_and_no_longer() -> None:
    clock = Clock()
    pace = KeyPace(10.0, clock=clock)
    clock.now += 3600
    pace.sent(10)

    assert pace.wait_s() == pytest.approx(0.1)


def test_limits_that_were_stored_before_there_were_rates_are_still_understood() -> None:
    stored = Constraints(maximum_sessions=2).to_json()
    older = stored.replace(', "maximum_events_per_s": null, "maximum_buffer_bytes": null', "")

    assert older != stored
    assert Constraints.from_json(older) == Constraints(maximum_sessions=2)
    assert Constraints.from_json(Constraints(maximum_events_per_s=2.5).to_json()).maximum_events_per_s == 2.5


@pytest.mark.asyncio
async def test_all_streams_of_a_key_share_its_rate_and_other_keys_have_their_own(tmp_path: Path) -> None:
    # Neither stream may overflow while the other has the rate: what is left when a stream ends is not held back.
    roomy = {"plugins.backpressure.queue_events": 1_000_000, "plugins.backpressure.queue_bytes": 1 << 30}
    async with guarded_gateway(tmp_path, {**LOAD, **roomy, "plugins.enabled": ["acl", "backpressure"]}) as guarded:
        _, slow = guarded.issue("slow", maximum_events_per_s=20.0)
        _, free = guarded.issue("free")
        async with client_with(guarded.target, slow) as limited, client_with(guarded.target, free) as unlimited:
            session_id = (await limited.open()).session_id
            await limited.subscribe(session_id, ITEMS)
            other_id = (await unlimited.open()).session_id
            await unlimited.subscribe(other_id, ITEMS)
            began = time.monotonic()
            counted = 0

            async def follow() -> None:
                nonlocal counted
                stream = limited.stream(session_id)
                while counted < 20 or time.monotonic() - began < 2.0:
                    counted += len((await stream.read()).events.events)
                stream.cancel()

            async def follow_freely() -> float:
                await read_events(unlimited.stream(other_id), 2_000)
                return time.monotonic() - began

            async with asyncio.TaskGroup() as tasks:
                for _ in range(2):
                    tasks.create_task(follow())
                freely = tasks.create_task(follow_freely())
            took_s = time.monotonic() - began

        # Two seconds and the burst of one; pieces have some forty events, and each stream may have one too many.
        assert 20 <= counted <= took_s * 20 + 20 + 2 * 80
        # The free key's 2,000 alone would take that rate 99 s.
        assert freely.result() < 60


@pytest.mark.asyncio
async def test_a_session_of_a_key_keeps_what_the_key_may_keep_and_says_so(tmp_path: Path) -> None:
    async with guarded_gateway(tmp_path, LOAD) as guarded:
        _, text = guarded.issue(maximum_buffer_bytes=20_000, maximum_events_per_s=0.1)
        async with client_with(guarded.target, text) as client:
            session_id = (await client.open()).session_id
            await client.subscribe(session_id, ITEMS)
            refusal = await refused(client.stream(session_id))

            assert refusal.reason == "SUBSCRIBER_OVERFLOW"
            assert "the key's --max-buffer" in refusal.text
