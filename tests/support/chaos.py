"""Chaos: a gateway is ended again and again under load, its clients resume by themselves, and every stream is checked.

All sessions belong to one key, and each session has the same number of subscribers and the same rate of events. Each
round has one kind. In most kinds the gateway is ended, by SIGKILL, by SIGTERM or by `mxgw drain`, and started again on
the same data directory after a random outage. In the other kind a second gateway is started on a copy of the data
directory, while the first one runs. Gateways and workers are separate processes; the clients run in this process.

This module has more than 400 lines, because a run, its rounds and its report are read together.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import random
import shutil
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field, replace

import grpc.aio

from mxgw.v1 import session_service_pb2 as ss
from mxgw_acl.keys import Scope
from mxgw_acl.store import KeyStore, KeyWishes
from mxgw_client import EventStream, ResumePolicy, Session, connect, errors
from mxgw_core.testing.checker import Lost, StreamChecker
from support.clients import Client
from support.keys import client_with
from support.recording import Recorder, double_of
from support.replaying import subscribe_load
from support.restarts import Restarts, restarts
from support.waiting import until

log = logging.getLogger(__name__)

ITEMS = 10
# Shorter delays than the default, so that a run does not spend its time waiting.
RESUME = ResumePolicy(first_delay_s=0.05, longest_delay_s=0.4, attempt_timeout_s=5.0)
# By default gRPC waits a second and more between attempts to connect, which would be part of the measured times.
_EAGER = (("grpc.initial_reconnect_backoff_ms", 20), ("grpc.max_reconnect_backoff_ms", 20))
_ENVIRONMENT = "chaos"
# Settings of the plugins, for a machine on which a program takes a minute to start.
PATIENT = """
[plugins.replay]
detach_grace_seconds = 3600
[plugins.reattach]
adopt_within_seconds = 600.0
max_orphan_lifetime_seconds = 3600.0
"""


class Kind(enum.Enum):
    """What happens in a round."""

    KILL = "kill"
    TERM = "term"
    DRAIN = "drain"
    COPY = "copy"


@dataclass(frozen=True)
class Plan:
    """The plan of a run: how many rounds of each kind, in random order, and the load.

    `rate` is the number of events per second of all sessions together. `between_s` and `outage_s` are the limits of the
    random times between two rounds and of an outage.

    `is_mxaccess` takes the events from the double of MXAccess instead of the simulator. `is_patient` makes every time
    limit of gateway, workers and clients longer than a program takes to start in Wine on a busy machine.
    """

    rounds: Mapping[Kind, int] = field(default_factory=lambda: dict.fromkeys(Kind, 5))
    sessions: int = 24
    subscribers: int = 1
    rate: int = 2400
    between_s: tuple[float, float] = (0.1, 0.6)
    outage_s: tuple[float, float] = (0.0, 0.5)
    outbox_events: int = 10_000
    seed: int = 1
    is_patient: bool = False
    is_mxaccess: bool = False

    @property
    def patience_s(self) -> float:
        """A wait longer than this fails. It is long, because it only finds what hangs; the machine can be busy."""
        return 600.0 if self.is_patient else 120.0

    @property
    def resume(self) -> ResumePolicy:
        """How the clients come back."""
        return replace(RESUME, attempt_timeout_s=self.patience_s) if self.is_patient else RESUME

    @property
    def fits_outbox(self) -> bool:
        """True when a worker's outbox holds all events of the longest outage and of one second for the start."""
        return (self.outage_s[1] + 1.0) * self.rate / self.sessions <= self.outbox_events

    @property
    def restarts(self) -> int:
        """The number of rounds in which the gateway is ended and started again."""
        return sum(count for kind, count in self.rounds.items() if kind is not Kind.COPY)

    @property
    def settings(self) -> str:
        return f"""
[backends]
default = "load"
[backends.load]
{self._backend}
[limits]
sessions = {max(64, self.sessions)}
sessions_per_owner = {max(32, self.sessions)}
[workers]
outbox_events = {self.outbox_events}
start_timeout_s = {self.patience_s}
heartbeat_interval_s = {self.patience_s / 10 if self.is_patient else 1.0}
[plugins]
enabled = ["acl", "backpressure", "replay", "reattach"]
[plugins.acl]
environment = "{_ENVIRONMENT}"
[plugins.backpressure]
maximum_subscribers = {max(8, self.subscribers)}
{PATIENT if self.is_patient else ""}
"""

    @property
    def _backend(self) -> str:
        if self.is_mxaccess:
            return f'kind = "mxaccess"\ncall_limit_s = {self.patience_s}\nstart_limit_s = {self.patience_s}'
        return f'kind = "sim"\nprofile = "load"\nitems = {ITEMS}\nrate = {self.rate / self.sessions}'

    @property
    def rate_of_double(self) -> dict[str, str]:
        """The environment in which each session of the double of MXAccess has its share of the rate."""
        # The checker knows the order of the events only if the load begins with the last item.
        return {"LMXDOUBLE_RATE": str(self.rate / self.sessions), "LMXDOUBLE_LOAD_ITEMS": str(ITEMS)}


