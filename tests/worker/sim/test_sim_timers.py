"""The one heap of timers: order, cancelling, fairness to the loop, and an end."""

import asyncio

import pytest

from mxgw_worker.backends.sim.testing import ManualClock
from mxgw_worker.backends.sim.timers import LoopClock, Timers


def timers_of(clock: ManualClock, failures: list[str] | None = None) -> Timers:
    return Timers(clock, (failures if failures is not None else []).append)


def test_calls_run_in_order_of_time_and_then_of_asking() -> None:
    clock, ran = ManualClock(), []
    timers = timers_of(clock)
    for name, delay_s in (("c", 2.0), ("a", 1.0), ("b", 1.0), ("d", 2.0)):
        timers.after(delay_s, lambda name=name: ran.append(name))

    clock.advance(3)

    assert ran == ["a", "b", "c", "d"]


def test_a_call_never_runs_from_within_after() -> None:
    clock, ran = ManualClock(), []

    timers_of(clock).after(0.0, lambda: ran.append(1))

    assert ran == []
    clock.advance(0)
    assert ran == [1]


def test_a_cancelled_call_does_not_run() -> None:
    clock, ran = ManualClock(), []
    timer = timers_of(clock).after(1.0, lambda: ran.append(1))

    timer.cancel()
    clock.advance(2)

    assert ran == []


def test_an_earlier_call_is_not_kept_waiting_by_a_later_one() -> None:
    clock, ran = ManualClock(), []
    timers = timers_of(clock)
    timers.after(10.0, lambda: ran.append("late"))
    timers.after(1.0, lambda: ran.append("early"))

    clock.advance(2)

    assert ran == ["early"]


def test_a_call_that_renews_itself_gets_one_run_per_turn() -> None:
    clock, ran = ManualClock(), []
    timers = timers_of(clock)

    def again() -> None:
        ran.append(1)
        timers.after(0.0, again)

    timers.after(0.0, again)
    clock.turn()
    clock.turn()

    assert ran == [1, 1]


def test_close_forgets_everything_and_refuses_more() -> None:
    clock, ran = ManualClock(), []
    timers = timers_of(clock)
    timers.after(1.0, lambda: ran.append(1))

    timers.close()
    timers.after(0.0, lambda: ran.append(2))
    clock.advance(5)

    assert ran == []
    assert clock.pending() == 0


def test_a_call_that_closes_the_timers_is_the_last() -> None:
    clock, ran = ManualClock(), []
    timers = timers_of(clock)
    timers.after(1.0, timers.close)
    timers.after(1.0, lambda: ran.append(1))

    clock.advance(5)

    assert ran == []
    assert clock.pending() == 0


def test_a_call_that_raises_is_reported_and_the_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    clock, ran, failures = ManualClock(), [], []
    timers = timers_of(clock, failures)
    timers.after(1.0, lambda: 1 / 0)
    timers.after(2.0, lambda: ran.append(1))

    clock.advance(5)

    assert len(failures) == 1
    assert ran == [1]
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.asyncio
async def test_long_work_lets_the_loop_have_its_turn() -> None:
    clock = LoopClock()
    timers = Timers(clock, pytest.fail)
    done = asyncio.Event()
    turns, calls = 0, 0

    def work() -> None:
        nonlocal calls
        until = clock.monotonic() + 0.002
        while clock.monotonic() < until:
            pass
        calls += 1
        if calls == 20:
            done.set()

    for _ in range(20):
        timers.after(0.0, work)
    async with asyncio.timeout(60):
        while not done.is_set():
            turns += 1
            await asyncio.sleep(0)
    timers.close()

    assert turns >= 8
