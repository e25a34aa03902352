"""The events that are set aside for one reader: the gaps name exactly what was dropped from them, whatever happens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.accounts import Account, Produced
from support.events import serial_of, told
from support.overflowing import CHANGE, WRITE, happening

from mxgw.v1 import events_pb2 as e
from mxgw_core.events.backlog import Backlog
from mxgw_core.events.encoding import record_bounds
from mxgw_core.events.filters import identity_of
from mxgw_core.events.pieces import Chunk, Gap, Piece, chunk_of, packed, unpacked

DROPPED, CONFLATED = e.GAP_REASON_QUEUE_DROPPED, e.GAP_REASON_CONFLATED
OVERRUN, EPOCH_CHANGED = e.GAP_REASON_WORKER_OUTBOX_OVERRUN, e.GAP_REASON_EPOCH_CHANGED


def chunk(first: int, *items: int, server: int = 1, kind: e.EventKind.ValueType = CHANGE) -> Chunk:
    events = [happening(s, item, server=server, kind=kind) for s, item in enumerate(items, first)]
    return chunk_of(first, first + len(events) - 1, e.EventBatch(events=events).SerializeToString())


def records(part: Chunk) -> list[tuple[int, bytes]]:
    bounds = record_bounds(part.frame, part.start)
    return [(s, part.frame[start:end]) for s, (start, _, end) in enumerate(bounds, part.first)]


def backlog(*entries: Piece) -> Backlog:
    made = Backlog()
    for entry in entries:
        made.append(entry, 0.0)
    return made


def popped(queue: Backlog) -> list[Piece]:
    entries = []
    while queue:
        entries.append(queue.pop())
    return entries


def gap(first: int, last: int, reason: e.GapReason.ValueType = OVERRUN, count: int = 0) -> Gap:
    return Gap(first, last, reason, count=count)


# counting


def test_it_counts_events_and_bytes_as_they_come_and_go() -> None:
    queue = backlog(chunk(1, 1, 2, 3), gap(4, 9), chunk(10, 1))

    assert (queue.events, queue.bytes) == (4, chunk(1, 1, 2, 3).batch_bytes + chunk(10, 1).batch_bytes)

    queue.pop()

    assert queue.events == 1

    popped(queue)

    assert (queue.events, queue.bytes, bool(queue)) == (0, 0, False)


def test_the_age_is_that_of_the_oldest_entry() -> None:
    queue = Backlog()
    queue.append(chunk(1, 1), 5.0)
    queue.append(chunk(2, 1), 8.0)

    assert queue.since == 5.0

    queue.pop()

    assert queue.since == 8.0


def test_gaps_of_one_reason_side_by_side_are_one_and_others_stay_apart() -> None:
    queue = backlog(gap(1, 2, DROPPED, 2), gap(3, 5, DROPPED, 1), gap(6, 6, CONFLATED, 1), gap(7, 7), gap(8, 8))

    assert [(g.first, g.last, g.count) for g in popped(queue) if isinstance(g, Gap)] == [
        (1, 5, 3),
        (6, 6, 1),
        (7, 7, 0),
        (8, 8, 0),
    ]


# drop_oldest


@pytest.mark.parametrize(
    ("excess", "left"),
    [
        (0, [1, 2, 3, (4, 6), 7, 8]),
        (1, [(1, 1), 2, 3, (4, 6), 7, 8]),
        (3, [(1, 3), (4, 6), 7, 8]),
        (4, [(1, 7), 8]),
        (5, [(1, 8)]),
        (99, [(1, 8)]),
    ],
)
def test_dropping_the_oldest_puts_one_exact_gap_in_their_place(excess: int, left: list[object]) -> None:
    queue = backlog(chunk(1, 1, 2, 3), gap(4, 6), chunk(7, 1, 2))

    assert queue.drop_oldest(excess, "why") == min(excess, 5)
    assert told(popped(queue)) == left


def test_a_gap_between_what_is_dropped_counts_the_events_only() -> None:
    queue = backlog(chunk(1, 1, 2, 3), gap(4, 600), chunk(601, 1, 2))
    queue.drop_oldest(4, "why")
    (first, _) = popped(queue)

    assert isinstance(first, Gap)
    assert (first.first, first.last, first.count, first.reason) == (1, 601, 4, DROPPED)


def test_what_was_conflated_between_what_is_dropped_counts_with_it() -> None:
    queue = backlog(chunk(1, 1, 2), gap(3, 4, CONFLATED, 2), chunk(5, 1))
    queue.drop_oldest(3, "why")
    (first,) = popped(queue)

    assert isinstance(first, Gap)
    assert (first.first, first.last, first.count) == (1, 5, 5)


def test_a_gap_without_a_range_stays_in_front() -> None:
    queue = backlog(gap(0, 0, EPOCH_CHANGED), chunk(1, 1, 2))
    queue.drop_oldest(1, "why")
    queue.drop_oldest(1, "why")

    assert told(popped(queue)) == [(0, 0), (1, 2)]


def test_dropping_again_and_again_from_a_source_full_of_gaps_holds_no_more_than_one() -> None:
    queue = Backlog()
    sequence = 1
    for _ in range(200):
        for entry in (chunk(sequence, 1), gap(sequence + 1, sequence + 1)):
            queue.append(entry, 0.0)
        sequence += 2
        if queue.events > 3:
            queue.drop_oldest(queue.events - 3, "why")
    entries = popped(queue)

    assert len(entries) == 1 + 3 + 4
    assert told(entries)[0] == (1, sequence - 8)


# select


def test_selecting_keeps_what_is_wanted_in_few_frames_and_names_the_rest() -> None:
    queue = backlog(chunk(1, 1, 2, 1, 2, 1), gap(6, 7), chunk(8, 2, 2, 1, 1))

    assert queue.select(lambda _, keys: [key == CHANGE << 56 | serial_of(1, 1) for key in keys], "why") == 4

    entries = popped(queue)
    account = Account()
    account.take(entries)

    assert sorted(account.events) == [1, 3, 5, 10, 11]
    assert account.lost_for(DROPPED) == {2, 4, 8, 9}
    assert account.lost_for(OVERRUN) == {6, 7}
    assert [type(entry).__name__ for entry in entries] == [
        "Chunk",
        "Gap",
        "Chunk",
        "Gap",
        "Gap",
        "Chunk",
    ]


def test_selecting_asks_about_every_event_with_its_sequence_serial_and_kind_oldest_first() -> None:
    asked: list[tuple[int, int, int]] = []

    def choose(sequences: Sequence[int], keys: Sequence[int]) -> list[bool]:
        asked.extend((s, *identity_of(key)) for s, key in zip(sequences, keys, strict=True))
        return [s % 2 == 0 for s in sequences]

    queue = backlog(chunk(1, 7, server=3), gap(2, 4), chunk(5, *[9] * 10, server=300, kind=WRITE))
    dropped = queue.select(choose, "why")
    account = Account()
    account.take(popped(queue))

    assert asked == [(1, serial_of(3, 7), CHANGE), *((s, serial_of(300, 9), WRITE) for s in range(5, 15))]
    assert dropped == 6
    assert sorted(account.events) == [6, 8, 10, 12, 14]
    assert account.lost_for(DROPPED) == {1, 5, 7, 9, 11, 13}


def test_what_was_selected_can_be_selected_from_again() -> None:
    queue = backlog(chunk(1, *[1] * 12))
    queue.select(lambda sequences, _: [s % 2 == 0 for s in sequences], "why")
    queue.select(lambda sequences, _: [s % 3 == 0 for s in sequences], "why")
    account = Account()
    account.take(popped(queue))

    assert sorted(account.events) == [6, 12]
    assert account.lost_for(DROPPED) == set(range(1, 12)) - {6}


def test_a_judge_that_raises_leaves_everything_as_it_was() -> None:
    queue = backlog(chunk(1, 1, 2), gap(3, 3), chunk(4, 1, 2))
    with pytest.raises(ZeroDivisionError):
        queue.select(lambda *_: 1 // 0, "why")

    assert (queue.events, queue.since) == (4, 0.0)
    assert told(popped(queue)) == [1, 2, (3, 3), 4, 5]


# pieces


kept_of_twenty = st.sets(st.integers(1, 20)).map(sorted)


@given(kept_of_twenty, st.sets(st.integers(1, 20)))
@example([1, 2, 3, 5, 7, 8, 10], {7})
def test_what_is_kept_and_what_is_lost_is_everything_and_needs_few_frames(kept: list[int], gaps: set[int]) -> None:
    everything = dict(records(chunk(1, *([1] * 20))))
    wanted: list[tuple[int, bytes] | Gap] = [
        gap(s, s) if s in gaps else (s, everything[s]) for s in sorted({*kept, *gaps})
    ]
    entries = list(packed(0, wanted, 20, DROPPED, "why"))
    account = Account()
    account.take(entries)
    produced = Produced({s: None if s in gaps else happening(s) for s in range(1, 21)})
    produced.check(account)

    assert account.at == 20
    assert sorted(account.events) == [s for s in kept if s not in gaps]
    assert account.lost_for(OVERRUN) == gaps
    # On each side of a gap that was there before: one batch, one gap with runs and its batch, and one hole at the end.
    # The gap itself is one more entry.
    assert len(entries) <= 4 + 5 * len(gaps)


@given(kept_of_twenty)
def test_taking_pieces_apart_gives_the_same_account(kept: list[int]) -> None:
    everything = dict(records(chunk(1, *([1] * 20))))
    entries = list(packed(0, [(s, everything[s]) for s in kept], 20, DROPPED, "why"))
    apart = list(unpacked(entries))
    whole, parts = Account(), Account()
    whole.take(entries)
    parts.take(apart)

    assert (whole.events, whole.lost) == (parts.events, parts.lost)
    assert all(not entry.kept if isinstance(entry, Chunk) else not entry.runs for entry in apart)


def test_many_scattered_events_come_in_pieces_far_below_a_message_limit() -> None:
    text = "x" * 5_000
    kept: Iterable[tuple[int, bytes]] = (
        (s, e.EventBatch(events=[happening(s, text=text)]).SerializeToString()) for s in range(1, 200, 2)
    )
    entries = list(packed(0, kept, 200, CONFLATED, "why"))
    sizes = [entry.batch_bytes for entry in entries if isinstance(entry, Chunk)]

    assert max(sizes) <= 64 * 1024 + 6_000
    assert sum(sizes) > 100 * 5_000


@pytest.mark.parametrize("after", [2, 3, 5])
def test_a_chunk_with_holes_is_split_at_a_sequence(after: int) -> None:
    (_, sparse) = list(packed(0, [records(chunk(1, *range(1, 8)))[n] for n in (1, 2, 5, 6)], 7, CONFLATED, ""))[:2]
    assert isinstance(sparse, Chunk)
    head, tail = sparse.split(after)

    assert told([head]) == [s for s in (2, 3, 6, 7) if s <= after]
    assert told([tail]) == [s for s in (2, 3, 6, 7) if s > after]
    assert (head.events, tail.events) == (len(told([head])), len(told([tail])))
    assert (head.last, tail.first) == (after, after + 1)