@dataclass
class Subscriber:
    """One stream and its checker."""

    session: Session
    stream: EventStream
    checker: StreamChecker

    async def follow(self) -> None:
        """Pass all frames to the checker until the stream is closed."""
        recorder = Recorder(self.checker, double_of)
        recorder.begin()
        async for frame in self.stream.batches():
            recorder.frame(frame)
        recorder.end("CLIENT")

    @property
    def is_back(self) -> bool:
        return self.stream.opened is not None and not self.stream.is_cut


@dataclass
class Figures:
    """The results of all rounds of one kind.

    `went_on` and `ended` count sessions in each round. `told` counts the sessions that the gateway on a copy reported
    as ended with a reason.
    """

    rounds: int = 0
    went_on: int = 0
    ended: int = 0
    events: int = 0
    gaps: int = 0
    violations: int = 0
    told: int = 0
    adoptions_s: list[float] = field(default_factory=list)

    def line(self, kind: Kind) -> dict[str, object]:
        """Return the results as JSON values for the report."""
        figures: dict[str, object] = {
            "rounds": self.rounds,
            "went_on": self.went_on,
            "unexplained": self.ended + self.violations,
            "events": self.events,
            "gaps": self.gaps,
        }
        if kind is Kind.COPY:
            figures["told"] = self.told
        elif self.adoptions_s:
            figures["adopt_p50_s"] = round(statistics.median(self.adoptions_s), 3)
            figures["adopt_max_s"] = round(max(self.adoptions_s), 3)
        return figures


@dataclass
class Outcome:
    """The results of a run."""

    kinds: dict[Kind, Figures] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    checkers: list[StreamChecker] = field(default_factory=list)

    @property
    def events(self) -> int:
        return sum(checker.events for checker in self.checkers)

    @property
    def gaps(self) -> int:
        return sum(checker.gaps for checker in self.checkers)

    @property
    def violations(self) -> int:
        return sum(checker.counts.total() for checker in self.checkers)

    @property
    def ended(self) -> int:
        return sum(figures.ended for figures in self.kinds.values())

    @property
    def adopted(self) -> int:
        return sum(len(figures.adoptions_s) for figures in self.kinds.values())

    @property
    def unexplained(self) -> int:
        """The number of broken promises: violations that the checkers found, and everything in `wrong`."""
        return self.violations + len(self.wrong)

    def line(self) -> dict[str, object]:
        """Return the results as the JSON object of the last line of output."""
        return {
            **{kind.value: figures.line(kind) for kind, figures in self.kinds.items()},
            "events": self.events,
            "gaps": self.gaps,
            "unexplained": self.unexplained,
        }

    def report(self) -> str:
        """Return a text that says what was wrong."""
        reports = [checker.report() for checker in self.checkers if checker.violations]
        return "\n".join([*reports[:5], f"{self.ended} times a session had ended", *self.wrong])


