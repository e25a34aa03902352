"""A block of code that delays the event loop is blamed for it only when the block itself used the time."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from mxgw_core.events import policy_guard
from mxgw_core.events.policy_guard import Budget, NoAnswer, OverBudget
from mxgw_core.plugins.blame import DELAYS, Delays
from mxgw_worker.platform import ThreadUse

MS = 0.001


def burn(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


def answers(keep: Callable[..., bool], budget_s: float, per_answer_s: float) -> list[bool]:
    return policy_guard.answers(keep, QUESTIONS, budget_s, per_answer_s, Delays())


def spent(run: Callable[[], object], budget_s: float = MS) -> float:
    budget = Budget(budget_s)
    with budget:
        run()
    return budget.overrun_s


def test_a_quick_block_is_within_its_budget() -> None:
    assert spent(lambda: sum(range(10))) == 0.0


@pytest.mark.usefixtures("uninterrupted")
def test_sleeping_is_an_overrun() -> None:
    assert spent(lambda: time.sleep(0.02)) >= 0.02


def test_burning_is_an_overrun() -> None:
    assert spent(lambda: burn(0.05)) >= 0.02


@pytest.mark.usefixtures("uninterrupted")
def test_waiting_for_somebody_else_is_an_overrun() -> None:
    reading, writing = os.pipe()
    later = threading.Timer(0.02, os.write, (writing, b"x"))
    overrun = spent(lambda: (later.start(), os.read(reading, 1)))
    later.join()
    os.close(reading)
    os.close(writing)

    assert overrun >= 0.01


@pytest.mark.parametrize(
    ("wall_ms", "cpu_ms", "waits", "interruptions", "is_to_blame"),
    [
        (26.5, 2.8, 3, 6, True),  # it used more CPU time than allowed, whatever else happened
        (26.5, 0.8, 3, 6, False),  # the CPU was taken away, then it waited for Python's lock
        (26.5, 0.8, 3, 0, True),  # it slept
        (26.5, 0.8, 0, 6, False),
        (0.9, 0.8, 3, 0, False),
    ],
)
def test_waiting_is_to_blame_only_where_the_cpu_was_not_taken_away(
    wall_ms: float, cpu_ms: float, waits: int, interruptions: int, is_to_blame: bool
) -> None:
    budget = measured(wall_ms, (1.0, 10, 20), (1.0 + cpu_ms * MS, 10 + waits, 20 + interruptions), step_ms=0)

    assert budget.overrun_s == pytest.approx(wall_ms * MS if is_to_blame else 0.0)
    assert budget.delay_s == 0.0


@pytest.mark.parametrize(
    ("wall_ms", "cpu_ms", "overrun_ms", "delay_ms"),
    [
        (40.0, 32.0, 40.0, 0.0),  # two ticks: it had the CPU at both
        (40.0, 16.0, 0.0, 40.0),  # one tick, which it is charged with even if it has used a thousandth of it
        (40.0, 0.0, 0.0, 40.0),
        (0.9, 16.0, 0.0, 0.0),
    ],
)
def test_where_waits_are_not_counted_only_certain_cpu_time_is_to_blame_at_once(
    wall_ms: float, cpu_ms: float, overrun_ms: float, delay_ms: float
) -> None:
    budget = measured(wall_ms, (1.0, None, 0), (1.0 + cpu_ms * MS, None, 0), step_ms=16)

    assert (budget.overrun_s, budget.delay_s) == pytest.approx((overrun_ms * MS, delay_ms * MS))


def test_the_time_that_the_measurement_takes_is_not_the_block_s() -> None:
    now = 0.0

    def use() -> ThreadUse:
        nonlocal now
        now += 5 * MS
        return (0.0, None, 0)

    with Budget(MS, clock=lambda: now, use=use) as budget:
        pass

    assert budget.delay_s == 0.0


def measured(wall_ms: float, before: ThreadUse, after: ThreadUse, *, step_ms: float) -> Budget:
    clock, use = iter([5.0, 5.0 + wall_ms * MS]), iter([before, after])
    with Budget(MS, clock=lambda: next(clock), use=lambda: next(use), step_s=step_ms * MS) as budget:
        pass
    return budget


@pytest.fixture
def hogs() -> Iterator[None]:
    """Run more processes that use the CPU than there are CPUs, during a test."""
    endless = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range((os.cpu_count() or 1) + 1)]
    yield
    for process in endless:
        process.kill()
        process.wait()


@pytest.mark.usefixtures("hogs")
def test_a_block_that_others_took_the_cpu_from_is_not_to_blame() -> None:
    interrupted, until = 0, time.monotonic() + 5.0
    while interrupted < 10 and time.monotonic() < until:
        budget = Budget(MS)
        began = time.perf_counter()
        with budget:
            sum(range(1_000))
        interrupted += time.perf_counter() - began > 1.5 * MS

        assert budget.overrun_s == 0.0

    assert interrupted, "nothing took the CPU away, so nothing was shown"


def test_a_collection_of_garbage_does_not_fall_into_the_block_and_is_not_switched_off_for_good() -> None:
    collections: list[str] = []

    def note(phase: str, info: dict[str, int]) -> None:
        collections.append(phase)

    gc.callbacks.append(note)
    try:
        with Budget(MS):
            _ = [[] for _ in range(50_000)]
            inside = list(collections)
    finally:
        gc.callbacks.remove(note)

    assert inside == []
    assert gc.isenabled()


def test_garbage_collection_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        with Budget(MS):
            pass

        assert not gc.isenabled()
    finally:
        gc.enable()


def test_an_exception_comes_out_and_the_collection_is_on_again() -> None:
    with pytest.raises(ZeroDivisionError), Budget(MS):
        _ = 1 // 0

    assert gc.isenabled()


# asking for many answers


QUESTIONS = [(n, "kind") for n in range(1_000)]


def test_the_answers_have_the_order_of_the_questions() -> None:
    found = answers(lambda number, _: number % 2 == 0, MS, MS)

    assert found == [True, False] * 500


@pytest.mark.usefixtures("uninterrupted")
@pytest.mark.parametrize("slow", [lambda *_: time.sleep(0.005), lambda *_: burn(0.05)], ids=["sleeps", "burns"])
def test_a_slow_keep_is_given_up_early(slow: Callable[..., object]) -> None:
    asked: list[object] = []

    def keep(*question: object) -> bool:
        asked.append(question)
        return slow() is None

    with pytest.raises(OverBudget, match="ms for 1 answers"):
        answers(keep, MS, 0.0)

    assert len(asked) == 1


@pytest.mark.usefixtures("uninterrupted")
def test_many_small_delays_add_up() -> None:
    with pytest.raises(OverBudget):
        answers(lambda *_: time.sleep(0.000_3) is None, MS, 0.0)


@pytest.mark.parametrize("answer", [None, 1, "yes", []])
def test_what_is_neither_true_nor_false_is_no_answer(answer: Any) -> None:
    with pytest.raises(NoAnswer, match="neither True nor False"):
        answers(lambda *_: answer, MS, MS)


class Keep:
    """A `keep` on a system that does not count waits: it and other programs move the clock on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, delayed: Callable[[int], bool]) -> None:
        self.now, self.asked = 0.0, 0
        self._delayed = delayed
        monkeypatch.setattr(policy_guard, "time", SimpleNamespace(perf_counter=lambda: self.now))
        monkeypatch.setattr(policy_guard, "exact_thread_use", lambda: (0.0, None, 0))

    def __call__(self, number: int, _: str) -> bool:
        self.asked += 1
        self.now += 0.03 if self._delayed(number) else 0.000_001
        return True


