"""Chaos: a gateway is killed again and again under load, its clients come back by themselves, and the judge watches.

Sessions with some subscribers each share the rate. A kill is SIGKILL at a random moment; after a random outage the
gateway is started again on the same directory, and from there the time is taken until each session serves. Gateway and
workers are processes of their own, the clients live here.
"""

from __future__ import annotations

import asyncio
import logging
import random
import statistics
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import grpc.aio

from mxgw.v1 import session_service_pb2 as ss
from mxgw_client import EventStream, ResumePolicy, Session, connect, errors
from mxgw_core.testing.checker import Lost, StreamChecker
from support.clients import Client, client_of
from support.recording import Recorder, double_of
from support.replaying import subscribe_load
from support.restarts import Restarts, restarts
from support.waiting import until

log = logging.getLogger(__name__)

ITEMS = 10
# Quicker than the default, so that a run does not consist of waiting.
RESUME = ResumePolicy(first_delay_s=0.05, longest_delay_s=0.4, attempt_timeout_s=5.0)
_PATIENCE_S = 30.0
# gRPC waits a second and more between attempts to connect; what is measured is the gateway, not that.
_EAGER = (("grpc.initial_reconnect_backoff_ms", 20), ("grpc.max_reconnect_backoff_ms", 20))


@dataclass(frozen=True)
class Plan:
    """What to do. `rate` is events/s of all sessions together; seconds between kills and of outages are random."""

    kills: int = 25
    sessions: int = 8
    subscribers: int = 4
    rate: int = 4000
    between_s: tuple[float, float] = (0.1, 0.6)
    outage_s: tuple[float, float] = (0.0, 0.5)
    outbox_events: int = 10_000
    seed: int = 1

    @property
    def fits_outbox(self) -> bool:
        """Whether no outage can be longer than the outbox reaches; a second is for the start of the gateway."""
        return (self.outage_s[1] + 1.0) * self.rate / self.sessions <= self.outbox_events

    @property
    def settings(self) -> str:
        return f"""
[backends]
default = "load"
[backends.load]
kind = "sim"
profile = "load"
items = {ITEMS}
rate = {self.rate / self.sessions}
[limits]
sessions = {max(64, self.sessions)}
[workers]
outbox_events = {self.outbox_events}
[plugins]
enabled = ["backpressure", "replay", "reattach"]
[plugins.backpressure]
maximum_subscribers = {max(8, self.subscribers)}
[plugins.replay]
detach_grace_seconds = "none"
"""


@dataclass
class Subscriber:
    """One stream and its judge."""

    session: Session
    stream: EventStream
    checker: StreamChecker

    async def follow(self) -> None:
        """Feed the judge until the stream is closed."""
        recorder = Recorder(self.checker, double_of)
        recorder.begin()
        async for frame in self.stream.batches():
            recorder.frame(frame)
        recorder.end("CLIENT")

    @property
    def is_back(self) -> bool:
        return self.stream.opened is not None and not self.stream.is_cut


@dataclass
class Outcome:
    """What a run showed."""

    kills: int = 0
    adoptions_s: list[float] = field(default_factory=list)
    lost_sessions: int = 0
    left_over: list[str] = field(default_factory=list)
    checkers: list[StreamChecker] = field(default_factory=list)

    @property
    def violations(self) -> int:
        return sum(checker.counts.total() for checker in self.checkers)

    @property
    def gaps(self) -> int:
        return sum(checker.gaps for checker in self.checkers)

    def line(self) -> dict[str, object]:
        """Return the figures of the last line."""
        times = self.adoptions_s or [0.0]
        return {
            "kills": self.kills,
            "events": sum(checker.events for checker in self.checkers),
            "gaps": self.gaps,
            "unexplained": self.violations,
            "adopted": len(self.adoptions_s),
            "adopt_p50_s": round(statistics.median(times), 3),
            "adopt_max_s": round(max(times), 3),
        }

    def report(self) -> str:
        """Return what was wrong, in words."""
        reports = [checker.report() for checker in self.checkers if checker.violations]
        return "\n".join([*reports[:5], f"{self.lost_sessions} sessions lost", *self.left_over])


