"""Opens, finds and ends the sessions of the gateway, and takes over sessions of an earlier gateway."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from mxgw_core.api.errors import (
    GatewayDraining,
    SessionLimitReached,
    SessionNotFound,
    UnknownBackend,
)
from mxgw_core.api.types import CloseReason, EndedSession, Identity, SessionInfo
from mxgw_core.api.workers import Orphan, OrphanVerdict, WorkerSpawn, same_data_dir
from mxgw_core.config.models import Settings
from mxgw_core.data_directory import DataDirectory
from mxgw_core.events.following import Following
from mxgw_core.plugins import PluginHost
from mxgw_core.sessions.ended import EndedSessions, RememberedSession
from mxgw_core.sessions.memory import GatewayMemory
from mxgw_core.sessions.openings import Openings
from mxgw_core.sessions.session import Session, SessionRequest
from mxgw_core.sessions.totals import AdoptionOutcome, SessionTotals
from mxgw_core.workers.orphans import OrphanDecision
from mxgw_core.workers.pool import WarmPool
from mxgw_core.workers.session_worker import SessionWorker
from mxgw_worker.ipc.handshake import SECRET_BYTES

log = logging.getLogger(__name__)

# 144 random bits. A session id is a name and no credential. Source: ASVS 11.5.1 asks for at least 128 bits.
_ID_BYTES = 18
# How often the memory of all sessions is checked.
_MEMORY_WATCH_S = 1.0


def _new_id() -> str:
    """Return a session id that does not look like an option of a command line."""
    while (session_id := secrets.token_urlsafe(_ID_BYTES)).startswith("-"):
        pass
    return session_id


class SessionRegistry:
    """All sessions of the gateway, and their tasks. Hold it open as an async context manager while the gateway serves.

    At the end of the context all sessions end with GATEWAY_SHUTDOWN, and the context waits until their workers have
    ended. Sessions whose workers outlive the gateway do not end: they are left to the next gateway.
    """

    def __init__(
        self,
        settings: Settings,
        plugins: PluginHost,
        data: DataDirectory,
        *,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`clock` returns monotonic seconds, for leases and detach grace. Tests that replace it also replace the clock
        of the event loop.
        """
        self._settings = settings
        self._plugins = plugins
        self._data = data
        self._clock = clock
        self._live: dict[str, Session] = {}
        self.ended = EndedSessions(settings.limits.remembered_sessions)
        self._opened = 0
        self._openings = Openings()
        self.totals = SessionTotals()
        self._tasks = asyncio.TaskGroup()
        self._sweeper: asyncio.Task[None] | None = None
        self._memory_watch: asyncio.Task[None] | None = None
        default = settings.default_backend
        kind = settings.backends[default].kind or default
        workers = settings.workers
        self.pool = WarmPool(
            workers.warm_pool,
            kind,
            data.log_of_spare,
            remove=data.remove_later,
            parallel=workers.parallel_starts,
            python=workers.python,
        )
        self.memory = GatewayMemory(
            settings.limits.memory_bytes, settings.events.unattached_bytes, self._openings.bytes_by_owner
        )
        # The followers of all sessions, also of sessions that have ended and are not read to their end yet.
        self.following = Following(settings.events.follow_bytes, settings.events.follow_total_bytes)
        self.draining = False

    async def __aenter__(self) -> SessionRegistry:
        await self._tasks.__aenter__()
        self._sweeper = self._tasks.create_task(self._sweep(), name="sessions:sweeper")
        self._memory_watch = self._tasks.create_task(self._watch_memory(), name="sessions:memory")
        self._tasks.create_task(self.pool.run(), name="sessions:spares")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.drain()
        if self._sweeper is not None:
            self._sweeper.cancel()
        if self._memory_watch is not None:
            self._memory_watch.cancel()
        self.pool.stop()
        self.release_all()
        await self._tasks.__aexit__(None, None, None)

    def drain(self) -> None:
        """Refuse new sessions from now on. Open sessions are no longer ended because of lease or detach grace."""
        self.draining = True
        for session in self._live.values():
            session.drain()

    def close_all(self, reason: CloseReason) -> None:
        """Start to end every session."""
        for session in tuple(self._live.values()):
            session.close(reason)

    def release_all(self) -> int:
        """Leave each session to the next gateway if its worker can wait, otherwise end it.

        Return how many sessions are left to the next gateway.
        """
        for session in tuple(self._live.values()):
            session.release()
        return sum(session.is_left for session in self._live.values())

    async def wait_closed(self) -> None:
        """Return when every session that is live now has ended or was left to the next gateway."""
        live = [session.closed for session in self._live.values()]
        if live:
            await asyncio.wait(live)

    async def open(self, request: SessionRequest, owner: Identity) -> Session:
        """Open a session, and return it when it is READY. A repeated request gets the session of the first request.

        When the caller stops waiting before the session is READY, the session ends. A session that was opened with a
        request id does not end at once, because the request can be repeated (see `Opening.wait`).

        Raises:
            RequestIdReused, SessionGone, RequestIdLimitReached: see `Openings.find`.
            GatewayDraining: the gateway is shutting down.
            UnknownBackend: the settings define no such backend.
            SessionLimitReached: too many sessions are open, either in all or of this owner.
            MemoryLimitReached: the events of open sessions use too much memory.
            WorkerStartFailed: the worker of the session did not become ready.
        """
        if self.draining:
            raise GatewayDraining("the gateway is shutting down: try again later", retry_after_s=5.0)
        repeated = self._openings.find(request, owner.id)
        if repeated is not None:
            return await repeated.wait()
        if request.backend not in self._settings.backends:
            known = ", ".join(sorted(self._settings.backends))
            raise UnknownBackend(
                f"no backend is named {request.backend!r}: use one of {known}, or define [backends.{request.backend}] "
                "in the gateway's settings",
                metadata={"backends": known},
            )
        if not request.is_internal:
            self._require_room(owner)
            self.memory.require_room(owner.id)
        session_id = _new_id()
        self._opened += 1
        session = Session(
            session_id,
            self._opened,
            request,
            owner,
            settings=self._settings,
            plugins=self._plugins,
            make_worker=self._make_worker,
            clock=self._clock,
        )
        self._live[session_id] = session
        self.memory.watch(session.distributor, owner.id, session.worker.commands)
        opening = self._openings.add(session)
        self.totals.starting(session)
        self._tasks.create_task(self._run(session), name=f"session:{session_id}")
        try:
            await opening.wait()
        except asyncio.CancelledError:
            if not request.key:
                session.close(CloseReason.CLIENT, "its client gave up while it was starting")
            raise
        log.info(
            "session %s (%s) is ready: backend %s, worker %d",
            session_id,
            request.client_name or "unnamed",
            request.backend,
            session.worker.pid,
        )
        return session

    def _require_room(self, owner: Identity) -> None:
        limits = self._settings.limits
        if self.clients >= limits.sessions:
            raise SessionLimitReached(
                f"{limits.sessions} sessions are open, as many as limits.sessions allows: close one, or raise the "
                "limit",
                metadata={"limit": str(limits.sessions), "setting": "limits.sessions"},
                retry_after_s=5.0,
            )
        # When no plugin authenticates callers, all callers are the same owner, so a limit per owner makes no sense.
        if not self._plugins.implements("mxgw_authenticate"):
            return
        own = sum(session.owner.id == owner.id and not session.request.is_internal for session in self._live.values())
        if own >= limits.sessions_per_owner:
            raise SessionLimitReached(
                f"this caller has {own} sessions open, as many as limits.sessions_per_owner allows: close one, go back "
                "to one that waits for a subscriber, or raise the limit",
                metadata={"limit": str(limits.sessions_per_owner), "setting": "limits.sessions_per_owner"},
                retry_after_s=5.0,
            )

    def remember(self, ended: Iterable[EndedSession]) -> None:
        """Remember sessions that ended in earlier runs of the gateway. `ended` has them in the order of their ends."""
        for session in ended:
            self._opened += 1
            self.ended.add(RememberedSession(session.info, self._opened, session.closed_at, session.lease_s))
            self._openings.remember(session)

    def take_over(self, orphan: Orphan, decision: OrphanDecision) -> None:
        """Begin to carry out the decision about an orphan, without waiting for the result.

        For ADOPT the session is live again; its state is ADOPTING until the worker is ready. For TERMINATE, and when
        the adoption fails, the session ends like any other session, and its close reason is remembered. For IGNORE, and
        when the orphan belongs to another data directory, nothing is done.
        """
        spawn = orphan.spawn
        if not same_data_dir(spawn.data_dir_id, self._data.id):
            # Perhaps a gateway of the other data directory uses the process, so it is left alone.
            log.warning(
                "worker %d of session %s belongs to another data directory", orphan.worker.pid, spawn.session_id
            )
            decision = OrphanDecision(OrphanVerdict.IGNORE)
        if decision.verdict is OrphanVerdict.IGNORE or spawn.session_id in self._live:
            log.info("worker %d of session %s is left alone", orphan.worker.pid, spawn.session_id)
            self.totals.adoptions[AdoptionOutcome.IGNORED] += 1
            return
        # The data directory was perhaps moved since the worker started. The socket must be in the present directory.
        orphan = replace(orphan, spawn=replace(spawn, endpoint=self._data.socket_of(spawn.session_id)))
        self._opened += 1
        session = Session(
            spawn.session_id,
            self._opened,
            SessionRequest(
                spawn.client_name,
                spawn.backend,
                spawn.tag,
                spawn.lease_s,
                key=spawn.request_key,
                digest=spawn.request_digest,
            ),
            Identity(spawn.owner, spawn.owner_kind, spawn.owner_name),
            settings=self._settings,
            plugins=self._plugins,
            make_worker=self._adopting(orphan),
            clock=self._clock,
            adopted_from=spawn.opened_at,
            had_subscriber=orphan.had_subscriber,
        )
        self._live[session.id] = session
        self.memory.watch(session.distributor, spawn.owner, session.worker.commands)
        self._openings.add(session, was_opened=orphan.was_ready)
        if decision.verdict is OrphanVerdict.TERMINATE:
            session.close(decision.reason, decision.detail)
            self.totals.adoptions[AdoptionOutcome.TERMINATED] += 1
        else:
            self.totals.adopting(session)
        self._tasks.create_task(self._run(session), name=f"session:{session.id}")

    def _adopting(self, orphan: Orphan) -> Callable[[Session], SessionWorker]:
        return lambda session: self._worker(session, orphan.spawn, orphan)

    def _make_worker(self, session: Session) -> SessionWorker:
        request, owner = session.request, session.owner
        spawn = WorkerSpawn(
            session_id=session.id,
            backend=request.backend,
            endpoint=self._data.socket_of(session.id),
            secret=secrets.token_bytes(SECRET_BYTES),
            owner=owner.id,
            tag=request.tag,
            client_name=request.client_name,
            lease_s=request.lease_s,
            owner_kind=owner.kind,
            owner_name=owner.display_name,
            opened_at=session.opened_at,
            data_dir_id=self._data.id,
            request_key=request.key,
            request_digest=request.digest,
        )
        return self._worker(session, spawn)

    def _worker(self, session: Session, spawn: WorkerSpawn, orphan: Orphan | None = None) -> SessionWorker:
        return SessionWorker(
            spawn,
            settings=self._settings,
            data=self._data,
            distributor=session.distributor,
            items=session.items,
            plugins=self._plugins,
            pool=self.pool,
            orphan=orphan,
        )

    async def _run(self, session: Session) -> None:
        try:
            await session.run()
        finally:
            self._live.pop(session.id, None)
            self._openings.over(session)
            self.totals.over(session)
            self.ended.add(RememberedSession.of(session))
            session.distributor.release()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(self._settings.limits.sweep_interval_s)
            self.sweep()
            self._data.sweep()

    async def _watch_memory(self) -> None:
        while True:
            await asyncio.sleep(_MEMORY_WATCH_S)
            await self.memory.relieve()

    def sweep(self) -> int:
        """End the sessions whose lease has expired. Return the number of these sessions."""
        return sum(session.expire_if_idle() for session in tuple(self._live.values()))

    # looking up sessions

    def __len__(self) -> int:
        return len(self._live)

    @property
    def clients(self) -> int:
        """The number of live sessions that clients opened. Sessions of the gateway itself do not count."""
        return sum(not session.request.is_internal for session in self._live.values())

    def live(self) -> Sequence[Session]:
        """Return the live sessions, oldest first."""
        return tuple(self._live.values())

    def find(self, session_id: str) -> Session | None:
        """Return the live session with this id; None when there is none."""
        return self._live.get(session_id)

    def opened_by(self, key: bytes) -> SessionInfo | None:
        """Return the live session that a request with this key has opened or is opening; None when there is none."""
        session = self._openings.session_of(key) if key else None
        return None if session is None else session.info()

    def info(self, session_id: str) -> SessionInfo | None:
        """Return a session, live or ended, as plugins see it; None when no known session has this id."""
        session = self._live.get(session_id)
        if session is not None:
            return session.info()
        ended = self.ended.find(session_id)
        return ended.info if ended is not None else None

    def is_internal(self, session_id: str) -> bool:
        """Return whether a session, live or ended, is one that the gateway opened for itself."""
        session = self._live.get(session_id)
        if session is not None:
            return session.request.is_internal
        ended = self.ended.find(session_id)
        return ended is not None and ended.info.is_internal

    def knows_epoch(self, epoch: bytes) -> bool:
        """Return whether a session that is live or ended lately has this epoch."""
        live = any(session.distributor.epoch == epoch for session in self._live.values())
        return live or any(ended.info.epoch == epoch for ended in self.ended.all())

    def get(self, session_id: str) -> Session:
        """Return the live session with this id.

        Raises:
            SessionGone: the session has ended. The error says why.
            SessionNotFound: no known session has this id.
        """
        session = self._live.get(session_id)
        if session is not None:
            return session
        self.ended.check_gone(session_id)
        raise SessionNotFound("no session has this id: it may have ended long ago; open a new one")