def test_where_waits_are_not_counted_a_keep_is_given_up_after_a_few_delays_in_succession(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keep = Keep(monkeypatch, lambda number: True)
    with pytest.raises(OverBudget, match=f"took 30.0 ms for {DELAYS} answers"):
        answers(keep, MS, 0.0)

    assert keep.asked == DELAYS


def test_where_waits_are_not_counted_a_delay_in_each_of_a_few_runs_is_too_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keep, delays = Keep(monkeypatch, lambda number: number == 500), Delays()
    for _ in range(DELAYS - 1):
        policy_guard.answers(keep, QUESTIONS, MS, 0.000_002, delays)
    with pytest.raises(OverBudget, match="took 30"):
        policy_guard.answers(keep, QUESTIONS, MS, 0.000_002, delays)


def test_where_waits_are_not_counted_a_run_without_delay_ends_the_suspicion(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = iter(range(1000))
    keep, delays = Keep(monkeypatch, lambda number: number == 0 and next(runs) % DELAYS > 0), Delays()
    for _ in range(10 * DELAYS):
        assert len(policy_guard.answers(keep, QUESTIONS, MS, 0.000_002, delays)) == 1_000


def test_where_waits_are_not_counted_a_long_run_may_be_interrupted_again_and_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keep = Keep(monkeypatch, lambda number: number % 2_000 == 1_999)
    many = [(number, "kind") for number in range(50_000)]

    assert len(policy_guard.answers(keep, many, MS, 0.000_002, Delays())) == 50_000


@pytest.mark.usefixtures("hogs")
def test_a_quick_keep_is_not_blamed_for_interruptions_however_many_answers_there_are() -> None:
    until = time.monotonic() + 0.7
    while time.monotonic() < until:
        assert len(answers(lambda *_: True, MS, 0.000_002)) == 1_000
