"""The outbox against a model that keeps everything, and the cases people ask about."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mxgw.v1.events_pb2 import (
    GAP_REASON_EVENT_TOO_LARGE,
    GAP_REASON_SOURCE_RECONNECTED,
    GAP_REASON_WORKER_OUTBOX_OVERRUN,
)
from mxgw.worker.v1.worker_pb2 import WorkerGap
from mxgw_worker.outbox import Block, Outbox

FRAME_BYTES = 4096


def outbox(events: int = 5, size_bytes: int = 100_000) -> Outbox:
    return Outbox(limit_events=events, limit_bytes=size_bytes, maximum_frame_bytes=FRAME_BYTES)


def record(sequence: int, size: int = 10) -> bytes:
    return str(sequence).encode().rjust(size, b".")


def fill(box: Outbox, count: int, size: int = 10) -> None:
    for _ in range(count):
        box.append(record(box.head_sequence + 1, size))


def drain(box: Outbox, maximum_bytes: int = 1_000_000) -> list[Block | WorkerGap]:
    out = []
    while (entry := box.take(maximum_bytes)) is not None:
        out.append(entry)
    return out


def test_what_gathered_comes_out_as_one_block() -> None:
    box = outbox()
    fill(box, 3)

    assert drain(box) == [Block(1, 3, [record(1), record(2), record(3)])]
    assert drain(box) == []


def test_a_block_ends_at_its_cap_and_a_larger_event_goes_alone() -> None:
    box = outbox(20)
    fill(box, 3, size=10)
    fill(box, 1, size=50)
    fill(box, 1, size=10)
    blocks = drain(box, 25)

    assert [(b.first_sequence, b.last_sequence) for b in blocks if isinstance(b, Block)] == [
        (1, 2),
        (3, 3),
        (4, 4),
        (5, 5),
    ]


def test_events_overwritten_before_they_were_taken_are_a_gap_in_their_place() -> None:
    box = outbox(5)
    fill(box, 2)
    drain(box)
    fill(box, 9)
    gap, block = drain(box)

    assert isinstance(gap, WorkerGap)
    assert (gap.first_lost, gap.last_lost, gap.count) == (3, 6, 4)
    assert gap.reason == GAP_REASON_WORKER_OUTBOX_OVERRUN
    assert isinstance(block, Block)
    assert (block.first_sequence, block.last_sequence) == (7, 11)
    assert box.events_lost == 4


def test_acknowledged_events_are_kept_while_there_is_room_and_come_again() -> None:
    box = outbox(5)
    fill(box, 4)
    drain(box)
    box.acknowledge(4)
    box.resume(1)

    assert drain(box) == [Block(2, 4, [record(2), record(3), record(4)])]
    assert box.oldest_sequence == 1


def test_resuming_behind_what_is_held_names_the_exact_range() -> None:
    box = outbox(5)
    for _ in range(8):
        fill(box, 1)
        drain(box)
    box.acknowledge(2)
    box.resume(2)
    gap, block = drain(box)

    assert isinstance(gap, WorkerGap)
    assert (gap.first_lost, gap.last_lost) == (3, 3)
    assert block == Block(4, 8, [record(n) for n in range(4, 9)])
    assert box.events_lost == 1


def test_resuming_behind_what_was_acknowledged_loses_nothing_that_was_not_safe() -> None:
    box = outbox(5)
    for _ in range(8):
        fill(box, 1)
        drain(box)
    box.acknowledge(8)
    box.resume(0)
    gap, _ = drain(box)

    assert isinstance(gap, WorkerGap)
    assert (gap.first_lost, gap.last_lost) == (1, 3)
    assert box.events_lost == 0


def test_resuming_beyond_the_head_sends_what_comes_next() -> None:
    box = outbox()
    fill(box, 2)
    box.resume(99)
    assert drain(box) == []
    fill(box, 1)

    assert drain(box) == [Block(3, 3, [record(3)])]


def test_resuming_beyond_the_head_hides_no_loss() -> None:
    box = outbox(5)
    box.resume(99)
    fill(box, 8)
    gap = drain(box)[0]

    assert isinstance(gap, WorkerGap)
    assert (gap.first_lost, gap.last_lost) == (1, 3)


def test_a_loss_is_counted_once_however_often_it_is_told() -> None:
    box = outbox(5)
    for _ in range(8):
        fill(box, 1)
        drain(box)
    for _ in range(3):
        box.resume(0)
        drain(box)

    assert box.events_lost == 3


def test_a_gap_of_the_source_takes_one_sequence_of_its_own() -> None:
    box = outbox()
    fill(box, 1)
    box.append_gap(GAP_REASON_SOURCE_RECONNECTED, "away", 0)
    fill(box, 1)
    first, gap, last = drain(box)

    assert isinstance(gap, WorkerGap)
    assert (gap.first_lost, gap.last_lost, gap.count, gap.detail) == (2, 2, 0, "away")
    assert first == Block(1, 1, [record(1)])
    assert last == Block(3, 3, [record(3)])


def test_an_overrun_that_swallowed_a_gap_of_the_source_does_not_claim_to_know_the_count() -> None:
    box = outbox(5)
    box.append_gap(GAP_REASON_SOURCE_RECONNECTED, "away", 0)
    fill(box, 8)
    gap = drain(box)[0]

    assert isinstance(gap, WorkerGap)
    assert (gap.first_lost, gap.last_lost, gap.count) == (1, 4, 0)


def test_an_event_larger_than_a_frame_becomes_a_gap() -> None:
    box = outbox()
    fill(box, 1)
    box.append(b"x" * FRAME_BYTES)
    fill(box, 1)
    _, gap, last = drain(box)

    assert isinstance(gap, WorkerGap)
    assert (gap.first_lost, gap.last_lost, gap.count) == (2, 2, 1)
    assert gap.reason == GAP_REASON_EVENT_TOO_LARGE
    assert "workers.frame_bytes" in gap.detail
    assert last == Block(3, 3, [record(3)])
    assert box.events_lost == 1


def test_bytes_are_bounded_too() -> None:
    box = outbox(1000, size_bytes=100)
    fill(box, 50, size=30)

    assert box.size_bytes <= 100
    assert box.depth == 3


def test_the_newest_event_stays_even_when_it_alone_is_too_much() -> None:
    box = outbox(5, size_bytes=100)
    fill(box, 1, size=10)
    fill(box, 1, size=500)

    assert isinstance(drain(box)[-1], Block)
    assert box.depth == 1


def test_two_outboxes_have_different_epochs_of_16_bytes() -> None:
    first, second = outbox(), outbox()

    assert len(first.epoch) == 16
    assert first.epoch != second.epoch


class OutboxMachine(RuleBasedStateMachine):
    """Whatever happens, a reader gets every sequence once, in order, as an event or inside a gap."""

    def __init__(self) -> None:
        super().__init__()
        self.box = outbox(events=6, size_bytes=400)
        self.written: dict[int, bytes | None] = {}
        self.reader = 0

    @rule(size=st.integers(5, 120))
    def event(self, size: int) -> None:
        sequence = self.box.head_sequence + 1
        self.written[sequence] = record(sequence, size)
        self.box.append(record(sequence, size))

    @rule()
    def too_large(self) -> None:
        self.box.append(b"x" * FRAME_BYTES)
        self.written[self.box.head_sequence] = None

    @rule()
    def source_gap(self) -> None:
        self.box.append_gap(GAP_REASON_SOURCE_RECONNECTED, "", 0)
        self.written[self.box.head_sequence] = None

    @rule(maximum_bytes=st.integers(1, 500))
    def take(self, maximum_bytes: int) -> None:
        oldest = self.box.oldest_sequence
        entry = self.box.take(maximum_bytes)
        if entry is None:
            assert self.reader == self.box.head_sequence
        elif isinstance(entry, Block):
            assert entry.first_sequence == self.reader + 1
            assert entry.records == [self.written[n] for n in range(entry.first_sequence, entry.last_sequence + 1)]
            assert len(entry.records) == 1 or sum(map(len, entry.records)) <= maximum_bytes
            self.reader = entry.last_sequence
        else:
            assert entry.first_lost == self.reader + 1
            if entry.reason == GAP_REASON_WORKER_OUTBOX_OVERRUN:
                assert entry.last_lost == oldest - 1  # no gap while the range is still held
            else:
                assert self.written[entry.first_lost] is None
                assert entry.first_lost == entry.last_lost
            self.reader = entry.last_lost

    @rule(data=st.data())
    @precondition(lambda self: self.box.head_sequence > 0)
    def acknowledge(self, data: st.DataObject) -> None:
        sequence = data.draw(st.integers(0, self.box.head_sequence + 2))
        self.box.acknowledge(sequence)

        assert self.box.acknowledged <= self.box.head_sequence

    @rule(data=st.data())
    def resume(self, data: st.DataObject) -> None:
        after = data.draw(st.integers(0, self.box.head_sequence))
        self.box.resume(after)
        self.reader = after

    @invariant()
    def within_its_limits(self) -> None:
        box = self.box
        assert box.depth <= 6
        assert box.size_bytes <= 400 or box.depth == 1
        assert box.oldest_sequence == box.head_sequence - box.depth + 1


TestOutboxMachine = OutboxMachine.TestCase
TestOutboxMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