@dataclass
class Run:
    """A run that has begun: its gateway, the key of all sessions, the subscribers, and the results so far."""

    gateway: Restarts
    key: str
    plan: Plan
    outcome: Outcome
    chance: random.Random
    subscribers: list[Subscriber] = field(default_factory=list)

    @property
    def session_ids(self) -> set[str]:
        return {subscriber.session.session_id for subscriber in self.subscribers}

    async def round(self, kind: Kind) -> None:
        """Carry out one round, and add its results to those of its kind."""
        figures = self.outcome.kinds.setdefault(kind, Figures())
        before = (self.outcome.events, self.outcome.gaps, self.outcome.violations)
        pids = {worker.pid for worker in self.gateway.workers()}
        await asyncio.sleep(self.chance.uniform(*self.plan.between_s))
        if kind is Kind.COPY:
            figures.told += await self._beside_a_copy()
            async with self.client() as client:
                sessions = await _own_sessions(client, self.session_ids)
            self._count(figures, sessions)
            missing = self.session_ids - {session.session_id for session in sessions}
            figures.ended += len(missing)
            self.outcome.wrong += [f"session {session_id} is not there beside a copy" for session_id in missing]
        else:
            await self._end(kind)
            await asyncio.sleep(self.chance.uniform(*self.plan.outage_s))
            times = await self._restart(figures)
            figures.adoptions_s += times
            log.info("%s: %d adopted, the last after %.2f s", kind.value, len(times), max(times, default=0.0))
        if figures.ended == 0:
            await until(lambda: all(s.is_back for s in self.subscribers), self.plan.patience_s)
        if {worker.pid for worker in self.gateway.workers()} != pids:
            self.outcome.wrong.append(f"{kind.value}: the workers are not those of before")
        figures.rounds += 1
        after = (self.outcome.events, self.outcome.gaps, self.outcome.violations)
        figures.events += after[0] - before[0]
        figures.gaps += after[1] - before[1]
        figures.violations += after[2] - before[2]

    async def _end(self, kind: Kind) -> None:
        match kind:
            case Kind.KILL:
                await self.gateway.kill()
            case Kind.TERM:
                await self.gateway.terminate(self.plan.patience_s)
            case _:
                done = await self.gateway.drain()
                if done.returncode != 0:
                    self.outcome.wrong.append(f"mxgw drain: {done.stderr}")
                await self.gateway.ended(self.plan.patience_s)

    async def _restart(self, figures: Figures) -> list[float]:
        """Start the gateway.

        Return, for each session that goes on, the seconds from this start until the session was READY.
        """
        began = time.monotonic()
        times: list[float] = []
        waiting = set(self.session_ids)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.gateway.start(), name="chaos:start")
            async with self.client() as client:
                while waiting:
                    if time.monotonic() - began > self.plan.patience_s:
                        break
                    for session in await _sessions(client):
                        if session.session_id not in waiting or session.state == ss.SESSION_STATE_ADOPTING:
                            continue
                        waiting.discard(session.session_id)
                        self._count(figures, [session])
                        if session.state == ss.SESSION_STATE_READY:
                            times.append(time.monotonic() - began)
                    await asyncio.sleep(0.005)
        for session_id in waiting:
            figures.ended += 1
            self.outcome.wrong.append(f"session {session_id} is not there after a restart")
        return times

    def _count(self, figures: Figures, sessions: list[ss.Session]) -> None:
        for session in sessions:
            if session.state == ss.SESSION_STATE_READY:
                figures.went_on += 1
            else:
                figures.ended += 1
                reason = ss.CloseReason.Name(session.close_reason)
                self.outcome.wrong.append(f"session {session.session_id}: {reason} {session.close_detail}")

    async def _beside_a_copy(self) -> int:
        """Run a gateway on a copy of the data directory for a moment.

        Return how many of the sessions it knows as ended.
        """
        directory = self.gateway.directory / "copy"
        directory.mkdir()
        copy = Restarts(directory, self.plan.settings)
        try:
            await asyncio.to_thread(_copy, self.gateway, copy)
            await copy.start()
            async with client_with(copy.target, self.key, options=_EAGER) as client:
                sessions = await _own_sessions(client, self.session_ids)
            for session in sessions:
                if session.close_reason == ss.CLOSE_REASON_UNSPECIFIED:
                    self.outcome.wrong.append(f"session {session.session_id} goes on at a copy")
            await (copy.kill() if self.chance.random() < 0.5 else copy.terminate(self.plan.patience_s))
            return len(sessions)
        finally:
            if copy.process is not None:
                await copy.kill()
            await asyncio.to_thread(shutil.rmtree, directory)

    def client(self) -> AbstractAsyncContextManager[Client]:
        """Return a connection to the gateway that presents the key."""
        return client_with(self.gateway.target, self.key, options=_EAGER)


def _copy(gateway: Restarts, copy: Restarts) -> None:
    """Copy the data directory as `cp -a` would, but without sockets, SQLite's shared memory and dangling links."""
    passing = shutil.ignore_patterns("*.sock", "*-shm")
    shutil.copytree(gateway.data, copy.data, ignore=passing, ignore_dangling_symlinks=True)


