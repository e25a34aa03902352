"""Random sequences of actions on a distributor, compared with a small model.

The model knows only what was appended and what can be lost. Checked invariants (docs/reference/streams.md#the-promises:
ordered, unique, complete, progress, resumable, minimal, ended): each subscriber gets each sequence after its start
exactly once and in order, as an event or inside one gap, and gaps come only where the model allows them.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support.distributing import NO_LIMITS, Items, Pump, Told
from support.events import EPOCH, OTHER_EPOCH, batch, sequences_of

from mxgw.v1 import events_pb2 as e
from mxgw_core.api.errors import SessionEnded
from mxgw_core.api.events import Disconnect, DropNewest, DropOldest, QueueLimits, Retention
from mxgw_core.api.types import Position
from mxgw_core.events.log import OutOfOrder
from mxgw_core.events.pieces import Chunk, Gap
from mxgw_core.events.sources import Ending, Refusing
from mxgw_core.events.start import Start
from mxgw_core.events.subscriber import End, Output, Progress, Subscriber

CLOSED = SessionEnded("the session ended", close_reason="CLIENT")
EVICTED, DROPPED = e.GAP_REASON_RING_EVICTED, e.GAP_REASON_QUEUE_DROPPED
OVERRUN, AHEAD, EPOCH_CHANGED = (
    e.GAP_REASON_WORKER_OUTBOX_OVERRUN,
    e.GAP_REASON_CURSOR_AHEAD,
    e.GAP_REASON_EPOCH_CHANGED,
)

limits = st.one_of(
    st.just(NO_LIMITS),
    st.builds(
        QueueLimits, events=st.integers(0, 12), bytes=st.sampled_from([0, 150, 600]), seconds=st.sampled_from([0, 5.0])
    ),
)
answers = st.one_of(
    st.just(Disconnect()), st.builds(DropOldest, st.integers(0, 8)), st.builds(DropNewest, st.integers(0, 8))
)


@dataclass
class Reader:
    """What the model knows of one subscriber."""

    subscriber: Subscriber
    policy: Told
    # The subscriber got, filtered out or lost every sequence up to this one. Whatever comes next must begin with the
    # next.
    at: int
    # The gap that must come first, as first sequence, last sequence and reason; None when no gap is allowed there.
    opening: tuple[int, int, int] | None
    odd_only: bool
    has_limits: bool
    ended: bool = False


class DistributorMachine(RuleBasedStateMachine):
    @initialize(unattached=st.integers(1, 30), retained=st.integers(0, 30))
    def begin(self, unattached: int, retained: int) -> None:
        self.pump = Pump(unattached=Retention(unattached, 1 << 20, 0.0))
        self.distributor = self.pump.distributor
        self.distributor.retain(Retention(retained, 1 << 20, 0.0))
        # Key: a sequence. Value: the item handle of its event; None when it lies inside a gap that the worker reported.
        self.world: dict[int, int | None] = {}
        self.readers: list[Reader] = []
        self.over = False

    # the worker

    @rule(count=st.integers(1, 8), item=st.integers(1, 4), size=st.sampled_from([0, 0, 30, 30_000]))
    def append(self, count: int, item: int, size: int) -> None:
        first, last = self.pump.head + 1, self.pump.head + count
        data = batch(range(first, last + 1), item_handle=item, text="x" * size)
        self.distributor.append(first, last, data)
        self.world.update(dict.fromkeys(range(first, last + 1), item))

    @rule(count=st.integers(1, 20))
    def append_gap(self, count: int) -> None:
        first, last = self.pump.head + 1, self.pump.head + count
        self.distributor.append_gap(Gap(first, last, OVERRUN))
        self.world.update(dict.fromkeys(range(first, last + 1)))

    @rule(shift=st.sampled_from([-1, 1, 5]))
    def append_out_of_order(self, shift: int) -> None:
        first = self.pump.head + 1 + shift
        try:
            self.distributor.append(first, first, batch([first]) if first > 0 else b"")
        except OutOfOrder:
            return
        raise AssertionError("a block out of order was taken")

    @rule()
    def flush(self) -> None:
        self.distributor.flush()

    @rule(item=st.integers(1, 4))
    def burst(self, item: int) -> None:
        """Exceed the limits of readers that have limits, and append more after their policies have acted."""
        for _ in range(3):
            self.append(8, item, 0)
            self.flush()

    @rule(seconds=st.sampled_from([0.5, 6.0]))
    def time_passes(self, seconds: float) -> None:
        self.pump.clock.now += seconds

    # subscribers

    @rule(
        start=st.one_of(
            st.sampled_from([Start.NOW, Start.OLDEST_RETAINED]),
            st.builds(Position, st.sampled_from([EPOCH, EPOCH, EPOCH, OTHER_EPOCH]), st.integers(0, 120)),
        ),
        limits=limits,
        answer=answers,
        odd_only=st.booleans(),
    )
    def attach(self, start: Start | Position, limits: QueueLimits, answer: object, odd_only: bool) -> None:
        self.distributor.trim()
        oldest, head = self.distributor.log.oldest, self.pump.head
        never = self.distributor.never_delivered
        policy = Told(answer)
        filters = [Items({1, 3})] if odd_only else []
        if self.over:
            with pytest.raises(SessionEnded) as refused:
                self.pump.attach(start, limits=limits, policy=policy, filters=filters)

            assert refused.value is CLOSED
            return
        subscriber = self.pump.attach(start, limits=limits, policy=policy, filters=filters)
        at, opening = head, None
        match start:
            case Start.OLDEST_RETAINED if never is not None:
                at, opening = never.first - 1, (never.first, oldest - 1, EVICTED)
            case Start.OLDEST_RETAINED:
                at = oldest - 1
            case Position(epoch, _) if epoch != EPOCH:
                at, opening = oldest - 1, (0, 0, EPOCH_CHANGED)
            case Position(_, sequence) if sequence > head:
                opening = (0, 0, AHEAD)
            case Position(_, sequence):
                at = sequence
                if sequence < oldest - 1:
                    opening = (sequence + 1, oldest - 1, EVICTED)

        lost_behind = any(item is None for sequence, item in self.world.items() if sequence > at)

        assert subscriber.place.recovered == (isinstance(start, Position) and opening is None and not lost_behind)
        assert subscriber.place.was_resuming == isinstance(start, Position)

        self.readers.append(Reader(subscriber, policy, at, opening, odd_only, limits != NO_LIMITS))

    @precondition(lambda self: self.readers)
    @rule(which=st.integers(0, 99), limit_bytes=st.sampled_from([1, 60, 300, 1 << 20]))
    def take(self, which: int, limit_bytes: int) -> None:
        self.next_of(self.readers[which % len(self.readers)], limit_bytes)

    @precondition(lambda self: self.readers)
    @rule(which=st.integers(0, 99))
    def take_all(self, which: int) -> None:
        reader = self.readers[which % len(self.readers)]
        while not reader.ended and self.next_of(reader, 200) is not None:
            pass

    def next_of(self, reader: Reader, limit_bytes: int) -> Output | None:
        """Take the next item of a reader, check it, and return it."""
        item = reader.subscriber.take(limit_bytes)
        match item:
            case Chunk():
                self.sees_events(reader, item)
            case Gap():
                self.sees_gap(reader, item)
            case Progress(sequence):
                self.passes_over(reader, sequence)
            case End(error):
                reader.ended = True
                # Everything that was unread when the stream ended has been delivered before.
                assert error is CLOSED or error.reason == "SUBSCRIBER_OVERFLOW"
                assert reader.opening is None
            case None:
                assert reader.subscriber.end_error is None
                self.passes_over(reader, reader.subscriber.delivered)
                # Also a reader that refuses events gets the gap for them as soon as its backlog is read.
                assert reader.at == self.pump.head
        if not (isinstance(item, Gap) and item.last == 0):
            assert reader.subscriber.delivered <= reader.at
        return item

    def sees_events(self, reader: Reader, chunk: Chunk) -> None:
        assert reader.opening is None
        assert chunk.first == reader.at + 1 or reader.odd_only

        expected = [s for s in range(reader.at + 1, chunk.last + 1) if not reader.odd_only or self.world[s] in (1, 3)]

        assert all(self.world[s] is not None for s in range(reader.at + 1, chunk.last + 1))
        assert sequences_of(chunk) == expected

        reader.at = chunk.last

    def passes_over(self, reader: Reader, until: int) -> None:
        """Assert that the reader need not get any event from its place up to `until`, and move its place there."""
        hidden = [self.world[s] for s in range(reader.at + 1, until + 1)]

        assert not hidden or (reader.odd_only and set(hidden) <= {2, 4})

        reader.at = max(reader.at, until)

    def sees_gap(self, reader: Reader, gap: Gap) -> None:
        if reader.opening is not None:
            assert (gap.first, gap.last, gap.reason) == reader.opening
            reader.opening = None
            if gap.last:
                reader.at = gap.last
            return
        self.passes_over(reader, gap.first - 1)

        assert gap.first == reader.at + 1
        assert gap.first <= gap.last <= self.pump.head

        if gap.reason == DROPPED:
            assert reader.policy.asked, "dropped without having been asked"
            assert not isinstance(reader.policy.answer, Disconnect)
        else:
            assert gap.reason == OVERRUN
            assert all(self.world[s] is None for s in range(gap.first, gap.last + 1))
        reader.at = gap.last

    @precondition(lambda self: self.readers)
    @rule(which=st.integers(0, 99))
    def detach(self, which: int) -> None:
        reader = self.readers.pop(which % len(self.readers))

        assert self.distributor.detach(reader.subscriber) == (not self.readers)

    @precondition(lambda self: self.readers)
    @rule(which=st.integers(0, 99), limit_bytes=st.sampled_from([1, 200]))
    def cut_and_resume(self, which: int, limit_bytes: int) -> None:
        reader = self.readers[which % len(self.readers)]
        if self.over or reader.opening is not None:
            return
        after = reader.subscriber.delivered
        self.detach(which)
        # For a reader without a filter, `delivered` is exactly its place.
        assert reader.odd_only or after == reader.at
        self.attach(Position(EPOCH, after), NO_LIMITS, Disconnect(), reader.odd_only)

    @rule(now=st.integers(0, 9))
    def may_end(self, now: int) -> None:
        # Only one time in ten, because a distributor that lives long is of more use to the test.
        if now == 0:
            self.end()

    def end(self) -> None:
        self.distributor.end(CLOSED)
        self.over = True

    # always

    @invariant()
    def nobody_is_gapped_for_what_is_held_nor_starved(self) -> None:
        if not hasattr(self, "pump"):
            return
        log = self.distributor.log
        for reader in self.readers:
            subscriber = reader.subscriber
            assert subscriber.end_error is None or not reader.policy.asked or reader.has_limits
            if not isinstance(subscriber.source, Refusing | Ending):
                assert (subscriber.source.reads_after or 0) >= log.oldest - 1, "the log forgot what is unread"
            if not reader.has_limits:
                assert not reader.policy.asked
        if self.over:
            assert all(reader.subscriber.end_error is not None for reader in self.readers)

    def teardown(self) -> None:
        """Let all readers read to the end of their streams. The end must come, and nothing may be missing before it."""
        if not hasattr(self, "pump"):
            return
        self.distributor.flush()
        head = self.pump.head
        ends_early = {id(r) for r in self.readers if r.subscriber.end_error is not None}
        self.end()
        for index, reader in enumerate(self.readers):
            for _ in range(10_000):
                if reader.ended:
                    break
                self.take(index, 200)

            assert reader.ended, "the end never came"

            if id(reader) not in ends_early:
                assert reader.at == head
                assert reader.subscriber.delivered == head


DistributorMachine.TestCase.settings = settings(
    max_examples=500, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestDistributor = DistributorMachine.TestCase
