"""Random lives of sessions over kills, drains, adoptions, leases and grace: what is promised of their ends holds.

Registry, sessions, gateway's side of workers, handshake, manifest, detach grace, log and outbox are the real ones; see
`support.lifetimes` for what is not. Time stands still but for one rule, so hours of a session take milliseconds. The
promises, of which the model below knows nothing but these sentences:

- no session ends within its detach grace, nor within its lease, which begin anew with each use; each ends after it,
  with the reason;
- while the gateway drains neither ends a session, nor does a restart: an orderly one keeps what a SIGKILL keeps;
- a worker that comes back in time is taken back, and grace and lease begin anew, the grace with 12 s at least; one that
  comes too late, or is gone, ends its session;
- whoever comes back to a session that ended is told its reason, also after restarts, and after those within its end;
- an owner that has all its sessions is refused another one, and nobody else's is touched by anything: each rule acts
  on one session, and all are looked at;
- `recovered` is true if nothing is missing behind the position, and only then; every event comes once and in order, or
  in a gap.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support.distributing import NO_LIMITS
from support.events import sequences_of
from support.lifetimes import Gateway, Process, World

from mxgw_core.api.errors import GatewayDraining, GatewayError, SessionGone, SessionLimitReached
from mxgw_core.api.types import CloseReason, Identity, Position, SessionState
from mxgw_core.events.pieces import Chunk, Gap
from mxgw_core.events.policies import DisconnectPolicy
from mxgw_core.events.start import Start
from mxgw_core.events.subscriber import Subscriber
from mxgw_core.sessions.session import Session, SessionRequest

SWEEP_S = 5.0
LONGEST_LEASE_S = 300.0
COMING_BACK_S = 12.0
OWNERS = {name: Identity(name, "key", name) for name in ("anna", "ben")}
PER_OWNER, IN_ALL = 3, 5


class Is(enum.Enum):
    """What the model says of a session."""

    OPENING = enum.auto()
    LIVE = enum.auto()
    # It waits for its worker after a restart.
    ADOPTING = enum.auto()
    # Its end had begun as the gateway was killed.
    CLOSING = enum.auto()
    ENDED = enum.auto()


@dataclass(eq=False)
class Known:
    """A session as its client and the page of promises know it."""

    session_id: str
    owner: str
    lease_s: float
    process: Process
    state: Is
    reason: CloseReason | None = None
    had_subscriber: bool = False
    readers: list[Reader] = field(default_factory=list)
    leased_until: float = 0.0
    grace_until: float | None = None
    adopt_until: float = 0.0

    def ends(self, reason: CloseReason) -> None:
        self.state, self.reason, self.readers = Is.ENDED, reason, []


@dataclass(eq=False)
class Reader:
    """A client's stream, and where the application is when it has none."""

    subscriber: Subscriber | None = None
    at: int | None = None
    # What it had no gap over must be in order; what it lost it was told.
    lost: int = 0


@dataclass(frozen=True)
class Restart:
    """What one restart of the gateway is like: all its steps in a row, else few lives would have them."""

    in_order: bool
    # For how long it drains, is gone, and lets workers wait until they come back; seconds.
    drains_s: float
    outage_s: float
    returns_after_s: float
    # What is under way as it is killed.
    during: str
    # Of the sessions one by one: does its worker die, does it come back by itself, and do its clients then.
    dies: list[bool]
    returns: list[bool]
    resumes: list[bool]
    owner: str
    events: int


restarts = st.builds(
    Restart,
    in_order=st.booleans(),
    drains_s=st.sampled_from([0.0, 0.0, 50.0, 350.0]),
    outage_s=st.sampled_from([0.0, 0.0, 3.0, 50.0, 150.0]),
    returns_after_s=st.sampled_from([0.0, 0.0, 3.0, 5.0]),
    during=st.sampled_from(
        ["", "", "", "launched", "proved", "welcomed", "closes", "comes back: proved", "comes back: welcomed"]
    ),
    dies=st.lists(st.sampled_from([False, False, False, True]), min_size=5, max_size=5),
    returns=st.lists(st.sampled_from([True, True, False]), min_size=5, max_size=5),
    resumes=st.lists(st.booleans(), min_size=5, max_size=5),
    owner=st.sampled_from(sorted(OWNERS)),
    events=st.integers(0, 3),
)
leases = st.sampled_from([20.0, 100.0, LONGEST_LEASE_S, LONGEST_LEASE_S])
first_sessions = st.lists(
    st.tuples(
        st.sampled_from(sorted(OWNERS)),
        leases,
        st.sampled_from(["attaches", "attaches", "leaves", "leaves late", "never"]),
    ),
    min_size=1,
    max_size=4,
)


