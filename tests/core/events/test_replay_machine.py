"""Random sequences of actions on a log that retains events, with readers that are cut and resume.

The model knows what was appended, when, and what the log must retain. A `StreamChecker` checks each reader over all its
streams: no event is missing without an exact gap, nothing comes twice, positions of progress and snapshots are never
ahead, and no gap names an event that must still be retained.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from support.distributing import NO_LIMITS, Items, Pump, Told
from support.events import EPOCH, OTHER_EPOCH, batch

from mxgw.v1.event_service_pb2 import StreamEventsResponse
from mxgw.v1.events_pb2 import GAP_REASON_WORKER_OUTBOX_OVERRUN
from mxgw_core.api.errors import SessionEnded
from mxgw_core.api.events import Disconnect, QueueLimits, Resync, Retention
from mxgw_core.api.types import Position
from mxgw_core.events.frames import gap_frame
from mxgw_core.events.pieces import Chunk, Gap
from mxgw_core.events.snapshot_place import SnapshotDue, SnapshotWanted
from mxgw_core.events.start import Start
from mxgw_core.events.subscriber import Control, End, Progress, Subscriber
from mxgw_core.testing.checker import (
    Hole,
    Lost,
    Opened,
    Passed,
    Seen,
    SnapshotDone,
    SnapshotPart,
    StreamChecker,
    observed,
)

CLOSED = SessionEnded("the session ended", close_reason="CLIENT")
ODD = {1, 3}


@dataclass
class World:
    """What the worker produced. It is the model, and the checkers ask it for the event of a sequence."""

    retention: Retention
    # Key: a sequence. Value: the item (None in a gap), the size, and the time at which it was appended.
    log: dict[int, tuple[int | None, int, float]] = field(default_factory=dict)
    # The last sequence of each gap.
    gaps: set[int] = field(default_factory=set)

    @property
    def head(self) -> int:
        return len(self.log)

    def append(self, items: list[int | None], size: int, now: float) -> None:
        for item in items:
            self.log[self.head + 1] = (item, size, now)
        if items[0] is None:
            self.gaps.add(self.head)

    def produced(self, epoch: bytes, sequence: int) -> Seen | Hole | None:
        if epoch != EPOCH or sequence not in self.log:
            return None
        item = self.log[sequence][0]
        return Hole.HOLE if item is None else Seen(sequence, (1, item))

    def owed_from(self, now: float) -> int:
        """Return the first sequence that the log must retain by its settings. It is allowed to keep more."""
        keep, events, size = self.retention, 0, 0
        sequence = self.head
        while sequence > 0:
            item, each, at = self.log[sequence]
            # A gap counts as one event.
            events += item is not None or sequence in self.gaps
            if size >= keep.bytes:
                break
            size += each
            if events > keep.events or size > keep.bytes or (keep.seconds and at < now - keep.seconds):
                break
            sequence -= 1
        return sequence + 1

    def newest(self, until: int) -> tuple[Seen, ...]:
        """Return the last event of every item up to `until`."""
        last = {item: sequence for sequence, (item, _, _) in self.log.items() if sequence <= until and item}
        return tuple(Seen(sequence, (1, item)) for item, sequence in last.items())


class Reader:
    """An application, and its present stream if it has one."""

    def __init__(self, world: World, *, odd_only: bool) -> None:
        self.odd_only = odd_only
        self.subscriber: Subscriber | None = None
        self.owed_from = 0
        # The head of the log when a snapshot was requested; None when no snapshot is being fetched.
        self.fetching_since: int | None = None
        self.snapshot_at = 0
        self.snapshots_due = 0
        self.checker = StreamChecker(
            world,
            visible=(lambda item: item[1] in ODD) if odd_only else None,
            may_lose=self.excuses,
        )

    def excuses(self, lost: Lost) -> bool:
        return lost.reason != "RING_EVICTED" or lost.last < self.owed_from


class ReplayMachine(RuleBasedStateMachine):
    @initialize(
        events=st.integers(0, 40),
        size=st.sampled_from([0, 400, 2_000, 1 << 20]),
        seconds=st.sampled_from([0.0, 0.0, 10.0]),
    )
    def begin(self, events: int, size: int, seconds: float) -> None:
        # Everything is kept before the first reader comes, because this test is not about that time.
        self.pump = Pump(unattached=Retention(1_000_000, 1 << 30, 0.0))
        self.distributor = self.pump.distributor
        self.world = World(Retention(events, size, seconds, snapshots=True))
        self.distributor.retain(self.world.retention)
        self.readers: list[Reader] = []
        self.is_over = False
        self.attach(Reader(self.world, odd_only=False), Start.NOW, NO_LIMITS, resync=False, snapshot=False)

    # the worker

    @rule(
        items=st.lists(st.integers(1, 4), min_size=1, max_size=8),
        text=st.sampled_from([0, 0, 40, 30_000]),
        flush=st.booleans(),
    )
    def events_come(self, items: list[int], text: int, flush: bool) -> None:
        first = self.pump.head + 1
        records = [batch([first + n], item_handle=item, text="x" * text) for n, item in enumerate(items)]
        self.distributor.append(first, first + len(items) - 1, b"".join(records))
        self.world.append([*items], len(records[0]), self.pump.clock.now)
        if flush:
            self.distributor.flush()

    @rule(count=st.integers(1, 9))
    def a_gap_comes(self, count: int) -> None:
        first = self.pump.head + 1
        self.distributor.append_gap(Gap(first, first + count - 1, GAP_REASON_WORKER_OUTBOX_OVERRUN))
        self.world.append([None] * count, 0, self.pump.clock.now)
        self.distributor.flush()

    @rule(seconds=st.sampled_from([1.0, 9.0, 20.0]))
    def time_passes(self, seconds: float) -> None:
        self.pump.clock.now += seconds
        self.distributor.check()

    # readers

    def attach(
        self, reader: Reader, start: Start | Position, limits: QueueLimits, *, resync: bool, snapshot: bool
    ) -> None:
        reader.owed_from = self.world.owed_from(self.pump.clock.now)
        self.distributor.trim()
        oldest = self.distributor.log.oldest
        reader.checker.attach(start if isinstance(start, Position) else None)
        subscriber = self.pump.attach(
            start,
            limits=limits,
            policy=Told(Resync() if resync else Disconnect()),
            filters=[Items(ODD)] if reader.odd_only else [],
        )
        reader.subscriber, place = subscriber, subscriber.place
        reader.fetching_since, reader.snapshots_due = None, 0
        if snapshot:
            reader.subscriber.want_snapshot()
        gap = place.gap
        reader.checker.observe(
            Opened(
                EPOCH,
                gap.first - 1 if gap is not None and gap.first else place.cursor,
                self.world.head,
                oldest,
                place.was_resuming,
                place.recovered,
            )
        )
        if reader not in self.readers:
            self.readers.append(reader)

    limits = st.one_of(
        st.just(NO_LIMITS),
        st.builds(QueueLimits, events=st.integers(1, 12), bytes=st.just(0), seconds=st.sampled_from([0.0, 5.0])),
    )

    @precondition(lambda self: not self.is_over and len(self.readers) < 6)
    @rule(
        start=st.one_of(
            st.sampled_from([Start.NOW, Start.OLDEST_RETAINED]),
            st.builds(Position, st.sampled_from([EPOCH, EPOCH, OTHER_EPOCH]), st.integers(0, 150)),
        ),
        limits=limits,
        odd_only=st.booleans(),
        resync=st.booleans(),
        snapshot=st.booleans(),
    )
    def somebody_comes(
        self, start: Start | Position, limits: QueueLimits, odd_only: bool, resync: bool, snapshot: bool
    ) -> None:
        self.attach(Reader(self.world, odd_only=odd_only), start, limits, resync=resync, snapshot=snapshot)

    @precondition(lambda self: any(reader.subscriber for reader in self.readers))
    @rule(which=st.integers(0, 99), limit_bytes=st.sampled_from([1, 60, 300, 1 << 20]))
    def somebody_reads(self, which: int, limit_bytes: int) -> None:
        reading = [r for r in self.readers if r.subscriber and r.fetching_since is None]
        if reading:
            self.take(reading[which % len(reading)], limit_bytes)

    def take(self, reader: Reader, limit_bytes: int) -> None:
        subscriber, checker = reader.subscriber, reader.checker
        assert subscriber is not None
        match item := subscriber.take(limit_bytes):
            case Chunk(frame=frame):
                for seen in observed(StreamEventsResponse.FromString(frame), lambda _: None):
                    checker.observe(seen)
            case Gap():
                for lost in observed(StreamEventsResponse.FromString(gap_frame(EPOCH, item))):
                    checker.observe(lost)
            case Progress(sequence):
                checker.observe(Passed(EPOCH, sequence))
            case SnapshotWanted():
                reader.fetching_since = self.world.head
            case SnapshotDue():
                reader.snapshots_due -= 1
                values = [v for v in self.world.newest(reader.snapshot_at) if not reader.odd_only or v.item[1] in ODD]
                checker.observe(SnapshotPart(EPOCH, reader.snapshot_at, tuple(values)))
                checker.observe(SnapshotDone(EPOCH, reader.snapshot_at))
            case End(error):
                self.leaves(reader, error.reason)
            case None:
                # A heartbeat carries this position.
                checker.observe(Passed(EPOCH, subscriber.delivered))
            case Control():
                raise AssertionError("nobody sent a control frame")

        assert not checker.violations, checker.report()

    @precondition(lambda self: any(reader.fetching_since is not None for reader in self.readers))
    @rule(which=st.integers(0, 99), later=st.integers(0, 20))
    def a_snapshot_is_fetched(self, which: int, later: int) -> None:
        fetching = [r for r in self.readers if r.fetching_since is not None and r.subscriber]
        if not fetching:
            return
        reader = fetching[which % len(fetching)]
        assert reader.subscriber is not None
        assert reader.fetching_since is not None
        reader.snapshot_at = min(reader.fetching_since + later, self.world.head)
        reader.subscriber.snapshot_fetched(reader.snapshot_at)
        reader.fetching_since, reader.snapshots_due = None, 1

    def leaves(self, reader: Reader, reason: str) -> None:
        assert reader.subscriber is not None
        self.distributor.detach(reader.subscriber)
        reader.subscriber = None
        reader.checker.end(reason)

    @precondition(lambda self: any(reader.subscriber for reader in self.readers))
    @rule(which=st.integers(0, 99))
    def somebody_is_cut(self, which: int) -> None:
        reading = [r for r in self.readers if r.subscriber]
        self.leaves(reading[which % len(reading)], "CONNECTION_LOST")

    @precondition(lambda self: not self.is_over and any(not reader.subscriber for reader in self.readers))
    @rule(which=st.integers(0, 99), limits=limits, resync=st.booleans(), snapshot=st.booleans())
    def somebody_comes_back(self, which: int, limits: QueueLimits, resync: bool, snapshot: bool) -> None:
        away = [r for r in self.readers if not r.subscriber and r.checker.position is not None]
        if away:
            reader = away[which % len(away)]
            position = reader.checker.position
            assert position is not None
            self.attach(reader, position, limits, resync=resync, snapshot=snapshot)

    def teardown(self) -> None:
        """Let all readers read to the end. Nothing may be missing before it."""
        if not hasattr(self, "pump"):
            return
        self.distributor.flush()
        ends_early = [r for r in self.readers if r.subscriber and r.subscriber.end_error is not None]
        self.is_over = True
        self.distributor.end(CLOSED)
        for reader in self.readers:
            if reader.subscriber is None:
                continue
            reader.fetching_since = None
            for _ in range(10_000):
                if reader.subscriber is None:
                    break
                self.take(reader, 200)

            assert reader.subscriber is None, "the end never came"

            reader.checker.finish(None if reader in ends_early else self.world.head)

            assert not reader.checker.violations, reader.checker.report()
            assert not reader.checker.unjudged


ReplayMachine.TestCase.settings = settings(
    max_examples=150, stateful_step_count=50, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestReplay = ReplayMachine.TestCase
