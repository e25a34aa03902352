"""Every policy in random lives, against an independent record of what the worker produced.

Whatever the blocks, gaps, reads and pauses: what a reader is given is every sequence exactly once and in order, as its
event or inside a gap; counts are right; nothing is lost for a reason that is not the policy's; and what a policy
promises of its own holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support.accounts import Account
from support.distributing import EVERYTHING
from support.events import EPOCH, serial_of, taken
from support.overflowing import BUFFERED, CHANGE, OPERATION, WRITE, RecordingPump, happening

from mxgw.v1 import events_pb2 as e
from mxgw_backpressure.policies import (
    BlockPolicy,
    ConflatePolicy,
    DisconnectPolicy,
    DropNewestPolicy,
    DropOldestPolicy,
    Grace,
    PacedGrace,
    ResyncPolicy,
    SamplePolicy,
)
from mxgw_core.api import (
    Action,
    Conflate,
    DropNewest,
    DropOldest,
    ItemRecord,
    Lag,
    QueueLimits,
    Select,
    SelectEvents,
    Tolerate,
)
from mxgw_core.api.errors import SessionEnded
from mxgw_core.api.types import Position
from mxgw_core.events import policy_guard
from mxgw_core.events.subscriber import End, Subscriber

CLOSED = SessionEnded("the session ended", close_reason="CLIENT")
DROPPED, CONFLATED = e.GAP_REASON_QUEUE_DROPPED, e.GAP_REASON_CONFLATED


@dataclass
class Changing:
    """A third party's policy that answers otherwise every time."""

    answers: list[Action]
    name: str = "changing"
    asked: int = 0

    def on_overflow(self, lag: Lag) -> Action:
        self.asked += 1
        return self.answers[self.asked % len(self.answers)]


@dataclass
class EveryNth:
    """Keeps every `n`-th event that it is asked about. It is asked about the events oldest first."""

    n: int
    asked: int = 0

    def keep(self, item: ItemRecord, kind: int, sequence: int) -> bool:
        assert item.serial != FORGOTTEN

        self.asked += 1
        return self.asked % self.n == 0


# An item that the gateway does not know any more.
FORGOTTEN = serial_of(1, 4)
actions: list[Any] = [
    st.just(Conflate()),
    st.builds(DropOldest, st.integers(0, 8)),
    st.builds(DropNewest, st.integers(0, 8)),
    st.just(Select(lambda item, kind: item.item_handle % 2 == 0 or kind != CHANGE)),
    st.builds(EveryNth, st.integers(1, 4)).map(lambda every: SelectEvents(every.keep)),
    st.just(Tolerate(1.0)),
]
HARD = QueueLimits(24, 0, 0.0)
policies = {
    "disconnect": st.just(DisconnectPolicy()),
    "drop_oldest": st.just(DropOldestPolicy()),
    "drop_newest": st.builds(DropNewestPolicy, st.sampled_from([0, 50, 80, 99])),
    "conflate": st.just(ConflatePolicy()),
    "sample": st.builds(SamplePolicy, st.sampled_from([0.5, 3.0])),
    "resync": st.just(ResyncPolicy()),
    "block": st.builds(BlockPolicy, st.sampled_from([0.4, 2.0])),
    "grace drop_oldest": st.builds(Grace, st.just(DropOldestPolicy()), st.just(HARD), st.sampled_from([0.4, 5.0])),
    "grace conflate": st.builds(Grace, st.just(ConflatePolicy()), st.just(HARD), st.just(2.0)),
    "grace sample": st.builds(PacedGrace, st.just(SamplePolicy(1.0)), st.just(HARD), st.just(2.0)),
    "changing": st.builds(Changing, st.lists(st.one_of(*actions), min_size=1, max_size=4)),
}
MAY_DROP = {"drop_oldest", "drop_newest", "resync", "grace drop_oldest", "changing"}
MAY_CONFLATE = {"conflate", "sample", "grace conflate", "grace sample", "changing"}
MAY_CUT = {"disconnect", "block", "conflate", "sample", "grace conflate", "grace sample", "changing"}

limits = st.builds(
    QueueLimits, events=st.integers(1, 12), bytes=st.sampled_from([0, 0, 400]), seconds=st.sampled_from([0.0, 0.0, 4.0])
)
happenings = st.tuples(
    st.integers(1, 4), st.sampled_from([1, 1, 2, 200]), st.sampled_from([CHANGE] * 8 + [WRITE, OPERATION, BUFFERED])
)


@dataclass
class Reader:
    subscriber: Subscriber
    start: int
    account: Account
    end: End | None = None