class LifetimeMachine(RuleBasedStateMachine):
    @initialize(
        grace_s=st.sampled_from([0.0, 5.0, 40.0, 40.0, "none"]),
        outbox=st.sampled_from([3, 1000, 1000]),
        lifetime_s=st.sampled_from([100.0, 400.0]),
        adopt_within_s=st.sampled_from([4.0, 20.0]),
        first=first_sessions,
        last=st.lists(restarts, min_size=1, max_size=2),
    )
    def begin(
        self,
        grace_s: float | str,
        outbox: int,
        lifetime_s: float,
        adopt_within_s: float,
        first: list[tuple[str, float, str]],
        last: list[Restart],
    ) -> None:
        # Every life ends with one restart or two.
        self.last = last
        self.grace_s = None if grace_s == "none" else float(grace_s)
        self.outbox, self.adopt_within_s = outbox, adopt_within_s
        self.world = World(grace_s=grace_s, outbox_events=outbox, lifetime_s=lifetime_s, adopt_within_s=adopt_within_s)
        self.sessions: list[Known] = []
        self.gateway: Gateway | None = self.world.start()
        self.is_draining = False
        self.streams = 0
        for owner, lease_s, what in first:
            known = self.open(owner, lease_s, "ready")
            if known is not None and what != "never":
                self.attach(known, Reader())
                if what == "leaves late":
                    self.world.pass_time(19.0, self.all_is_as_promised)
                if what.startswith("leaves"):
                    self.leave(known, known.readers[0])
                    self.all_is_as_promised()

    @property
    def now(self) -> float:
        return self.world.loop.now

    @property
    def here(self) -> Gateway:
        assert self.gateway is not None
        return self.gateway

    def of(self, *states: Is) -> Sequence[Known]:
        return [known for known in self.sessions if known.state in states]

    def has_live(self) -> bool:
        return bool(self.of(Is.LIVE))

    def live(self, which: int) -> Known:
        live = self.of(Is.LIVE)
        return live[which % len(live)]

    def real(self, known: Known) -> Session:
        return self.here.registry.get(known.session_id)

    def begin_grace(self, known: Known, at_least_s: float = 0.0) -> None:
        known.grace_until = None if self.grace_s is None else self.now + max(at_least_s, self.grace_s)

    # sessions

    def open(self, owner: str, lease_s: float, upto: str) -> Known | None:
        """Open a session, as far as `upto`: launched, proved, welcomed or ready; None where it is refused."""
        request = SessionRequest("client", "sim", "", lease_s)
        before = set(self.world.processes)
        opening = self.world.loop.finish(self.here.registry.open(request, OWNERS[owner]))
        if opening.done():
            error = opening.exception()
            busy = self.of(Is.LIVE, Is.ADOPTING, Is.OPENING)
            own = sum(known.owner == owner for known in busy)

            assert isinstance(error, GatewayError)
            assert isinstance(error, GatewayDraining) == self.is_draining
            assert self.is_draining or (
                isinstance(error, SessionLimitReached) and (own >= PER_OWNER or len(busy) >= IN_ALL)
            )
            return None
        (session_id,) = set(self.world.processes) - before
        known = Known(session_id, owner, lease_s, self.world.processes[session_id], Is.OPENING)
        self.sessions.append(known)

        assert sum(k.owner == owner for k in self.of(Is.LIVE, Is.ADOPTING, Is.OPENING)) <= PER_OWNER

        if upto != "launched":
            self.world.loop.do(known.process.connect, upto)
        if upto == "ready":
            known.state = Is.LIVE
            known.leased_until = self.now + lease_s

            assert opening.result().id == session_id
        return known

    @rule(owner=st.sampled_from(sorted(OWNERS)), lease_s=leases, attaches=st.booleans(), events=st.integers(0, 5))
    def somebody_opens(self, owner: str, lease_s: float, attaches: bool, events: int) -> None:
        known = self.open(owner, lease_s, "ready")
        if known is not None and attaches:
            for _ in range(events):
                self.world.loop.do(known.process.event)
            self.attach(known, Reader())

    @precondition(has_live)
    @rule(which=st.integers(0, 99))
    def somebody_uses_a_session(self, which: int) -> None:
        known = self.live(which)
        self.real(known).touch()
        known.leased_until = self.now + known.lease_s

    @precondition(lambda self: self.of(Is.LIVE, Is.ADOPTING))
    @rule(which=st.integers(0, 99), by_client=st.booleans())
    def a_session_is_ended(self, which: int, by_client: bool) -> None:
        """Its client closes it, or its worker dies."""
        candidates = self.of(Is.LIVE, Is.ADOPTING)
        known = candidates[which % len(candidates)]
        if by_client:
            assert self.real(known).close(CloseReason.CLIENT)
            self.world.loop.settle()
            known.ends(CloseReason.CLIENT)
        else:
            known.process.die(-11)
            self.world.loop.settle()
            known.ends(CloseReason.WORKER_EXITED)

    # subscribers

    def attach(self, known: Known, reader: Reader) -> None:
        """As the event service attaches, and hold its start place against what is missing."""
        session = self.real(known)
        session.require_ready()
        distributor = session.distributor
        start = Start.OLDEST_RETAINED if reader.at is None else Position(known.process.outbox.epoch, reader.at)
        self.streams += 1
        subscriber = distributor.attach(f"s{self.streams}", start, limits=NO_LIMITS, policy=DisconnectPolicy())
        self.world.loop.do(session.attached)
        place, reader.subscriber = subscriber.place, subscriber
        begins = place.gap.first - 1 if place.gap is not None and place.gap.first else place.cursor
        if reader.at is not None:
            assert begins == reader.at, "it goes on where it was"
        reader.at = begins
        if reader not in known.readers:
            known.readers.append(reader)
        known.had_subscriber, known.grace_until = True, None
        lost_before, head = reader.lost, distributor.log.head
        self.read(reader)

        assert reader.at == head, "all that there is"
        if isinstance(start, Position):
            assert place.recovered == (reader.lost == lost_before), "recovered means that nothing is missing"
            assert place.recovered or self.outbox < known.process.outbox.head_sequence, "the outbox had it all"

    def read(self, reader: Reader) -> None:
        assert reader.subscriber is not None
        assert reader.at is not None
        while (item := reader.subscriber.take(1 << 20)) is not None:
            if isinstance(item, Chunk):
                assert sequences_of(item) == list(range(reader.at + 1, item.last + 1))
                reader.at = item.last
            elif isinstance(item, Gap):
                assert item.first == reader.at + 1
                reader.lost += item.last - reader.at
                reader.at = item.last
            else:
                return

    @precondition(has_live)
    @rule(which=st.integers(0, 99), is_new=st.booleans(), events=st.integers(0, 5))
    def somebody_attaches(self, which: int, is_new: bool, events: int) -> None:
        known = self.live(which)
        for _ in range(events):
            self.world.loop.do(known.process.event)
        away = [reader for reader in known.readers if reader.subscriber is None]
        self.attach(known, Reader() if is_new or not away else away[which % len(away)])

    @precondition(lambda self: any(r.subscriber for k in self.of(Is.LIVE) for r in k.readers))
    @rule(which=st.integers(0, 99), events=st.integers(0, 3), reads=st.booleans())
    def somebody_leaves(self, which: int, events: int, reads: bool) -> None:
        attached = [(k, r) for k in self.of(Is.LIVE) for r in k.readers if r.subscriber]
        known, reader = attached[which % len(attached)]
        for _ in range(events):
            self.world.loop.do(known.process.event)
        if reads:
            self.read(reader)
        self.leave(known, reader)

    def leave(self, known: Known, reader: Reader) -> None:
        session = self.real(known)

        assert reader.subscriber is not None
        if session.distributor.detach(reader.subscriber):
            self.world.loop.do(session.detached)
            known.leased_until = self.now + known.lease_s
            if not self.is_draining:
                self.begin_grace(known)
        reader.subscriber = None

    @precondition(lambda self: any(known.process.is_alive for known in self.of(Is.LIVE, Is.ADOPTING)))
    @rule(which=st.integers(0, 99), events=st.integers(1, 5))
    def events_happen(self, which: int, events: int) -> None:
        alive = [known for known in self.of(Is.LIVE, Is.ADOPTING) if known.process.is_alive]
        for _ in range(events):
            self.world.loop.do(alive[which % len(alive)].process.event)

    # time

    @rule(seconds=st.sampled_from([1.0, 4.0, 11.0, 13.0, 39.0, 60.0, 200.0, 1000.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.pass_time(seconds, self.all_is_as_promised)

    # restarts

    def gone(self) -> None:
        """The gateway is no more; clients know their positions."""
        self.gateway, self.is_draining = None, False
        for known in self.sessions:
            known.grace_until = None
            for reader in known.readers:
                reader.subscriber = None

    def it_is_killed(self) -> None:
        self.here.kill()
        self.gone()

    @rule(restarts=st.lists(restarts, min_size=1, max_size=2))
    def it_is_restarted(self, restarts: list[Restart]) -> None:
        for restart in restarts:
            self.restart(restart)

    def restart(self, restart: Restart) -> None:
        if restart.in_order:
            self.it_drains(restart.drains_s)
        else:
            self.it_is_killed_during(restart.during, restart.owner)
        alive = [known for known in self.of(Is.LIVE, Is.ADOPTING) if known.process.is_alive]
        for known, dies in zip(alive, restart.dies, strict=False):
            for _ in range(restart.events):
                self.world.loop.do(known.process.event)
            if dies:
                known.process.die(-11)
        self.world.pass_time(restart.outage_s, self.all_is_as_promised)
        self.it_starts_again()
        self.world.pass_time(restart.returns_after_s, self.all_is_as_promised)
        for known, returns, resumes in zip(self.returning(), restart.returns, restart.resumes, strict=False):
            if returns:
                self.come_back(known)
            for reader in known.readers if returns and resumes else ():
                self.attach(known, reader)

    def it_drains(self, seconds: float) -> None:
        """It sends everybody away and ends in order."""
        gateway = self.here
        gateway.registry.drain()
        self.is_draining = True
        for known in self.of(Is.LIVE):
            known.grace_until = None
            for reader in known.readers:
                if reader.subscriber is not None:
                    self.leave(known, reader)

        assert self.open("anna", LONGEST_LEASE_S, "ready") is None

        self.world.pass_time(seconds, self.all_is_as_promised)
        kept = self.of(Is.LIVE, Is.ADOPTING)
        gateway.stop()

        assert gateway.left == len(kept)
        assert all(known.process.is_alive for known in kept)
        self.gone()

    def it_is_killed_during(self, during: str, owner: str) -> None:
        match during:
            case "launched" | "proved" | "welcomed":
                self.open(owner, LONGEST_LEASE_S, during)
            case "closes" if self.of(Is.LIVE):
                known = self.of(Is.LIVE)[0]
                known.process.is_stubborn = True
                self.real(known).close(CloseReason.KILLED_BY_OPERATOR)
                self.world.loop.settle()

                assert known.process.is_alive

                known.state, known.reason = Is.CLOSING, CloseReason.KILLED_BY_OPERATOR
            case "comes back: proved" | "comes back: welcomed":
                self.it_is_killed()
                self.it_starts_again()
                for known in self.returning()[:1]:
                    self.world.loop.do(known.process.connect, during.removeprefix("comes back: "))
        self.it_is_killed()

    def it_starts_again(self) -> None:
        self.gateway = self.world.start()
        for known in self.sessions:
            if known.state is Is.CLOSING:
                assert known.reason is not None
                known.ends(known.reason)
            elif known.state is Is.OPENING:
                known.ends(CloseReason.GATEWAY_SHUTDOWN)
            elif known.state is not Is.ENDED and not known.process.is_alive:
                known.ends(CloseReason.WORKER_EXITED)
            elif known.state is not Is.ENDED:
                known.state, known.adopt_until = Is.ADOPTING, self.now + self.adopt_within_s

    def returning(self) -> Sequence[Known]:
        return [known for known in self.of(Is.ADOPTING) if known.process.is_alive and known.process.connection is None]

    @precondition(lambda self: self.returning())
    @rule(which=st.integers(0, 99))
    def a_worker_comes_back(self, which: int) -> None:
        self.come_back(self.returning()[which % len(self.returning())])

    def come_back(self, known: Known) -> None:
        self.world.loop.do(known.process.connect)
        known.state = Is.LIVE
        known.leased_until = self.now + known.lease_s
        if known.had_subscriber:
            self.begin_grace(known, COMING_BACK_S)

    # the promises

    @invariant()
    def all_is_as_promised(self) -> None:
        if self.gateway is None:
            return

        assert not self.here.host.failures

        for known in self.sessions:
            self.check(known)
        live = {session.id for session in self.here.registry.live()}

        assert live == {known.session_id for known in self.of(Is.LIVE, Is.ADOPTING, Is.OPENING)}

    def check(self, known: Known) -> None:
        registry = self.here.registry
        found = registry.find(known.session_id)
        told = registry.ended.find(known.session_id)
        reason = told.info.close_reason if told is not None else None
        attached = any(reader.subscriber is not None for reader in known.readers)
        match known.state:
            case Is.LIVE if self.is_draining or attached:
                assert found is not None, f"it ended while it was used, or the gateway drained: {reason}"
            case Is.LIVE if known.grace_until is not None and self.now >= known.grace_until:
                swept = known.leased_until + SWEEP_S <= known.grace_until
                allowed = {CloseReason.LEASE_EXPIRED} if swept else {CloseReason.DETACH_GRACE_EXPIRED}
                if known.leased_until <= known.grace_until:
                    allowed.add(CloseReason.LEASE_EXPIRED)

                assert found is None, "its grace is over"
                assert reason in allowed
            case Is.LIVE if self.now < known.leased_until:
                assert found is not None, f"it ended within lease and grace: {reason}"
            case Is.LIVE if found is None:
                assert reason is CloseReason.LEASE_EXPIRED
            case Is.LIVE:
                assert self.now < known.leased_until + SWEEP_S, "its lease is over"
            case Is.ADOPTING if self.now >= known.adopt_until:
                assert found is None, "its worker did not come back"
                assert reason is CloseReason.WORKER_SILENT
            case Is.ADOPTING:
                assert found is not None
                assert found.state is SessionState.ADOPTING
            case Is.ENDED:
                assert found is None
                assert reason is known.reason
                with pytest.raises(SessionGone) as gone:
                    registry.get(known.session_id)

                assert gone.value.metadata["close_reason"] == reason.name
                assert told is not None
                assert told.info.owner == known.owner
                assert not known.process.is_alive, "a worker is left behind"
        if found is None and reason is not None and known.state is not Is.ENDED:
            known.ends(reason)

    def teardown(self) -> None:
        """Whatever became of it: it comes back once more, everybody goes, and nothing is left in the end."""
        if not hasattr(self, "world"):
            return
        try:
            self.it_is_restarted(self.last)
            self.all_is_as_promised()
            for known in self.of(Is.LIVE):
                for reader in known.readers:
                    if reader.subscriber is not None:
                        self.leave(known, reader)
            self.world.pass_time(LONGEST_LEASE_S + SWEEP_S, self.all_is_as_promised)

            assert not self.of(Is.LIVE, Is.ADOPTING)
            self.here.registry.drain()
            self.here.stop()
        finally:
            if self.gateway is not None:
                self.gateway.kill()
            self.world.close()


LifetimeMachine.TestCase.settings = settings(
    max_examples=30,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestLifetimes = LifetimeMachine.TestCase


class LongLifetimeMachine(LifetimeMachine):
    """The same, ten thousand times."""


LongLifetimeMachine.TestCase.settings = settings(LifetimeMachine.TestCase.settings, max_examples=10_000)
TestTenThousandLifetimes = pytest.mark.soak(pytest.mark.timeout(3600)(LongLifetimeMachine.TestCase))
