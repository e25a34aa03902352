"""A worker of an earlier gateway run comes back, and so does everybody who would like to be taken for it.

The orphan is the test's own process, so that impostors get as far as the proof; `release` ends each test, as `stop`
would end the test itself.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from support.distributing import NO_LIMITS, Told
from support.events import EPOCH, OTHER_EPOCH, taken, told
from support.peers import SECRET, SESSION, ScriptedWorker, block, scripted_worker
from support.plugins import InstallPlugin
from support.waiting import until

from mxgw.v1.events_pb2 import GapReason
from mxgw.worker.v1 import worker_pb2 as w
from mxgw_core.api import Orphan, WorkerIdentity, WorkerProof, WorkerRefusal, WorkerSpawn, hookimpl
from mxgw_core.api.events import QueueLimits, Retention
from mxgw_core.api.types import CloseReason, Position
from mxgw_core.config import load_settings
from mxgw_core.data_directory import DataDirectory
from mxgw_core.events.distributor import Distributor
from mxgw_core.events.item_book import ItemBook
from mxgw_core.events.start import Start, StartPlace, decide
from mxgw_core.plugins import PluginHost
from mxgw_core.workers import session_worker
from mxgw_core.workers.pool import WarmPool
from mxgw_core.workers.process import found_again
from mxgw_core.workers.session_worker import SessionWorker
from mxgw_worker.ipc.handshake import PROTOCOL_VERSION, WorkerHandshake
from mxgw_worker.platform import boot_id, pid_scope, start_ticks

pytestmark = pytest.mark.asyncio

FORMER = bytes(range(32, 64))
TICKS = start_ticks(os.getpid())
_UID = None if sys.platform == "win32" else os.getuid()  # users of Windows have no numbers


class Witness:
    """A plugin that remembers what it is told."""

    def __init__(self) -> None:
        self.refusals: list[WorkerRefusal] = []
        self.proofs: list[WorkerProof] = []
        self.is_broken = False

    @hookimpl
    def mxgw_worker_refused(self, refusal: WorkerRefusal) -> None:
        self.refusals.append(refusal)

    @hookimpl
    def mxgw_worker_proved(self, proof: WorkerProof) -> None:
        self.proofs.append(proof)
        if self.is_broken:
            raise OSError("the disk is full")


@dataclass
class Setting:
    """A gateway that waits for one worker."""

    worker: SessionWorker
    distributor: Distributor
    path: Path
    witness: Witness
    started: asyncio.Task[None] = field(repr=False)

    def what_arrived(self) -> list[object]:
        subscriber = self.distributor.attach(
            "reader", Start.OLDEST_RETAINED, limits=QueueLimits(0, 0, 0.0), policy=Told(None)
        )
        return told(taken(subscriber))

    async def adopt(self, secret: bytes = SECRET, head: int = 0, oldest: int = 1) -> None:
        """Let the true worker come back, as one that has nothing to send."""
        async with scripted_worker(self.path) as peer:
            await peer.shake(secret=secret, start_ticks=TICKS, head=head, oldest=oldest)
            peer.send(w.WorkerEnvelope(ready=w.Ready(backend="sim 1")))
            await asyncio.shield(self.started)


Waiting = Callable[..., AbstractAsyncContextManager[Setting]]


@pytest.fixture
def waiting(
    tmp_path_factory: pytest.TempPathFactory, install_plugin: InstallPlugin, monkeypatch: pytest.MonkeyPatch
) -> Waiting:
    """Return a context in which a gateway waits for the test itself to come back as its worker."""
    reached: list[str] = []
    monkeypatch.setattr(session_worker, "reach", reached.append)

    @asynccontextmanager
    async def wait(**changes: object) -> AsyncIterator[Setting]:
        witness = Witness()
        install_plugin("witness", witness)
        with DataDirectory(tmp_path_factory.mktemp("d")) as data:
            settings = load_settings(overrides={"plugins.enabled": ["witness"]}, environ={}, directory=data.path)
            plugins = PluginHost.load(settings.settings)
            distributor = Distributor(unattached=Retention(1000, 1 << 20, 0.0))
            spawn = WorkerSpawn(SESSION, "sim", data.socket_of(SESSION), SECRET, "anonymous", "", "", 60.0)
            identity = WorkerIdentity(SESSION, os.getpid(), TICKS, EPOCH, PROTOCOL_VERSION, boot_id())
            orphan = replace(
                Orphan(spawn, identity, former_secret=FORMER, lifetime_s=60.0),
                **changes,  # type: ignore[arg-type]
            )
            worker = SessionWorker(
                spawn,
                settings=settings.settings,
                data=data,
                distributor=distributor,
                items=ItemBook(100),
                plugins=plugins,
                pool=WarmPool(0, "sim", data.log_of_spare, remove=data.remove_later),
                orphan=orphan,
            )
            async with asyncio.TaskGroup() as tasks:
                started = tasks.create_task(_caught(worker), name="adoption")
                try:
                    # Not by looking for the endpoint: to look for a pipe is to connect to it.
                    await until(lambda: "adopt:after-listen" in reached or started.done())
                    yield Setting(worker, distributor, spawn.endpoint, witness, started)
                finally:
                    worker.release()
                    await asyncio.wait((started,))

    return wait


async def test_a_number_that_no_process_can_have_is_no_process() -> None:
    assert found_again(WorkerIdentity(SESSION, 2**62, TICKS, EPOCH, PROTOCOL_VERSION, pid_scope())) is None


async def _caught(worker: SessionWorker) -> None:
    from mxgw_core.api.errors import WorkerStartFailed

    try:
        await worker.start()
    except WorkerStartFailed:
        assert worker.ended.done()


# the true worker


async def test_what_the_outbox_kept_refills_the_log_under_its_own_numbers(waiting: Waiting) -> None:
    async with waiting() as setting, scripted_worker(setting.path) as peer:
        welcome = await peer.shake(start_ticks=TICKS, head=120, oldest=101)

        assert welcome.resume_after == 100

        peer.send(w.WorkerEnvelope(ready=w.Ready(backend="sim 1")), block(101, 119))
        await until(lambda: setting.distributor.log.head == 119)

        assert not setting.started.done(), "it must not serve before all is back: a resume would be ahead of the log"

        peer.send(block(120, 120))
        await asyncio.shield(setting.started)

        assert setting.distributor.epoch == EPOCH
        assert setting.distributor.log.oldest == 101
        assert setting.what_arrived() == list(range(101, 121))


async def _overrun_while_it_shook_hands(setting: Setting, peer: ScriptedWorker) -> None:
    """Say that events from 101 on are there, and then that 101 to 105 were overwritten meanwhile."""
    await peer.shake(start_ticks=TICKS, head=120, oldest=101)
    overrun = GapReason.GAP_REASON_WORKER_OUTBOX_OVERRUN
    peer.send(
        w.WorkerEnvelope(ready=w.Ready(backend="sim 1")),
        w.WorkerEnvelope(gap=w.WorkerGap(first_lost=101, last_lost=103, reason=overrun, count=3)),
        w.WorkerEnvelope(gap=w.WorkerGap(first_lost=104, last_lost=105, reason=overrun, count=2)),
        block(106, 120),
    )
    await asyncio.shield(setting.started)


async def test_what_the_outbox_overwrote_while_it_shook_hands_is_one_exact_gap(waiting: Waiting) -> None:
    async with waiting() as setting, scripted_worker(setting.path) as peer:
        await _overrun_while_it_shook_hands(setting, peer)

        assert setting.what_arrived() == [(101, 105), *range(106, 121)]


async def test_a_log_begins_behind_what_the_outbox_overwrote_while_it_shook_hands(waiting: Waiting) -> None:
    """A store has the events before the refill: said to be complete up to 100, where the Hello had said 101 comes."""
    async with waiting() as setting, scripted_worker(setting.path) as peer:
        await _overrun_while_it_shook_hands(setting, peer)
        start = Position(EPOCH, 50)

        def resumed(older_until: int) -> StartPlace:
            return setting.distributor.attach(
                f"until {older_until}", start, limits=NO_LIMITS, policy=Told(None), older_until=older_until
            ).place

        assert setting.distributor.log.oldest == 106
        assert [(v.recovered, v.cursor) for v in map(resumed, (100, 104, 105))] == [
            (False, 105),
            (False, 105),
            (True, 105),
        ]

        place = decide(setting.distributor.log, EPOCH, Position(EPOCH, 103))

        assert place.gap is not None
        assert (place.recovered, place.gap.first, place.gap.last) == (False, 104, 105)


async def test_what_the_outbox_overwrote_amid_the_refill_is_no_complete_resume(waiting: Waiting) -> None:
    async with waiting() as setting, scripted_worker(setting.path) as peer:
        await peer.shake(start_ticks=TICKS, head=120, oldest=101)
        overrun = GapReason.GAP_REASON_WORKER_OUTBOX_OVERRUN
        peer.send(
            w.WorkerEnvelope(ready=w.Ready(backend="sim 1")),
            block(101, 110),
            w.WorkerEnvelope(gap=w.WorkerGap(first_lost=111, last_lost=115, reason=overrun, count=5)),
            block(116, 120),
        )
        await asyncio.shield(setting.started)
        recovered = {
            after: decide(setting.distributor.log, EPOCH, Position(EPOCH, after)).recovered
            for after in (100, 110, 114, 115, 120)
        }

        assert recovered == {100: False, 110: False, 114: False, 115: True, 120: True}
        assert setting.what_arrived() == [*range(101, 111), (111, 115), *range(116, 121)]


@pytest.mark.parametrize("secret", [SECRET, FORMER], ids=["the next", "the former"])
async def test_a_worker_may_or_may_not_have_heard_its_last_welcome(waiting: Waiting, secret: bytes) -> None:
    async with waiting() as setting:
        await setting.adopt(secret)
        (proof,) = setting.witness.proofs

        assert proof.former_secret == secret
        assert proof.secret not in (SECRET, FORMER)


async def test_a_secret_that_is_neither_is_refused_when_there_is_no_former_one(waiting: Waiting) -> None:
    async with waiting(former_secret=None) as setting:
        assert await _refusal(setting, secret=FORMER) == "BAD_PROOF"

        await setting.adopt()


async def test_an_adoption_that_cannot_be_recorded_serves_all_the_same(
    waiting: Waiting, caplog: pytest.LogCaptureFixture
) -> None:
    async with waiting() as setting:
        setting.witness.is_broken = True
        await setting.adopt()

        assert "will not be adopted again" in caplog.text


async def test_who_does_not_come_back_in_time_is_given_up(waiting: Waiting) -> None:
    async with waiting(adopt_within_s=0.05) as setting:
        await asyncio.shield(setting.started)

        assert setting.worker.ended.result().reason is CloseReason.WORKER_SILENT


async def test_who_comes_back_and_does_not_say_ready_is_given_up(waiting: Waiting) -> None:
    async with waiting(adopt_within_s=0.3) as setting, scripted_worker(setting.path) as peer:
        await peer.shake(start_ticks=TICKS)
        await asyncio.shield(setting.started)

        assert setting.worker.ended.result().reason is CloseReason.WORKER_SILENT


# impostors


async def _refusal(setting: Setting, **shake: object) -> str:
    """Return how a peer is refused that does everything else right."""
    changes = {"session_id": SESSION, "secret": SECRET, "epoch": EPOCH, "pid": os.getpid(), "start_ticks": TICKS}
    handshake = WorkerHandshake(**{**changes, **shake})  # type: ignore[arg-type]
    async with scripted_worker(setting.path) as peer:
        peer.send(w.WorkerEnvelope(hello=handshake.hello(0, 1)))
        envelope = await peer.receive()

        assert envelope is not None

        if envelope.WhichOneof("body") == "challenge":
            peer.send(w.WorkerEnvelope(proof=handshake.on_challenge(envelope.challenge)))
            envelope = await peer.receive()

            assert envelope is not None

        assert envelope.WhichOneof("body") == "reject", envelope

        return envelope.reject.reason


async def _other_version(setting: Setting) -> str:
    async with scripted_worker(setting.path) as peer:
        hello = WorkerHandshake(
            session_id=SESSION, secret=SECRET, epoch=EPOCH, pid=os.getpid(), start_ticks=TICKS
        ).hello(0, 1)
        hello.protocol_version = PROTOCOL_VERSION + 1
        peer.send(w.WorkerEnvelope(hello=hello))
        return await peer.refusal()


class Recorder:
    """Replays a handshake that somebody recorded: Hello and Proof byte by byte, against a fresh challenge."""

    def __init__(self) -> None:
        handshake = WorkerHandshake(session_id=SESSION, secret=SECRET, epoch=EPOCH, pid=os.getpid(), start_ticks=TICKS)
        self._hello = handshake.hello(0, 1)
        self._proof = handshake.on_challenge(w.Challenge(gateway_nonce=bytes(32)))

    async def replay(self, setting: Setting) -> str:
        async with scripted_worker(setting.path) as peer:
            peer.send(w.WorkerEnvelope(hello=self._hello))
            await peer.receive_kind("challenge")
            peer.send(w.WorkerEnvelope(proof=self._proof))
            return await peer.refusal()


async def _without_a_proof(setting: Setting) -> str:
    async with scripted_worker(setting.path) as peer:
        peer.send(w.WorkerEnvelope(ready=w.Ready(backend="sim 1")))
        return await peer.refusal()


async def _garbage(setting: Setting) -> str:
    async with scripted_worker(setting.path) as peer:
        peer.send_raw(b"\xff" * 64)
        return await peer.refusal()


Attack = Callable[[Setting], Awaitable[str]]

ATTACKS: dict[str, tuple[Attack, str]] = {
    "wrong secret": (lambda s: _refusal(s, secret=bytes(32)), "BAD_PROOF"),
    "recorded handshake": (Recorder().replay, "BAD_PROOF"),
    "another session's worker": (lambda s: _refusal(s, session_id="another"), "WRONG_SESSION"),
    "another protocol": (_other_version, "PROTOCOL_VERSION"),
    "a pid that is not the peer's": (lambda s: _refusal(s, pid=os.getpid() + 4), "WRONG_PROCESS"),
    "the pid with another start": (lambda s: _refusal(s, start_ticks=TICKS + 1), "WRONG_PROCESS"),
    "the pid with no start": (lambda s: _refusal(s, start_ticks=0), "WRONG_PROCESS"),
    "another epoch": (lambda s: _refusal(s, epoch=OTHER_EPOCH), "WRONG_EPOCH"),
    "no proof": (_without_a_proof, "UNEXPECTED_MESSAGE"),
    "no protocol": (_garbage, "MALFORMED"),
}


@pytest.mark.parametrize("kind", ATTACKS)
async def test_an_impostor_is_refused_and_the_true_worker_still_adopted(waiting: Waiting, kind: str) -> None:
    attack, reason = ATTACKS[kind]
    async with waiting() as setting:
        assert await attack(setting) == reason
        assert not setting.started.done()
        assert not setting.witness.proofs
        assert [refusal.reason for refusal in setting.witness.refusals] == [reason]

        await setting.adopt()


async def test_a_thousand_impostors_are_refused_every_one_of_them_audited(
    waiting: Waiting, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "mxgw_core.workers.endpoint")
    attempts = 1000
    async with waiting(adopt_within_s=3600.0) as setting:
        for number in range(attempts):
            attack, reason = list(ATTACKS.values())[number % len(ATTACKS)]

            assert await attack(setting) == reason

        assert not setting.started.done()
        assert not setting.witness.proofs
        assert len(setting.witness.refusals) == attempts
        assert sum("refused a worker connection" in record.message for record in caplog.records) == attempts
        assert {(refusal.peer_pid, refusal.peer_uid) for refusal in setting.witness.refusals} == {(os.getpid(), _UID)}

        await setting.adopt()


async def test_a_second_connection_of_an_adopted_worker_is_refused(waiting: Waiting) -> None:
    async with waiting() as setting, scripted_worker(setting.path) as peer:
        await peer.shake(start_ticks=TICKS)
        peer.send(w.WorkerEnvelope(ready=w.Ready(backend="sim 1")))
        await asyncio.shield(setting.started)

        assert await _refusal(setting) == "ALREADY_CONNECTED"
        assert len(setting.witness.proofs) == 1

        peer.send(block(1, 3))
        await until(lambda: setting.distributor.log.head == 3)


async def test_an_impostor_between_hello_and_proof_does_not_keep_the_worker_out(waiting: Waiting) -> None:
    async with waiting() as setting, scripted_worker(setting.path) as impostor:
        await _begin(impostor)
        await setting.adopt()


async def _begin(impostor: ScriptedWorker) -> None:
    handshake = WorkerHandshake(session_id=SESSION, secret=FORMER, epoch=EPOCH, pid=os.getpid(), start_ticks=TICKS)
    impostor.send(w.WorkerEnvelope(hello=handshake.hello(0, 1)))
    await impostor.receive_kind("challenge")
