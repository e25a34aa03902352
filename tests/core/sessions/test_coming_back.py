"""After a take-over the log keeps what the worker's outbox had, until the readers of before had time to come back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support import lifetimes
from support.distributing import NO_LIMITS
from support.events import batch, sequences_of
from support.lifetimes import Gateway, Process, World

from mxgw_core.api.events import Retention
from mxgw_core.api.types import Identity, Position
from mxgw_core.events import log as log_module
from mxgw_core.events.distributor import Distributor
from mxgw_core.events.following import Following
from mxgw_core.events.pieces import Chunk, Gap
from mxgw_core.events.policies import DisconnectPolicy
from mxgw_core.events.start import Start
from mxgw_core.events.subscriber import Subscriber
from mxgw_core.sessions.session import Session, SessionRequest

OUTBOX = 2_000
# How many events happen while no gateway runs.
MEANWHILE = 1_500
# The fewest that the plugin `replay` can be told to retain.
REPLAYED = 1_024
# The log's own limits, far below the outbox.
FEW = 10
BLOCK = 16
COMING_BACK_S = 12.0
GRACE_S = 40.0


class OneSession(World):
    """One session over a kill of its gateway."""

    run: Gateway

    def restarted(self, readers: int, during: int = MEANWHILE, outbox_then: int = OUTBOX) -> tuple[Session, Process]:
        """Let subscribers read the first five events, kill the gateway, and start one after `during` more events."""
        first = self.start()
        request = SessionRequest("c", "sim", "", 300.0)
        opening = self.loop.finish(first.registry.open(request, Identity("a", "key", "a")))
        (process,) = self.processes.values()
        self.loop.do(process.connect)
        for _ in range(5):
            self.loop.do(process.event)
        for number in range(readers):
            self.attached(opening.result(), Start.OLDEST_RETAINED, f"before{number}")
        first.kill()
        for _ in range(during):
            process.event()
        workers = self.settings.workers.model_copy(update={"outbox_events": outbox_then})
        self.settings = self.settings.model_copy(update={"workers": workers})
        self.run = self.start()
        self.loop.do(process.connect)
        return self.run.registry.get(process.session_id), process

    def attached(self, session: Session, start: Start | Position, name: str) -> Subscriber:
        subscriber = session.distributor.attach(name, start, limits=NO_LIMITS, policy=DisconnectPolicy())
        self.loop.do(session.attached)
        return subscriber


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[OneSession]:
    """Return a world whose log forgets after every few events; the parameter is what the plugin `replay` retains."""
    monkeypatch.setattr(log_module, "SEGMENT_EVENTS", BLOCK)
    monkeypatch.setattr(lifetimes, "FRAME_BYTES", 1024)
    with OneSession(
        grace_s=GRACE_S,
        outbox_events=OUTBOX,
        lifetime_s=120.0,
        adopt_within_s=10.0,
        unattached_events=FEW,
        retained_events=getattr(request, "param", None),
    ) as world:
        yield world
        world.run.kill()


def read(subscriber: Subscriber) -> list[object]:
    """Read up to the head; return the sequences of events, and the gaps."""
    found: list[object] = []
    while isinstance(item := subscriber.take(1 << 20), Chunk | Gap):
        found += sequences_of(item) if isinstance(item, Chunk) else [(item.first, item.last)]
    return found


def behind(process: Process, sequence: int) -> Position:
    return Position(process.outbox.epoch, sequence)


@pytest.mark.parametrize("world", [pytest.param(None, id="plain"), pytest.param(REPLAYED, id="replay")], indirect=True)
def test_a_client_that_comes_back_in_time_misses_nothing(world: OneSession) -> None:
    session, process = world.restarted(readers=2)
    world.pass_time(COMING_BACK_S - 1, lambda: None)
    for _ in range(20):
        world.loop.do(process.event)
    first = world.attached(session, behind(process, 5), "first")

    assert first.place.recovered
    assert read(first) == list(range(6, 26 + MEANWHILE))

    second = world.attached(session, behind(process, 3), "second")

    assert read(second) == list(range(4, 26 + MEANWHILE))


def test_a_follower_of_the_new_run_gets_what_the_outbox_had(world: OneSession) -> None:
    session, process = world.restarted(readers=0)
    # A plugin does this in `mxgw_session_opened`, and reads later.
    follower = session.distributor.follow(
        Following(1 << 30, 1 << 30), behind(process, 5), session_id=session.id, name="test", batch_bytes=1 << 16
    )
    world.pass_time(2 * COMING_BACK_S, lambda: None)
    got: list[int] = []
    while (followed := follower._take()) is not None:
        got += range(followed.first, followed.last + 1)  # type: ignore[union-attr]

    assert got == list(range(6, 6 + MEANWHILE))

    follower.acknowledge(5 + MEANWHILE)
    world.loop.do(process.event)

    assert session.distributor.log.events <= FEW + BLOCK


@pytest.mark.parametrize("readers", [0, 1])
def test_without_a_detach_grace_the_log_is_trimmed_when_the_time_to_come_back_is_over(
    world: OneSession, readers: int
) -> None:
    session, process = world.restarted(readers)

    assert session.distributor.log.oldest == 1

    world.pass_time(COMING_BACK_S, lambda: None)

    assert session.distributor.log.events <= FEW + BLOCK

    late = world.attached(session, behind(process, 5), "late")
    oldest = session.distributor.log.oldest

    assert read(late) == [(6, oldest - 1), *range(oldest, 6 + MEANWHILE)]


@pytest.mark.parametrize("world", [REPLAYED], indirect=True)
def test_a_client_that_comes_back_in_the_detach_grace_misses_nothing(world: OneSession) -> None:
    session, process = world.restarted(readers=1)
    world.pass_time(GRACE_S - 1, lambda: None)
    client = world.attached(session, behind(process, 5), "client")

    assert read(client) == list(range(6, 6 + MEANWHILE))

    world.loop.do(process.event)
    read(client)
    world.loop.do(process.event)

    assert session.distributor.log.events <= REPLAYED + BLOCK


def test_the_log_keeps_no_more_than_the_outbox(world: OneSession) -> None:
    session, process = world.restarted(readers=1, during=3 * OUTBOX)

    assert session.distributor.log.events == OUTBOX

    for _ in range(OUTBOX):
        world.loop.do(process.event)

    assert session.distributor.log.events <= OUTBOX + BLOCK


def test_a_worker_that_was_started_with_a_larger_outbox_sends_it_all(world: OneSession) -> None:
    session, _ = world.restarted(readers=1, outbox_then=FEW)

    assert session.distributor.log.oldest == 1


@pytest.mark.parametrize("is_refilled", [False, True])
def test_the_memory_that_a_plugin_grants_a_session_limits_what_is_kept(
    is_refilled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "SEGMENT_EVENTS", 1)
    distributor = Distributor(unattached=Retention(FEW, 1 << 20, 0.0))
    distributor.keep_for_return(Retention(OUTBOX, 1 << 20, 0.0))
    distributor.bound(4_000)
    distributor.refill_after(0)
    for sequence in range(1, 51):
        distributor.append(sequence, sequence, batch([sequence], text="x" * 1_000))
        distributor.flush()
        if is_refilled:
            distributor.refilled()

    assert 4_000 <= distributor.log.bytes <= 6_000
