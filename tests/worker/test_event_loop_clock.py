"""The event loop of gateway and worker has the clock that mxgw uses, and its timers never run early."""

from __future__ import annotations

import asyncio
import time

from mxgw_worker.platform import event_loop_class


def test_the_clock_of_the_event_loop_is_the_one_that_measures_short_times() -> None:
    with asyncio.Runner(loop_factory=event_loop_class()) as runner:
        loop = runner.get_loop()
        for _ in range(100):
            before = time.perf_counter()
            now = loop.time()

            assert before <= now <= time.perf_counter()


def test_a_timer_that_is_set_again_until_its_time_has_come_is_set_a_few_times_only() -> None:
    async def wait(seconds: float) -> int:
        loop, done, calls = asyncio.get_running_loop(), asyncio.Event(), 0
        due = time.perf_counter() + seconds

        def look() -> None:
            nonlocal calls
            calls += 1
            if time.perf_counter() >= due:
                done.set()
            else:
                loop.call_at(due, look)

        loop.call_at(due, look)
        await done.wait()
        return calls

    with asyncio.Runner(loop_factory=event_loop_class()) as runner:
        assert max(runner.run(wait(0.01)) for _ in range(10)) <= 3
