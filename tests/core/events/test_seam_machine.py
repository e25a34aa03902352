"""Random sequences of kills, drains and restarts of the gateway of one session, with readers that resume.

The worker's outbox, the frames, the gateway's intake, the log, the decision where a stream begins, and the search in a
history store are the real ones. Nothing sleeps, so that an example takes milliseconds. The promises, and what checks
them:

- Every event comes once and in order, or an exact gap names it once: checked by `StreamChecker`, over restarts.
- `recovered` is true if, and only if, nothing is missing between the position and the head: checked by the model below.
- A gap names no event that the gateway held or the store had: checked by the model below.
- A position of another numbering, or ahead of the head, is never answered as recovered. After a restart, no position
  that a reader really got is ahead of the head.
- A restart in order keeps as much as a SIGKILL: both are followed by the same steps, with the same checks.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from support.distributing import NO_LIMITS, Told
from support.events import EPOCH, OTHER_EPOCH, Clock
from support.seams import GatewayRun, Source, Step, Store, stepped

from mxgw.v1.event_service_pb2 import StreamEventsResponse
from mxgw.v1.events_pb2 import GAP_REASON_CURSOR_AHEAD, GAP_REASON_EPOCH_CHANGED
from mxgw_core.api.errors import GatewayDraining, HistoryUnavailable
from mxgw_core.api.events import Disconnect, DropOldest, QueueLimits, Retention
from mxgw_core.api.types import Position
from mxgw_core.events.frames import gap_frame
from mxgw_core.events.history import Older, find_older
from mxgw_core.events.pieces import Chunk, Gap
from mxgw_core.events.start import Start, StartPlace
from mxgw_core.events.subscriber import End, Subscriber
from mxgw_core.testing.checker import Lost, Opened, Passed, Seen, StreamChecker, observed

DRAINING = GatewayDraining("the gateway is shutting down", retry_after_s=1.0)


@dataclass
class Reader:
    """An application over all its streams. At a moment it has no stream, one that is opening, or one that is open."""

    checker: StreamChecker
    limits: QueueLimits = NO_LIMITS
    keeps: int | None = None
    start: Start | Position = Start.OLDEST_RETAINED
    # True while its position was invented by the test and not given to it by the gateway.
    is_new: bool = True
    # The search for older events while the stream opens.
    opening: Step | None = None
    subscriber: Subscriber | None = None
    older: AsyncGenerator[Chunk | Gap | None, None] | None = None
    page: Step | None = None
    # The sequences that the gateway held, that the store had, and that the store promised, when the stream opened.
    held: set[int] = field(default_factory=set)
    stored: set[int] = field(default_factory=set)
    promised: set[int] = field(default_factory=set)
    store: Store | None = None
    # True when the store failed or lost events after it was asked. The gateway then need not keep the store's promise.
    is_store_broken: bool = False
    # Only for the recorder: the events that it got and has not committed.
    uncommitted: dict[int, int] = field(default_factory=dict)

    @property
    def is_attached(self) -> bool:
        return self.opening is not None or self.subscriber is not None


@dataclass(frozen=True)
class Restart:
    """One restart of the gateway.

    The lists have the items of the events that happen in each of its steps. `in_order` says whether the gateway drains
    before it ends, `reads_on` whether readers go on reading, `source_loses` whether the source loses events.
    """

    recorded: list[int]
    unread: list[int]
    outage: list[int]
    handshake: list[int]
    in_order: bool
    reads_on: bool
    source_loses: bool


def items(least: int, most: int) -> st.SearchStrategy[list[int]]:
    return st.integers(least, most).flatmap(lambda n: st.lists(st.integers(1, 3), min_size=n, max_size=n))


restarts = st.builds(
    Restart,
    items(4, 14),
    items(0, 2),
    items(0, 4),
    items(0, 4),
    st.booleans(),
    st.booleans(),
    st.sampled_from([False, False, False, True]),
)


class SeamMachine(RuleBasedStateMachine):
    @initialize(
        outbox=st.integers(2, 9),
        retained=st.integers(0, 12),
        has_store=st.sampled_from([True, True, False]),
        last=restarts,
        late=st.integers(0, 12),
    )
    def begin(self, outbox: int, retained: int, has_store: bool, last: Restart, late: int) -> None:
        # At the end of each example come a restart, and a reader that resumes late.
        self.last, self.late = last, late
        self.source = Source(outbox)
        self.clock = Clock()
        self.retention = Retention(retained, 1 << 30, 0.0)
        self.store = Store() if has_store else None
        self.gateway: GatewayRun | None = GatewayRun(self.source, self.clock, self.retention, refills=False)
        self.gateway.connection.welcome()
        self.committed: Position | None = None
        self.recorder = Reader(StreamChecker(self.source))
        self.readers = [self.recorder]
        self.attached = 0

    # the worker and its connection

    @rule(items=st.lists(st.integers(1, 3), min_size=1, max_size=9), large=st.booleans())
    def events_happen(self, items: list[int], large: bool) -> None:
        for item in items:
            self.source.event(item, "x" * 33_000 if large else "")

    @rule()
    def the_source_loses_something(self) -> None:
        self.source.gap()

    @precondition(lambda self: self.gateway is not None and self.gateway.connection.is_welcomed)
    @rule(maximum_bytes=st.sampled_from([1, 200, 1 << 20]))
    def the_worker_sends(self, maximum_bytes: int) -> None:
        self.here.connection.send(maximum_bytes)

    @precondition(lambda self: self.gateway is not None and self.gateway.connection.is_welcomed)
    @rule(frames=st.integers(1, 3), acknowledged=st.booleans())
    def the_gateway_receives(self, frames: int, acknowledged: bool) -> None:
        self.here.connection.receive(frames)
        if acknowledged:
            self.here.connection.acknowledge()

    @precondition(lambda self: self.gateway is not None and self.gateway.connection.is_welcomed)
    @rule()
    def everything_arrives(self) -> None:
        self.here.connection.catch_up()

    # the gateway

    @property
    def here(self) -> GatewayRun:
        assert self.gateway is not None
        return self.gateway

    @precondition(lambda self: self.gateway is not None)
    @rule()
    def it_is_killed(self) -> None:
        for reader in self.readers:
            self.cut(reader, "CONNECTION_LOST")
        self.gateway = None

    @precondition(lambda self: self.gateway is not None)
    @rule(read_to_the_end=st.booleans())
    def it_drains(self, read_to_the_end: bool) -> None:
        for reader in self.readers:
            if reader.subscriber is not None:
                reader.subscriber.finish(DRAINING)
        for reader in self.readers:
            for _ in range(10_000):
                if not read_to_the_end or reader.subscriber is None:
                    break
                self.serve(reader, 1 << 20)
        self.it_is_killed()

    @precondition(lambda self: self.gateway is None)
    @rule()
    def it_starts_and_hears_the_worker_s_hello(self) -> None:
        self.gateway = GatewayRun(self.source, self.clock, self.retention, refills=True)

    @precondition(lambda self: self.gateway is not None and not self.gateway.connection.is_welcomed)
    @rule()
    def the_handshake_ends(self) -> None:
        kept_from = self.source.outbox.oldest_sequence
        self.here.connection.welcome()

        assert self.source.outbox.oldest_sequence == kept_from, "a handshake lost what was kept"
        assert self.here.distributor.log.head < self.source.outbox.oldest_sequence, "not all that was kept comes back"

    @precondition(lambda self: self.gateway is not None)
    @rule(restart=restarts)
    def it_is_restarted(self, restart: Restart) -> None:
        """Carry out all steps of a restart in a row. Left to chance, few examples would contain all of them."""
        self.events_happen(restart.recorded, large=False)
        self.here.connection.catch_up()
        if self.store is not None:
            self.the_recorder_keeps_up(share=3)
        self.events_happen(restart.unread, large=False)
        if restart.in_order:
            self.it_drains(read_to_the_end=restart.reads_on)
        else:
            self.it_is_killed()
        self.events_happen(restart.outage, large=False)
        self.it_starts_and_hears_the_worker_s_hello()
        self.events_happen(restart.handshake, large=False)
        self.the_handshake_ends()
        if restart.source_loses:
            self.the_source_loses_something()
        if restart.reads_on:
            self.here.connection.catch_up()
            self.everybody_comes_back_and_reads(steps=2)

    # readers

    def is_ready(self) -> bool:
        return self.gateway is not None and self.gateway.connection.is_ready

    def come(self, reader: Reader, start: Start | Position) -> None:
        reader.start = start
        reader.checker.attach(start if isinstance(start, Position) else None)
        # A copy of the store, which remembers what was promised to this stream.
        reader.store, reader.is_store_broken = self.store and replace(self.store), False
        reader.stored, reader.promised = set(), set()
        if isinstance(start, Position):
            reader.opening = Step(self.search(reader, start))
        else:
            self.open(reader, None)

    async def search(self, reader: Reader, start: Position) -> Older | None:
        distributor = self.here.distributor
        distributor.trim()
        return await find_older(
            lambda: stepped(reader.store), distributor.log, EPOCH, start, distributor.broken_promises
        )

    def open(self, reader: Reader, older: Older | None) -> None:
        """Attach the reader in the step that ends the search, and compare the start place with the model."""
        distributor, log = self.here.distributor, self.here.distributor.log
        start, until = reader.start, older.reach if older is not None else None
        self.attached += 1
        foretold = distributor.decide(start, until)
        oldest, head = log.oldest, log.head
        subscriber = distributor.attach(
            f"s{self.attached}",
            start,
            limits=reader.limits,
            policy=Told(Disconnect() if reader.keeps is None else DropOldest(reader.keeps)),
            older_until=until,
        )
        place, gap = subscriber.place, subscriber.place.gap
        reader.subscriber = subscriber
        reader.held = {s for s in self.here.connection.received if s >= oldest}
        if reader.store is not None:
            reader.stored, reader.promised = reader.store.asked, reader.store.run
        if isinstance(start, Position) and start.sequence <= self.here.doubted_after:
            reader.promised = {s for s in reader.promised if s <= self.here.doubted_after}
        if older is not None and gap is not None and gap.first:
            reader.older = older.in_place_of(gap, EPOCH, is_whole=place.recovered)
        if isinstance(start, Position):
            assert place == foretold, "who asks to be refused gets another start place"
            self.hold_against_the_model(reader, start, place, oldest, head)
        first = gap.first - 1 if gap is not None and gap.first else place.cursor
        reader.checker.observe(Opened(EPOCH, first, head, oldest, place.was_resuming, place.recovered))

    def hold_against_the_model(
        self, reader: Reader, start: Position, place: StartPlace, oldest: int, head: int
    ) -> None:
        if start.epoch != EPOCH:
            assert not place.recovered
            assert place.gap is not None
            assert place.gap.reason == GAP_REASON_EPOCH_CHANGED
        elif start.sequence > head:
            assert not place.recovered
            assert place.gap is not None
            assert place.gap.reason == GAP_REASON_CURSOR_AHEAD
            assert reader.is_new, "a position that was handed out is ahead of the log"
        else:
            behind = range(start.sequence + 1, head + 1)
            # The events before the first one that the gateway ever received do not count as missing: the log begins
            # later.
            begins = max(oldest, min(self.here.connection.received, default=oldest))
            missing = [s for s in behind if s not in reader.held and not (s < begins and s in reader.promised)]
            assert place.recovered == (not missing), f"recovered is {place.recovered}, missing: {missing}"

    def is_true(self, reader: Reader, lost: Lost) -> bool:
        """Return True when a gap names only events that could not be read when the stream opened.

        Events that a policy dropped are right too.
        """
        named = {s for first, last in lost.ranges() for s in range(first, last + 1)}
        match lost.reason:
            case "RING_EVICTED":
                return named.isdisjoint(reader.held) and (reader.is_store_broken or named.isdisjoint(reader.stored))
            case "WORKER_OUTBOX_OVERRUN":
                return named.isdisjoint(self.here.connection.received)
            case "QUEUE_DROPPED":
                return reader.keeps is not None
            case _:
                return True

    def new_reader(self, limits: QueueLimits, keeps: int | None) -> Reader:
        reader = Reader(StreamChecker(self.source), limits, keeps)
        self.judge(reader)
        self.readers.append(reader)
        return reader

    def judge(self, reader: Reader) -> None:
        """Give the reader a new checker."""
        reader.checker = StreamChecker(
            self.source,
            may_lose=lambda lost: self.is_true(reader, lost),
        )

    limits = st.one_of(st.just(NO_LIMITS), st.builds(QueueLimits, st.integers(1, 8), st.just(0), st.just(0.0)))
    keeps = st.one_of(st.none(), st.integers(0, 4))

    @precondition(lambda self: self.is_ready() and len(self.readers) < 6)
    @rule(
        start=st.one_of(
            st.sampled_from([Start.NOW, Start.OLDEST_RETAINED]),
            st.builds(Position, st.sampled_from([EPOCH, EPOCH, EPOCH, OTHER_EPOCH]), st.integers(0, 60)),
        ),
        limits=limits,
        keeps=keeps,
    )
    def somebody_comes(self, start: Start | Position, limits: QueueLimits, keeps: int | None) -> None:
        if isinstance(start, Position) and start.epoch == EPOCH and start.sequence > self.source.head + 1:
            start = Position(EPOCH, start.sequence % (self.source.head + 1))
        self.come(self.new_reader(limits, keeps), start)

    @precondition(lambda self: self.is_ready() and any(not reader.is_attached for reader in self.readers))
    @rule(which=st.integers(0, 99))
    def somebody_comes_back(self, which: int) -> None:
        away = [reader for reader in self.readers if not reader.is_attached]
        self.come_back(away[which % len(away)])

    def come_back(self, reader: Reader) -> None:
        reader.is_new = reader.checker.position in (None, reader.start)
        if reader is self.recorder:
            # It resumes after the last position that it committed, as a program that was killed.
            self.judge(reader)
            reader.uncommitted = {}
            self.come(reader, self.committed or Start.OLDEST_RETAINED)
        else:
            self.come(reader, reader.checker.position or reader.start)

    @precondition(lambda self: any(reader.is_attached for reader in self.readers))
    @rule(which=st.integers(0, 99), limit_bytes=st.sampled_from([1, 200, 1 << 20]), times=st.integers(1, 4))
    def somebody_is_served(self, which: int, limit_bytes: int, times: int) -> None:
        attached = [reader for reader in self.readers if reader.is_attached]
        for _ in range(times):
            self.serve(attached[which % len(attached)], limit_bytes)

    def serve(self, reader: Reader, limit_bytes: int) -> None:
        """Carry out one step of a stream: of the search in a store, of reading its pages, or of reading the log."""
        if reader.opening is not None:
            if reader.opening.go_on():
                older, reader.opening = reader.opening.result, None
                self.open(reader, older)
        elif reader.older is not None:
            self.read_older(reader)
        elif reader.subscriber is not None:
            match item := reader.subscriber.take(limit_bytes):
                case End(error):
                    self.leave(reader, error.reason)
                case Chunk() | Gap():
                    self.hand_over(reader, item)
                case None:
                    # A heartbeat carries this position.
                    reader.checker.observe(Passed(EPOCH, reader.subscriber.delivered))

        assert not reader.checker.violations, reader.checker.report()

    def read_older(self, reader: Reader) -> None:
        assert reader.older is not None
        assert reader.subscriber is not None
        if reader.store is not None and reader.store.fails_after_pages is not None:
            reader.is_store_broken = True
        reader.page = reader.page or Step(reader.older.__anext__())  # type: ignore[arg-type]
        try:
            if not reader.page.go_on():
                return
        except HistoryUnavailable as error:
            assert reader.is_store_broken
            reader.page = None
            self.here.doubted_after = max(self.here.doubted_after, int(error.metadata["last_sequence"]))
            self.leave(reader, error.reason)
            return
        except StopAsyncIteration:
            reader.older = reader.page = None
            return
        piece, reader.page = reader.page.result, None
        if isinstance(piece, Chunk) and piece.first <= self.here.doubted_after + 1 <= piece.last:
            self.here.doubted_after = -1
        reader.subscriber.feed(piece)
        passed = reader.subscriber.take_fed(1)

        assert isinstance(passed, Chunk | Gap)

        self.hand_over(reader, passed)

    def hand_over(self, reader: Reader, item: Chunk | Gap) -> None:
        data = item.frame if isinstance(item, Chunk) else gap_frame(EPOCH, item)
        for observation in observed(StreamEventsResponse.FromString(data), lambda _: None):
            reader.checker.observe(observation)
            if reader is self.recorder and isinstance(observation, Seen):
                item_handle: Any = observation.item
                reader.uncommitted[observation.sequence] = item_handle[1]

    def leave(self, reader: Reader, reason: str) -> None:
        for step in (reader.page, reader.opening):
            if step is not None:
                step.cancel()
        if reader.older is not None:
            closing = Step(reader.older.aclose())
            while not closing.go_on():
                pass
        if reader.subscriber is not None:
            self.here.distributor.detach(reader.subscriber)
        reader.opening = reader.subscriber = reader.older = reader.page = None
        reader.checker.end(reason)

    def cut(self, reader: Reader, reason: str) -> None:
        if reader.is_attached:
            self.leave(reader, reason)

    @precondition(is_ready)
    @rule(steps=st.integers(1, 12))
    def everybody_comes_back_and_reads(self, steps: int) -> None:
        for reader in self.readers:
            if not reader.is_attached:
                self.come_back(reader)
            for _ in range(steps):
                if reader.is_attached:
                    self.serve(reader, 1 << 20)

    @precondition(lambda self: any(reader.is_attached for reader in self.readers))
    @rule(which=st.integers(0, 99))
    def somebody_is_cut(self, which: int) -> None:
        attached = [reader for reader in self.readers if reader.is_attached]
        self.cut(attached[which % len(attached)], "CONNECTION_LOST")

    # the store

    @precondition(lambda self: self.store is not None and self.is_ready())
    @rule(share=st.integers(2, 3))
    def the_recorder_keeps_up(self, share: int) -> None:
        """Let the recorder read all events and commit most of them.

        Left to chance, the store would rarely reach to the log.
        """
        if not self.recorder.is_attached:
            self.come_back(self.recorder)
        for _ in range(1_000):
            subscriber = self.recorder.subscriber
            if subscriber is not None and subscriber.is_caught_up and self.recorder.older is None:
                break
            self.serve(self.recorder, 1 << 20)
        if self.recorder.uncommitted:
            self.the_recorder_commits(share)

    @precondition(lambda self: self.store is not None and self.recorder.uncommitted)
    @rule(share=st.integers(1, 3))
    def the_recorder_commits(self, share: int) -> None:
        assert self.store is not None
        sequences = sorted(self.recorder.uncommitted)
        for sequence in sequences[: -(-len(sequences) * share // 3)]:
            self.store.events[sequence] = self.recorder.uncommitted.pop(sequence)
            self.committed = Position(EPOCH, sequence)

    @precondition(lambda self: self.store is not None and self.store.events)
    @rule(which=st.integers(0, 99), oldest=st.booleans())
    def the_store_loses_events(self, which: int, oldest: bool) -> None:
        assert self.store is not None
        held = sorted(self.store.events)
        at = which % len(held)
        for sequence in held[:at] if oldest else held[at : at + 2]:
            del self.store.events[sequence]
        for reader in self.readers:
            reader.is_store_broken |= reader.is_attached

    @precondition(lambda self: self.store is not None)
    @rule(when_asked=st.booleans(), after_pages=st.sampled_from([None, None, 0, 1, 2]), page=st.integers(1, 4))
    def the_store_may_fail(self, when_asked: bool, after_pages: int | None, page: int) -> None:
        assert self.store is not None
        self.store.fails_when_asked, self.store.fails_after_pages = when_asked, after_pages
        self.store.page_events = page

    # the end

    def teardown(self) -> None:
        """Let all readers come back and read to the end. Nothing may be missing before it."""
        if not hasattr(self, "source"):
            return
        if self.gateway is None:
            self.it_starts_and_hears_the_worker_s_hello()
        self.it_is_restarted(self.last)
        self.here.connection.catch_up()
        self.come(self.new_reader(NO_LIMITS, None), Position(EPOCH, min(self.late, self.source.head)))
        for reader in self.readers:
            if not reader.is_attached:
                self.come_back(reader)
            for _ in range(10_000):
                at = reader.checker.position
                if not reader.is_attached:
                    self.come_back(reader)
                elif reader.subscriber is not None and reader.older is None and reader.subscriber.is_caught_up:
                    break
                self.serve(reader, 1 << 20)
            self.leave(reader, "CLIENT")

            assert at is None or at.epoch == EPOCH

            reader.checker.finish(self.source.head)

            assert not reader.checker.violations, reader.checker.report()


SeamMachine.TestCase.settings = settings(
    max_examples=150,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestSeam = SeamMachine.TestCase


class LongSeamMachine(SeamMachine):
    """The same test with ten thousand examples."""


LongSeamMachine.TestCase.settings = settings(SeamMachine.TestCase.settings, max_examples=10_000)
TestTenThousandSeams = pytest.mark.soak(pytest.mark.timeout(3600)(LongSeamMachine.TestCase))