class PoliciesMachine(RuleBasedStateMachine):
    policy = "disconnect"

    @initialize()
    def begin(self) -> None:
        self.pump = RecordingPump(unattached=EVERYTHING)
        self.pump.items.forgotten.add(FORGOTTEN)
        self.pump.distributor.retain(EVERYTHING)  # so that a resume finds what it missed
        self.readers: list[Reader] = []

    @rule(history=st.lists(happenings, min_size=1, max_size=9), size=st.sampled_from([0, 0, 0, 30, 20_000]))
    def happen(self, history: list[tuple[int, int, e.EventKind.ValueType]], size: int) -> None:
        if self.pump.held.now:
            return  # the worker's events wait in its outbox
        first = self.pump.head + 1
        self.pump.append_block(
            happening(sequence, item, server=server, kind=kind, text="x" * size)
            for sequence, (item, server, kind) in enumerate(history, first)
        )

    @rule(count=st.integers(1, 6))
    def gap(self, count: int) -> None:
        if not self.pump.held.now:
            self.pump.gap(count)

    @rule(data=st.data(), limits=limits, oldest=st.booleans())
    def attach(self, data: st.DataObject, limits: QueueLimits, oldest: bool) -> None:
        if len(self.readers) == 3:
            return
        log = self.pump.distributor.log
        start = log.oldest - 1 if oldest else log.head
        subscriber = self.pump.attach(Position(EPOCH, start), limits=limits, policy=data.draw(policies[self.policy]))
        self.readers.append(Reader(subscriber, start, Account(start)))

    @precondition(lambda self: self.readers)
    @rule(which=st.integers(0, 9), pieces=st.integers(1, 4), limit_bytes=st.sampled_from([1, 200, 1 << 20]))
    def read(self, which: int, pieces: int, limit_bytes: int) -> None:
        reader = self.readers[which % len(self.readers)]
        for _ in range(pieces):
            item = reader.subscriber.take(limit_bytes)
            if isinstance(item, End):
                reader.end = item
            elif item is not None:
                reader.account.take([item])

        assert reader.subscriber.delivered <= reader.account.at or not reader.account.at

    @rule(seconds=st.sampled_from([0.1, 0.5, 1.0, 6.0]))
    def time_passes(self, seconds: float) -> None:
        self.pump.timers.pass_time(seconds)
        self.pump.distributor.check()

    @precondition(lambda self: self.readers)
    @rule(which=st.integers(0, 9))
    def detach_and_resume(self, which: int) -> None:
        """A reader that goes and comes back after its last position goes on where it was, or after a gap."""
        index = which % len(self.readers)
        reader = self.readers[index]
        if reader.end is not None or reader.account._owed:
            return
        self.pump.distributor.detach(reader.subscriber)
        after = reader.subscriber.delivered

        assert after == reader.account.at

        policy, limits = reader.subscriber.policy, reader.subscriber.limits
        reader.subscriber = self.pump.attach(Position(EPOCH, after), limits=limits, policy=policy)

    @invariant()
    def nothing_is_unbounded_and_nobody_is_held_for_nobody(self) -> None:
        if not hasattr(self, "pump"):
            return
        for reader in self.readers:
            subscriber, limit = reader.subscriber, reader.subscriber.limits.events
            # Events of other kinds, and the one value of each of 12 items; a block of 9 may come at once.
            most = max(limit, HARD.events) + 12 + 9
            if self.policy not in ("block", "sample", "grace sample") and not subscriber.end_error:
                assert subscriber.lag().events <= most, subscriber.policy_name
        if self.pump.held.now:
            assert any(reader.subscriber.end_error is None for reader in self.readers)

    def teardown(self) -> None:
        if not hasattr(self, "pump"):
            return
        head = self.pump.head
        ended_before = {id(r) for r in self.readers if r.subscriber.end_error is not None}
        self.pump.distributor.end(CLOSED)

        assert not self.pump.held.now
        assert self.pump.timers.pending == []

        for reader in self.readers:
            reader.account.take(taken(reader.subscriber, 200))
            assert reader.subscriber.end_error is not None
            account = reader.account
            self.pump.produced.check(account, after=reader.start)
            self.promises(reader, account, cut=id(reader) in ended_before, head=head)

    def promises(self, reader: Reader, account: Account, *, cut: bool, head: int) -> None:
        if cut:
            error = reader.subscriber.end_error
            assert error is not None
            assert error.reason == "SUBSCRIBER_OVERFLOW"
            assert self.policy in MAY_CUT
            # Told where the loss begins: right behind what was delivered.
            assert int(error.metadata["lost_from"]) == account.at + 1
        else:
            assert account.at == max(head, reader.start)
        if self.policy not in MAY_DROP:
            assert not account.lost_for(DROPPED)
        if self.policy not in MAY_CONFLATE:
            assert not account.lost_for(CONFLATED)
        conflated = account.lost_for(CONFLATED)
        for sequence in conflated:
            event = self.pump.produced.happened[sequence]
            assert event is not None, "a gap of the worker's was called conflated"
            assert event.kind == e.EVENT_KIND_DATA_CHANGE, "an event of another kind was conflated"
        if self.policy in MAY_CONFLATE - {"changing"}:
            newest = self.pump.produced.newest(account.at)
            assert {s for s in newest.values() if s > reader.start} <= set(account.events)


def machine(name: str) -> type:
    """Return the test of one policy."""

    class Machine(PoliciesMachine):
        policy = name

    Machine.__name__ = Machine.__qualname__ = f"Machine_{name.replace(' ', '_')}"
    Machine.TestCase.settings = settings(
        max_examples=40,
        stateful_step_count=30,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.reuse, Phase.generate, Phase.shrink],  # explaining traces, and what is traced is slow
    )
    return Machine.TestCase


@pytest.mark.parametrize("name", sorted(policies))
def test_a_policy_keeps_the_account_whole(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # How long something takes here depends on the machine, and is not the matter.
    monkeypatch.setattr(policy_guard, "POLICY_BUDGET_S", 60.0)
    machine(name)().runTest()
