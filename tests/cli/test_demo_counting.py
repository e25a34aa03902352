"""What the demo counts: sequences, latencies, rates; and what it shows of MXAccess."""

from __future__ import annotations

import asyncio
import random
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxgw_cli.demo.board import Board, Rate, SequenceLedger
from mxgw_cli.demo.following import tags_to_show
from mxgw_cli.demo.options import DemoOptions
from mxgw_cli.latency import LatencyHistogram
from mxgw_cli.shell import CliFailure
from mxgw_client import Session


def ledger_of(*sequences: int) -> SequenceLedger:
    ledger = SequenceLedger()
    ledger.opened(b"epoch", 0)
    for sequence in sequences:
        ledger.event(sequence)
    return ledger


def test_an_unbroken_run_is_flawless() -> None:
    ledger = ledger_of(*range(1, 101))

    assert (ledger.events, ledger.gaps, ledger.duplicates, ledger.out_of_order) == (100, 0, 0, 0)


def test_a_hole_that_nobody_announced_is_a_gap() -> None:
    assert ledger_of(1, 2, 5).gaps == 1


def test_a_gap_that_was_announced_counts_once() -> None:
    ledger = ledger_of(1, 2)
    ledger.gap(4)
    ledger.event(5)

    assert (ledger.gaps, ledger.silent_gaps) == (1, 0)


def test_a_repeated_event_is_a_duplicate() -> None:
    assert ledger_of(1, 2, 2, 1).duplicates == 2


def test_a_late_event_is_out_of_order_the_first_time_and_a_duplicate_the_second() -> None:
    ledger = ledger_of(1, 4, 2, 2)

    assert (ledger.out_of_order, ledger.duplicates) == (1, 1)


def test_a_new_epoch_starts_counting_anew_and_the_same_one_goes_on() -> None:
    ledger = ledger_of(1, 2, 3)
    ledger.opened(b"epoch", 3)
    ledger.event(4)
    ledger.opened(b"other", 0)
    ledger.event(1)

    assert (ledger.events, ledger.gaps, ledger.duplicates) == (5, 0, 0)


@given(st.permutations(list(range(1, 30))))
def test_any_order_of_all_events_has_no_duplicate(order: list[int]) -> None:
    ledger = ledger_of(*order)

    assert ledger.duplicates == 0
    assert ledger.events == 29


def test_percentiles_are_right_to_about_one_percent() -> None:
    histogram = LatencyHistogram()
    values = [random.Random(7).lognormvariate(0, 1.5) for _ in range(20_000)]
    for value in values:
        histogram.add(value)
    values.sort()

    assert histogram.percentile(0.5) == pytest.approx(values[10_000], rel=0.03)
    assert histogram.percentile(0.99) == pytest.approx(values[19_800], rel=0.03)


def test_no_latency_has_no_percentile_and_a_clock_set_back_breaks_nothing() -> None:
    histogram = LatencyHistogram()

    assert histogram.percentile(0.5) is None
    histogram.add(-5.0)
    histogram.add(1e12)
    assert histogram.percentile(0.5) == pytest.approx(0.001)


def test_a_steady_rate_is_shown_from_the_start() -> None:
    rate = Rate(100.0)
    for step in range(10):
        rate.count(100.0 + step / 10)

    assert rate.per_second(101.0) == pytest.approx(10, rel=0.15)
    assert rate.per_second(200.0) == pytest.approx(0, abs=0.01)


def test_a_failed_data_change_keeps_the_last_good_value() -> None:
    board = Board("t", 0.0)
    board.name_tags([(1, "Tank.Level")])
    board.data_change(1.0, 1, 20.5, 192, 1.5e9, "")
    board.data_change(2.0, 1, None, 0, None, "invalid reference")
    row = board.rows[1]

    assert (row.value, row.raw_quality, row.source_time_s) == (20.5, 192, 1.5e9)
    assert row.failure == "invalid reference"


def test_values_that_came_before_their_names_are_kept() -> None:
    board = Board("t", 0.0)
    board.data_change(1.0, 7, 3, 192, None, "")
    board.name_tags([(5, "First"), (7, "Second")])

    assert [(row.tag, row.value) for row in board.rows.values()] == [("First", None), ("Second", 3)]


def test_tags_that_change_come_first_and_those_that_only_got_their_first_value_do_not() -> None:
    board = Board("t", 0.0)
    board.name_tags([(1, "Still"), (2, "Moving")])
    for handle, values in ((1, [None, 5]), (2, [1, 2])):
        for value in values:
            board.data_change(1.0, handle, value, 192 if value is not None else 32, None, "")

    assert [row.tag for row in board.rows_by_interest()] == ["Moving", "Still"]


def test_values_of_bad_quality_stay_out_of_the_trend() -> None:
    board = Board("t", 0.0)
    for value, quality in ((0.0, 32), (5.0, 192), (6.0, 192), (0.0, 24)):
        board.data_change(1.0, 1, value, quality, None, "")

    assert list(board.rows[1].trend) == [5.0, 6.0]


def test_mxaccess_shows_the_tags_that_are_named_and_asks_for_names_otherwise() -> None:
    unused = cast("Session", None)  # only objects are browsed
    tags = asyncio.run(tags_to_show(unused, DemoOptions("mxaccess", None, tags=["Tank_001.Level"])))

    assert tags == ["Tank_001.Level"]

    with pytest.raises(CliFailure, match="MXAccess lists no objects: name one with --object, or tags with") as refused:
        asyncio.run(tags_to_show(unused, DemoOptions("mxaccess", None)))

    assert refused.value.exit_code == 2
