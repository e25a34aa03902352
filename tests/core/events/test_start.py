"""The place where a subscriber begins: each row of the table of start places."""

from __future__ import annotations

import pytest
from support.events import EPOCH, OTHER_EPOCH, Clock, batch

from mxgw.v1 import events_pb2 as e
from mxgw_core.api.types import Position
from mxgw_core.events.log import EventLog
from mxgw_core.events.pieces import Gap
from mxgw_core.events.start import Start, decide


def _log(*, head: int, oldest: int) -> EventLog:
    log = EventLog(Clock())
    log.start_after(oldest - 1)
    if head >= oldest:
        log.append(oldest, head, batch(range(oldest, head + 1)))
    return log


@pytest.mark.parametrize(("start", "cursor"), [(Start.NOW, 10), (Start.OLDEST_RETAINED, 4)])
def test_without_a_position_nothing_is_lost_and_nothing_recovered(start: Start, cursor: int) -> None:
    place = decide(_log(head=10, oldest=5), EPOCH, start)

    assert (place.cursor, place.was_resuming, place.recovered, place.gap) == (cursor, False, False, None)


@pytest.mark.parametrize("sequence", [4, 5, 9, 10])
def test_a_position_within_the_log_is_recovered(sequence: int) -> None:
    place = decide(_log(head=10, oldest=5), EPOCH, Position(EPOCH, sequence))

    assert (place.cursor, place.was_resuming, place.recovered, place.gap) == (sequence, True, True, None)


@pytest.mark.parametrize("sequence", [0, 1, 3])
def test_a_position_older_than_the_log_is_told_exactly_what_is_lost(sequence: int) -> None:
    place = decide(_log(head=10, oldest=5), EPOCH, Position(EPOCH, sequence))

    assert place.gap is not None
    assert (place.gap.first, place.gap.last) == (sequence + 1, 4)
    assert place.gap.reason == e.GAP_REASON_RING_EVICTED
    assert (place.cursor, place.was_resuming, place.recovered) == (4, True, False)


def test_a_position_before_an_empty_log_lost_everything_up_to_the_head() -> None:
    place = decide(_log(head=10, oldest=11), EPOCH, Position(EPOCH, 7))

    assert place.gap is not None
    assert (place.gap.first, place.gap.last, place.gap.reason) == (8, 10, e.GAP_REASON_RING_EVICTED)
    assert (place.cursor, place.recovered) == (10, False)


def test_the_head_of_an_empty_log_is_recovered() -> None:
    assert decide(_log(head=10, oldest=11), EPOCH, Position(EPOCH, 10)).recovered


@pytest.mark.parametrize("sequence", [11, 2**64 - 1])
def test_a_position_ahead_of_the_head_is_never_caught_up(sequence: int) -> None:
    place = decide(_log(head=10, oldest=5), EPOCH, Position(EPOCH, sequence))

    assert place.gap is not None
    assert (place.gap.first, place.gap.last, place.gap.reason) == (0, 0, e.GAP_REASON_CURSOR_AHEAD)
    assert (place.cursor, place.was_resuming, place.recovered) == (10, True, False)


@pytest.mark.parametrize("sequence", [0, 7, 10, 5000])
def test_a_position_of_another_epoch_starts_at_the_oldest_with_a_gap_of_unknown_size(sequence: int) -> None:
    place = decide(_log(head=10, oldest=5), EPOCH, Position(OTHER_EPOCH, sequence))

    assert place.gap is not None
    assert (place.gap.first, place.gap.last, place.gap.reason) == (0, 0, e.GAP_REASON_EPOCH_CHANGED)
    assert (place.cursor, place.was_resuming, place.recovered) == (4, True, False)


@pytest.mark.parametrize(("sequence", "recovered"), [(4, False), (9, False), (10, False), (11, False), (12, True)])
def test_a_gap_within_the_log_is_no_complete_resume_for_who_stands_before_its_end(
    sequence: int, recovered: bool
) -> None:
    log = _log(head=10, oldest=5)
    log.append_gap(Gap(11, 12, e.GAP_REASON_SOURCE_OVERFLOW))
    log.append(13, 14, batch([13, 14]))
    place = decide(log, EPOCH, Position(EPOCH, sequence))

    assert (place.cursor, place.recovered, place.gap) == (sequence, recovered, None)


@pytest.mark.parametrize(("older_until", "recovered"), [(None, False), (0, False), (3, False), (4, True), (9, True)])
def test_a_store_that_reaches_to_the_log_completes_a_resume(older_until: int | None, recovered: bool) -> None:
    assert decide(_log(head=10, oldest=5), EPOCH, Position(EPOCH, 1), older_until).recovered is recovered


def test_a_store_does_not_complete_a_resume_over_a_gap_within_the_log() -> None:
    log = _log(head=10, oldest=5)
    log.append_gap(Gap(11, 12, e.GAP_REASON_SOURCE_OVERFLOW))

    assert not decide(log, EPOCH, Position(EPOCH, 1), older_until=10).recovered


OUTBOX, RETENTION = "raise workers.outbox_events and workers.outbox_bytes", "retention, or resume sooner"


@pytest.mark.parametrize(
    ("begun_after", "oldest", "position", "named"),
    [
        pytest.param(0, 5, 0, {RETENTION}, id="a log from the beginning"),
        pytest.param(4, 5, 1, {OUTBOX}, id="a log that a worker refilled"),
        pytest.param(4, 9, 4, {RETENTION}, id="it had all behind the position"),
        pytest.param(4, 9, 3, {OUTBOX, RETENTION}, id="it had a part of that"),
    ],
)
def test_the_gap_names_the_settings_that_would_have_kept_what_is_missing(
    begun_after: int, oldest: int, position: int, named: set[str]
) -> None:
    log = EventLog(Clock())
    log.start_after(begun_after)
    for sequence in range(begun_after + 1, 11):
        log.append(sequence, sequence, batch([sequence]))
        log.segment_s = -1.0
    log.trim(oldest - 1, 0, 0, 0.0)
    place = decide(log, EPOCH, Position(EPOCH, position))

    assert place.gap is not None
    assert (log.oldest, place.gap.first, place.gap.last) == (oldest, position + 1, oldest - 1)
    assert {remedy for remedy in (OUTBOX, RETENTION) if remedy in place.gap.detail} == named
