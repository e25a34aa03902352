"""The event log, from which live streams and resumed streams read in the same way."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.events import Clock, batch, sequences_of

from mxgw.v1 import events_pb2 as e
from mxgw_core.events.log import SEGMENT_BYTES, SEGMENT_EVENTS, SHARED_BYTES, SHARED_CHUNKS, EventLog, OutOfOrder
from mxgw_core.events.pieces import Chunk, Gap

RECONNECTED = e.GAP_REASON_SOURCE_RECONNECTED
OVERRUN = e.GAP_REASON_WORKER_OUTBOX_OVERRUN


class Filled:
    """A log filled from a plan of (is_gap, count), together with simple records of its gaps and events."""

    def __init__(self, plan: list[tuple[bool, int]], *, text: str = "") -> None:
        self.clock = Clock()
        self.log = EventLog(self.clock)
        self.gaps: list[Gap] = []
        self.records: dict[int, bytes] = {}
        for is_gap, count in plan:
            first, last = self.log.head + 1, self.log.head + count
            if is_gap:
                gap = Gap(first, last, OVERRUN, "lost", count)
                self.gaps.append(gap)
                self.log.append_gap(gap)
            else:
                for sequence in range(first, last + 1):
                    self.records[sequence] = batch([sequence], text=text)
                self.log.append(first, last, b"".join(self.records[s] for s in range(first, last + 1)))


plans = st.lists(st.tuples(st.booleans(), st.integers(1, 7)), max_size=12)


@given(plans, st.sampled_from([0, 1, 20, 60, 200, 1 << 20]), st.sampled_from(["", "x" * 50]))
def test_reading_from_every_position_with_every_limit_gives_what_was_appended(
    plan: list[tuple[bool, int]], limit_bytes: int, text: str
) -> None:
    filled = Filled(plan, text=text)
    log = filled.log
    for start in range(log.head + 1):
        after = start
        while (read := log.read(after, limit_bytes)) is not None:
            assert read.first == after + 1

            if isinstance(read, Gap):
                gap = next(g for g in filled.gaps if g.first <= read.first <= g.last)

                assert (read.last, read.reason) == (gap.last, gap.reason)
                assert read is gap or read.first > gap.first
            else:
                assert sequences_of(read) == list(range(read.first, read.last + 1))
                assert read.batch == b"".join(filled.records[s] for s in range(read.first, read.last + 1))
            after = read.last

        assert after == log.head


@given(plans, st.sampled_from([1, 20, 60, 200]))
def test_a_read_beyond_its_limit_is_one_worker_block(plan: list[tuple[bool, int]], limit_bytes: int) -> None:
    filled = Filled(plan)
    ends: list[int] = []
    total = 0
    for is_gap, count in plan:
        total += count
        if not is_gap:
            ends.append(total)
    for after in range(filled.log.head):
        read = filled.log.read(after, limit_bytes)
        if isinstance(read, Chunk) and read.batch_bytes > limit_bytes:
            assert read.last == min(end for end in ends if end > after)


@given(plans, st.integers(0, 60), st.integers(0, 20))
def test_skip_and_after_count_events_and_not_sequences(plan: list[tuple[bool, int]], after: int, events: int) -> None:
    filled = Filled(plan)
    log, records = filled.log, filled.records
    after = min(after, log.head)
    behind = [s for s in records if s > after]

    assert log.after(after) == (len(behind), sum(len(records[s]) for s in behind))

    expected = after if events == 0 else behind[events - 1] if events <= len(behind) else log.head

    assert log.skip(after, events) == expected
    assert (log.events, log.appended_events) == (len(records), len(records))
    assert log.bytes == log.appended_bytes == sum(map(len, records.values()))


def test_blocks_are_merged_into_segments_of_bounded_size() -> None:
    log = EventLog(Clock())
    for sequence in range(1, 3 * SEGMENT_EVENTS + 1):
        log.append(sequence, sequence, batch([sequence]))

    assert len(log._entries) == 3

    big = batch([log.head + 1], text="x" * SEGMENT_BYTES)
    log.append(log.head + 1, log.head + 1, big)
    log.append(log.head + 1, log.head + 1, batch([log.head + 1]))

    assert len(log._entries) == 5


def test_two_readers_at_one_place_share_the_bytes_and_an_append_ends_the_sharing() -> None:
    log = EventLog(Clock())
    log.append(1, 2, batch([1, 2]))
    first = log.read(0, 1000)

    assert log.read(0, 1000) is first

    log.append(3, 3, batch([3]))
    second = log.read(0, 1000)

    assert isinstance(first, Chunk)
    assert isinstance(second, Chunk)
    assert sequences_of(first) == [1, 2]
    assert sequences_of(second) == [1, 2, 3]


def test_a_large_message_is_shared_with_readers_that_come_a_moment_later_and_nothing_is_missing_then() -> None:
    log = EventLog(Clock())
    log.append(1, 2, batch([1, 2], text="x" * SEGMENT_BYTES))
    first = log.read(0, 1 << 20)
    log.append(3, 3, batch([3]))

    assert log.read(0, 1 << 20) is first

    rest = log.read(2, 1 << 20)

    assert isinstance(rest, Chunk)
    assert sequences_of(rest) == [3]

    log.trim(3, 0, 0, 0.0)
    log.append(4, 4, batch([4]))
    with pytest.raises(LookupError):
        log.read(0, 1 << 20)


def test_for_one_reader_alone_no_large_message_is_kept() -> None:
    log = EventLog(Clock())
    log.append(1, 1, batch([1], text="x" * 40_000))
    log.is_shared = False

    first, again = log.read(0, 1 << 20), log.read(0, 1 << 20)

    assert first == again
    assert first is not again


def test_no_more_than_a_few_large_messages_are_kept() -> None:
    log = EventLog(Clock())
    for sequence in range(1, 20):
        log.append(sequence, sequence, batch([sequence], text="x" * SEGMENT_BYTES))
        log.read(sequence - 1, 1 << 20)

    assert len(log._shared) <= 5


@pytest.mark.parametrize("text", ["x", "x" * 2_000])
def test_readers_at_many_places_of_a_log_that_does_not_grow_take_bounded_memory(text: str) -> None:
    log = EventLog(Clock())
    log.append(1, 4_000, batch(range(1, 4_001), text=text))
    for after in range(0, 2_000, 10):
        read = log.read(after, 512 * 1024)

        assert isinstance(read, Chunk)
        assert read.first == after + 1
        # The chunk that was read last is stored for the next reader, whatever was read before it.
        assert log.read(after, 512 * 1024) is read
        assert len(log._shared) <= SHARED_CHUNKS
        held = sum(len(chunk.frame) for chunk in log._shared.values())
        assert held == log._shared_bytes
        assert held <= SHARED_BYTES or len(log._shared) == 1


def test_readers_that_are_behind_at_different_places_meet_and_share_from_there_on() -> None:
    log = EventLog(Clock())
    for first in range(1, 20_001, 100):
        log.append(first, first + 99, batch(list(range(first, first + 100)), text="x" * 60))
    limit = 4 * SEGMENT_BYTES
    ends: list[list[Chunk]] = [[], []]
    for reached, after in zip(ends, (0, 700), strict=True):
        while (chunk := log.read(after, limit)) is not None and chunk.last < log.head:
            assert isinstance(chunk, Chunk)
            reached.append(chunk)
            after = chunk.last

    # The two readers share all chunks except the first chunk of each.
    assert len(ends[0]) > 2
    assert [id(chunk) for chunk in ends[0][1:]] == [id(chunk) for chunk in ends[1][1:]]


def test_forgetting_what_was_read_leaves_what_is_shared_of_the_rest() -> None:
    log = EventLog(Clock())
    for first in range(1, 4_001, 500):
        log.append(first, first + 499, batch(list(range(first, first + 500)), text="x" * 60))
    shared = log.read(2_000, SEGMENT_BYTES)

    assert log.trim(2_000, 0, 0, 0) is not None
    assert log.read(2_000, SEGMENT_BYTES) is shared
    with pytest.raises(LookupError):
        log.read(0, SEGMENT_BYTES)


@pytest.mark.parametrize(("first", "last"), [(2, 2), (4, 4), (3, 2), (0, 3), (1, 3)])
def test_what_does_not_follow_the_head_is_refused_and_changes_nothing(first: int, last: int) -> None:
    log = EventLog(Clock())
    log.append(1, 2, batch([1, 2]))
    with pytest.raises(OutOfOrder):
        log.append(first, last, batch(range(first, last + 1)))
    with pytest.raises(OutOfOrder):
        log.append_gap(Gap(first, last, OVERRUN))

    assert (log.head, log.events) == (2, 2)


def test_reading_from_before_what_is_held_is_an_error_and_never_a_silent_jump() -> None:
    log = EventLog(Clock())
    for sequence in range(1, SEGMENT_EVENTS + 2):
        log.append(sequence, sequence, batch([sequence]))
    log.trim(log.head, 1, 1 << 30, 0.0)

    assert log.oldest == SEGMENT_EVENTS + 1
    with pytest.raises(LookupError):
        log.read(SEGMENT_EVENTS - 1, 1000)
    assert isinstance(log.read(SEGMENT_EVENTS, 1000), Chunk)


def test_the_newest_block_is_read_as_it_came_and_gone_once_it_is_forgotten() -> None:
    log = EventLog(Clock())
    log.append(1, 2, batch([1, 2]))
    log.append(3, 5, batch([3, 4, 5]))

    newest, rest = log.read(2, 1000), log.read(3, 1000)
    assert isinstance(newest, Chunk)
    assert isinstance(rest, Chunk)
    assert (newest.first, newest.last, newest.batch) == (3, 5, batch([3, 4, 5]))
    assert (rest.first, rest.last, rest.batch) == (4, 5, batch([4, 5]))

    log.trim(log.head, 0, 0, 0.0)
    with pytest.raises(LookupError):
        log.read(2, 999)


def test_a_log_that_begins_later_has_no_events_before() -> None:
    log = EventLog(Clock())
    log.start_after(41)
    log.append(42, 42, batch([42]))

    assert (log.oldest, log.head) == (42, 42)
    with pytest.raises(OutOfOrder):
        log.start_after(50)


@given(
    plans,
    st.integers(0, 60),
    st.integers(0, 40),
    st.sampled_from([0, 100, 1 << 20]),
)
def test_trim_forgets_whole_entries_and_never_beyond_what_was_allowed(
    plan: list[tuple[bool, int]], floor: int, events: int, limit_bytes: int
) -> None:
    filled = Filled(plan)
    log = filled.log
    floor = min(floor, log.head)
    before = log.oldest
    forgotten = log.trim(floor, events, limit_bytes, 0.0)
    held = [s for s in filled.records if s >= log.oldest]

    assert log.events == len(held)
    assert log.bytes == sum(len(filled.records[s]) for s in held)
    assert log.oldest - 1 <= max(floor, before - 1)

    if forgotten is None:
        assert log.oldest == before
    else:
        assert (forgotten.first, forgotten.last) == (before, log.oldest - 1)
        # If one segment less had been dropped, the log would have kept more than it had to: what is left is enough.
        gaps = sum(gap.first >= log.oldest for gap in filled.gaps)
        assert len(held) + gaps >= events or log.bytes >= limit_bytes


def test_with_nothing_to_retain_everything_read_is_forgotten_and_nothing_else() -> None:
    log = Filled([(False, 2), (True, 3), (False, 2)]).log

    assert log.trim(1, 0, 0, 0.0) is None  # a reader still reads this entry
    assert log.trim(5, 0, 0, 0.0) == Gap(1, 5, e.GAP_REASON_RING_EVICTED)
    assert log.oldest == 6


def test_a_released_log_holds_nothing_and_keeps_its_numbering_and_counts() -> None:
    log = Filled([(False, 2), (True, 3), (False, 2)]).log
    log.read(5, 1000)

    log.release()

    assert (log.events, log.bytes, log.oldest, log.head, log.appended_events) == (0, 0, 8, 7, 4)
    assert log.read(log.head, 1000) is None
    with pytest.raises(LookupError):
        log.read(log.head - 2, 1000)
    assert log.after(log.head) == (0, 0)
    assert log.trim(log.head, 0, 0, 0.0) is None


def test_a_gap_is_retained_like_an_event() -> None:
    log = EventLog(Clock())
    gap = Gap(1, 1, RECONNECTED, "the source was away")
    log.append_gap(gap)
    log.append(2, 3, batch([2, 3]))

    assert log.trim(log.head, 100, 1 << 20, 0.0) is None
    assert log.read(0, 1000) is gap


def test_a_source_that_only_fails_does_not_fill_the_memory() -> None:
    log = EventLog(Clock())
    for sequence in range(1, 1001):
        log.append_gap(Gap(sequence, sequence, RECONNECTED))
        log.trim(log.head, 10, 1 << 20, 0.0)

    assert log.oldest == 991


def test_age_lets_go_of_what_counts_and_bytes_would_keep() -> None:
    clock = Clock()
    log = EventLog(clock)
    log.append_gap(Gap(1, 1, RECONNECTED))
    log.append(2, 3, batch([2, 3]))
    clock.now += 9

    assert log.trim(log.head, 100, 1 << 20, 10.0) is None

    clock.now += 2

    assert log.trim(log.head, 100, 1 << 20, 10.0) == Gap(1, 3, e.GAP_REASON_RING_EVICTED)


def test_the_age_of_an_event_is_its_own_and_not_its_neighbours() -> None:
    clock = Clock(100.0)
    log = EventLog(clock)
    for sequence in (1, 2, 3):
        log.append(sequence, sequence, batch([sequence]))
        clock.now += 10

    assert [log.appended_at(sequence) for sequence in (1, 2, 3)] == [100, 110, 120]
