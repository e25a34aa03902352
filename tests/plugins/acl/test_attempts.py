"""Failed attempts: some at once, then so many a minute, each name for itself."""

from __future__ import annotations

import pytest

from mxgw_acl.attempts import Attempts


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_is_within_the_limit_and_the_next_is_told_how_long_to_wait() -> None:
    clock = Clock()
    attempts = Attempts(10, 5, clock=clock)

    assert [attempts.failed("peer") for _ in range(5)] == [0.0] * 5
    assert attempts.failed("peer") == pytest.approx(6.0)

    clock.now += 3

    assert attempts.failed("peer") == pytest.approx(3.0)

    clock.now += 3.1

    assert attempts.failed("peer") == 0.0


def test_a_rate_is_kept_in_the_long_run_however_often_it_is_tried() -> None:
    clock = Clock()
    attempts = Attempts(10, 5, clock=clock)
    heard = 0
    for _ in range(6000):  # ten a second, for ten minutes
        heard += attempts.failed("peer") == 0.0
        clock.now += 0.1

    assert 100 <= heard <= 106


def test_names_are_counted_apart_and_any_of_them_is_enough() -> None:
    attempts = Attempts(1, 1)

    assert attempts.failed("peer a", "key x") == 0.0
    assert attempts.failed("peer b") == 0.0
    assert attempts.failed("peer c", "key x") > 0


def test_looking_costs_nothing() -> None:
    attempts = Attempts(1, 1)

    assert [attempts.wait_s("user") for _ in range(3)] == [0.0] * 3
    assert attempts.failed("user") == 0.0
    assert attempts.wait_s("user") > 0


def test_memory_is_bounded_and_the_oldest_failure_is_forgotten() -> None:
    attempts = Attempts(1, 1, capacity=100)
    for number in range(1000):
        attempts.failed(f"peer {number}")

    assert len(attempts._buckets) == 100
    assert attempts.failed("peer 0") == 0.0
    assert attempts.failed("peer 999") > 0