async def run(plan: Plan) -> Outcome:
    """Carry the plan out."""
    outcome = Outcome()
    chance = random.Random(plan.seed)
    async with restarts(plan.settings) as gateway:
        await gateway.start()
        async with AsyncExitStack() as stack:
            tasks = await stack.enter_async_context(asyncio.TaskGroup())
            subscribers = await _subscribe(gateway, plan, outcome, stack)
            following = [
                tasks.create_task(subscriber.follow(), name=f"follow:{number}")
                for number, subscriber in enumerate(subscribers)
            ]
            pids = {worker.pid for worker in gateway.workers()}
            for number in range(plan.kills):
                await until(lambda: all(s.is_back for s in subscribers), _PATIENCE_S)
                await asyncio.sleep(chance.uniform(*plan.between_s))
                await gateway.kill()
                outcome.kills += 1
                await asyncio.sleep(chance.uniform(*plan.outage_s))
                times = await _restart(gateway, {s.session.session_id for s in subscribers})
                outcome.adoptions_s += times
                outcome.lost_sessions += plan.sessions - len(times)
                log.info("kill %d: %d adopted, the last after %.2f s", number + 1, len(times), max(times, default=0.0))
            await until(lambda: all(s.is_back for s in subscribers), _PATIENCE_S)
            if {worker.pid for worker in gateway.workers()} != pids:
                outcome.left_over.append("the workers are not those of the beginning")
            await _finish(gateway, subscribers)
            for task in following:
                await task
            await _close(gateway, subscribers)
        await gateway.terminate()
        try:
            await gateway.all_is_gone()
        except TimeoutError:
            outcome.left_over.append(f"left: {gateway.workers()} {gateway.sockets()} {gateway.rows()}")
    return outcome


async def _subscribe(gateway: Restarts, plan: Plan, outcome: Outcome, stack: AsyncExitStack) -> list[Subscriber]:
    """Open the sessions, advise their items, and make their streams."""

    def excused(lost: Lost) -> bool:
        return not plan.fits_outbox and lost.reason in ("RING_EVICTED", "WORKER_OUTBOX_OVERRUN")

    subscribers = []
    for number in range(plan.sessions):
        client = await stack.enter_async_context(connect(gateway.target))
        session = await client.open_session(client_name=f"chaos {number}").open()
        oracle = await subscribe_load(session, ITEMS)
        for _ in range(plan.subscribers):
            checker = StreamChecker(oracle, may_lose=excused)
            outcome.checkers.append(checker)
            subscribers.append(Subscriber(session, session.events(resume=RESUME), checker))
    return subscribers


async def _restart(gateway: Restarts, session_ids: set[str]) -> list[float]:
    """Start the gateway, and return for each session how long it took from there until it served."""
    began = time.monotonic()
    times: list[float] = []
    waiting = set(session_ids)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(gateway.start(), name="chaos:start")
        async with client_of(gateway.target, options=_EAGER) as client:
            while waiting:
                if time.monotonic() - began > _PATIENCE_S:
                    break
                for session in await _sessions(client):
                    if session.session_id in waiting and session.state == ss.SESSION_STATE_READY:
                        waiting.discard(session.session_id)
                        times.append(time.monotonic() - began)
                    elif session.session_id in waiting and session.state != ss.SESSION_STATE_ADOPTING:
                        waiting.discard(session.session_id)  # it is over, and counts as lost
                await asyncio.sleep(0.005)
    return times


async def _sessions(client: Client) -> list[ss.Session]:
    try:
        request = ss.ListSessionsRequest(include_ended=True, page_size=1000)
        return list((await client.sessions.ListSessions(request, timeout=60, wait_for_ready=True)).sessions)
    except grpc.aio.AioRpcError:
        return []


async def _finish(gateway: Restarts, subscribers: list[Subscriber]) -> None:
    """Wait until every subscriber has everything up to one moment, close its stream, and let the judge conclude."""
    async with client_of(gateway.target) as client:
        heads = {session.session_id: session.head_sequence for session in await _sessions(client)}

    def has_all(subscriber: Subscriber) -> bool:
        at = subscriber.checker.position
        return at is not None and at.sequence >= heads[subscriber.session.session_id]

    await until(lambda: all(map(has_all, subscribers)), _PATIENCE_S)
    for subscriber in subscribers:
        await subscriber.stream.close()


async def _close(gateway: Restarts, subscribers: list[Subscriber]) -> None:
    for subscriber in subscribers:
        subscriber.checker.finish()
    for session in {s.session.session_id: s.session for s in subscribers}.values():
        try:
            await session.close()
        except errors.SessionNotFound:
            log.warning("session %s is gone already", session.session_id)
    assert gateway.process is not None