async def run(plan: Plan, gateways: Callable[[str], AbstractAsyncContextManager[Restarts]] = restarts) -> Outcome:
    """Carry out the plan on the gateway that `gateways` makes of the settings, and return the results."""
    outcome = Outcome()
    chance = random.Random(plan.seed)
    kinds = [kind for kind, count in plan.rounds.items() for _ in range(count)]
    chance.shuffle(kinds)
    async with gateways(plan.settings) as gateway:
        this = Run(gateway, _key(gateway), plan, outcome, chance)
        await gateway.start()
        async with AsyncExitStack() as stack:
            tasks = await stack.enter_async_context(asyncio.TaskGroup())
            await _subscribe(this, stack)
            following = [
                tasks.create_task(subscriber.follow(), name=f"follow:{number}")
                for number, subscriber in enumerate(this.subscribers)
            ]
            await until(lambda: all(s.is_back for s in this.subscribers), plan.patience_s)
            for number, kind in enumerate(kinds):
                began = time.monotonic()
                await this.round(kind)
                log.info("round %d of %d: %.1f s", number + 1, len(kinds), time.monotonic() - began)
                if outcome.ended:
                    # After the end of a session, each further round would count the session as ended once more.
                    break
            if not outcome.ended:
                await _finish(this)
            for subscriber in this.subscribers:
                await subscriber.stream.close()
            for task in following:
                await task
            await _close(this)
        await gateway.terminate(plan.patience_s)
        try:
            await gateway.all_is_gone(plan.patience_s)
        except TimeoutError:
            outcome.wrong.append(f"left: {gateway.workers()} {gateway.sockets()} {gateway.rows()}")
    return outcome


def _key(gateway: Restarts) -> str:
    """Create the key to which all sessions belong, and return its text."""
    directory = gateway.data / "acl"
    directory.mkdir(parents=True, mode=0o700)
    store = KeyStore(directory)
    try:
        scopes = frozenset(Scope) - {Scope.ALL_SESSIONS, Scope.ADMIN}
        _, text = store.create(KeyWishes("chaos", scopes), _ENVIRONMENT)
        return text.text()
    finally:
        store.close()


async def _subscribe(this: Run, stack: AsyncExitStack) -> None:
    """Open the sessions, advise their items, and create the streams."""

    def excused(lost: Lost) -> bool:
        return not this.plan.fits_outbox and lost.reason in ("RING_EVICTED", "WORKER_OUTBOX_OVERRUN")

    for number in range(this.plan.sessions):
        client = await stack.enter_async_context(
            connect(this.gateway.target, api_key=this.key, timeout_s=this.plan.patience_s)
        )
        session = await client.open_session(client_name=f"chaos {number}").open()
        oracle = await subscribe_load(session, ITEMS)
        for _ in range(this.plan.subscribers):
            checker = StreamChecker(oracle, may_lose=excused)
            this.outcome.checkers.append(checker)
            this.subscribers.append(Subscriber(session, session.events(resume=this.plan.resume), checker))


async def _sessions(client: Client) -> list[ss.Session]:
    try:
        request = ss.ListSessionsRequest(include_ended=True, page_size=1000)
        return list((await client.sessions.ListSessions(request, timeout=60, wait_for_ready=True)).sessions)
    except grpc.aio.AioRpcError:
        return []


async def _own_sessions(client: Client, session_ids: set[str]) -> list[ss.Session]:
    """Return those of the given sessions that the gateway knows, whether they are live or ended."""
    request = ss.ListSessionsRequest(include_ended=True, page_size=1000)
    answer = await client.sessions.ListSessions(request, timeout=120, wait_for_ready=True)
    return [session for session in answer.sessions if session.session_id in session_ids]


async def _finish(this: Run) -> None:
    """Wait until every subscriber has all events up to the present head of its session."""
    async with this.client() as client:
        heads = {session.session_id: session.head_sequence for session in await _sessions(client)}

    def has_all(subscriber: Subscriber) -> bool:
        at = subscriber.checker.position
        return at is not None and at.sequence >= heads[subscriber.session.session_id]

    await until(lambda: all(map(has_all, this.subscribers)), this.plan.patience_s)


async def _close(this: Run) -> None:
    """Finish the checkers, and close the sessions."""
    for subscriber in this.subscribers:
        subscriber.checker.finish()
    for session in {s.session.session_id: s.session for s in this.subscribers}.values():
        try:
            await session.close()
        except (errors.SessionNotFound, errors.SessionEnded):
            log.warning("session %s is gone already", session.session_id)
