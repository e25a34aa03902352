"""Clients that come back to real gateways: with replay and without it, after overflow, and to a gateway that is new."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from support.proxy import fault_proxy
from support.recording import Recorder, double_of
from support.replaying import follower, replay_settings, subscribe_load
from support.waiting import until

from mxgw_client import (
    EventBatch,
    Gap,
    GapReason,
    ResumePolicy,
    Snapshot,
    SnapshotEnd,
    Start,
    StreamCut,
    StreamOpened,
    connect,
    errors,
)
from mxgw_core.testing import running_gateway
from mxgw_core.testing.checker import StreamChecker

pytestmark = pytest.mark.asyncio

QUICK = ResumePolicy(first_delay_s=0.02, longest_delay_s=0.2)


async def test_a_reader_that_was_cut_for_being_slow_comes_back_and_misses_nothing() -> None:
    settings = {
        **replay_settings(5_000),
        "plugins.backpressure.queue_events": 1_000,
        "plugins.backpressure.queue_bytes": 1 << 20,
    }
    async with (
        running_gateway(settings) as gateway,
        connect(gateway.target) as client,
        client.open_session() as session,
    ):
        oracle = await subscribe_load(session)
        checker = StreamChecker(oracle, may_lose=lambda _: False)
        recorder = Recorder(checker, double_of)
        recorder.begin()
        stalled = 0
        async with session.events(resume=QUICK) as events:
            async for frame in events.batches():
                recorder.frame(frame)
                if isinstance(frame, EventBatch) and stalled == len(recorder.cuts) < 3:
                    stalled += 1
                    await asyncio.sleep(0.8)  # what is under way is some 100 KB, and the queue is short
                if len(recorder.cuts) == 3 and checker.events > 10_000:
                    break
        recorder.end("CLIENT")
        checker.finish()

        assert not checker.violations, checker.report()
        assert len(recorder.cuts) >= 3
        assert all(isinstance(cut.error, errors.SubscriberOverflow) for cut in recorder.cuts)


async def test_without_replay_a_cut_costs_an_exact_gap_and_never_a_silent_loss() -> None:
    settings = {key: value for key, value in replay_settings(2_000).items() if not key.startswith("plugins.")}
    async with (
        running_gateway(settings) as gateway,
        fault_proxy(gateway.target) as proxy,
        connect(gateway.target) as owner,
        connect(proxy.target) as client,
        owner.open_session() as session,
        client.attach_session(session.session_id) as far,
    ):
        oracle = await subscribe_load(session)
        one = follower(oracle, far.events(resume=QUICK))
        done: list[bool] = []
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(one.run(lambda: bool(done)))
            for cuts in range(1, 6):
                await until(lambda: one.at > 200 * cuts and not one.stream.is_cut)  # noqa: B023 - awaited at once
                proxy.reset()
                await until(lambda: len(one.recorder.cuts) == cuts)  # noqa: B023
            await until(lambda: not one.stream.is_cut)
            done.append(True)
        one.checker.finish()

        assert not one.checker.violations, one.checker.report()
        assert one.checker.resumes == 5
        assert one.checker.gaps >= 1
        assert one.checker.lost_events > 0


async def test_the_one_place_of_a_session_is_waited_for_until_it_is_free() -> None:
    settings = {key: value for key, value in replay_settings(1_000).items() if not key.startswith("plugins.")}
    async with (
        running_gateway(settings) as gateway,
        fault_proxy(gateway.target) as proxy,
        connect(gateway.target) as owner,
        connect(proxy.target) as client,
        owner.open_session() as session,
        client.attach_session(session.session_id) as far,
    ):
        await subscribe_load(session)
        events = far.events(resume=QUICK)
        assert isinstance(await anext(events), StreamOpened)
        proxy.is_down = True
        proxy.reset()
        async with session.events() as other:
            proxy.is_down = False
            waiting = events.batches()
            frame = await anext(waiting)
            while not isinstance(frame, StreamCut):
                frame = await anext(waiting)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await anext(waiting)

            assert other.opened is not None

        async with asyncio.timeout(60):
            assert isinstance(await anext(waiting), StreamOpened)
            gap = await anext(waiting)

        assert isinstance(gap, Gap)
        assert gap.reason is GapReason.RING_EVICTED


async def test_a_gateway_that_was_started_anew_does_not_know_the_session_and_that_is_said(tmp_path: Path) -> None:
    address = {"gateway.listen": ["127.0.0.1:0"], "gateway.data_dir": str(tmp_path / "a")}
    async with running_gateway({**replay_settings(1_000), **address}) as first:
        client = connect(first.target)
        await client.open()
        session = client.open_session(keep=True)
        await session.open()
        await subscribe_load(session)
        events = session.events(resume=QUICK)
        assert isinstance(await anext(events), StreamOpened)
        listen = {"gateway.listen": [first.target], "gateway.data_dir": str(tmp_path / "b")}
    seen: list[type] = []

    async def follow() -> None:
        async for frame in events.batches():
            seen.append(type(frame))  # noqa: PERF401 - what was seen before the end counts

    async with running_gateway({**replay_settings(1_000), **listen}), asyncio.timeout(60):
        with pytest.raises(errors.SessionNotFound):
            await follow()
        await client.close()

    assert seen.count(StreamCut) == 1
    assert seen[-1] is StreamCut


async def test_a_stream_cut_inside_a_large_snapshot_gets_a_whole_one_and_every_event() -> None:
    settings = {**replay_settings(1_000), "backends.load.items": 5_000, "events.batch_bytes": 4_096}
    async with (
        running_gateway(settings) as gateway,
        fault_proxy(gateway.target) as proxy,
        connect(gateway.target) as owner,
        connect(proxy.target) as client,
        owner.open_session() as session,
        client.attach_session(session.session_id) as far,
    ):
        await subscribe_load(session, 5_000)
        await until(lambda: gateway.api.session(session.session_id).head_sequence > 5_000)
        checker = StreamChecker(may_lose=lambda _: False)
        recorder = Recorder(checker)
        recorder.begin()
        complete: dict[int, int] = {}
        parts = 0
        async with far.events(start=Start.SNAPSHOT, resume=QUICK) as events, asyncio.timeout(60):
            async for frame in events.batches():
                recorder.frame(frame)
                if isinstance(frame, StreamOpened):
                    complete, parts = {}, 0
                if isinstance(frame, Snapshot):
                    parts += 1
                    complete |= {item.item_handle: item.sequence for item in frame.items}
                    if parts == 10 and len(recorder.cuts) < 3:
                        proxy.reset()
                if isinstance(frame, SnapshotEnd):
                    break
        recorder.end("CLIENT")
        checker.finish()

        assert not checker.violations, checker.report()
        assert len(recorder.cuts) == 3
        assert len(complete) == 5_000
        assert checker.resumes == 3
