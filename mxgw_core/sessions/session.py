"""One session: its state, its worker, its log and subscribers, its lease.

A session is CREATING, READY, CLOSING and CLOSED, one after the other. A failure makes it FAULTED. A session that is
taken over after a restart of the gateway begins as ADOPTING in place of CREATING. Only the task that runs `run` changes
the state; the other methods ask this task to do so. The module has more than 400 lines, because lease, detach grace,
drain and adoption all depend on the state.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from mxgw_core.api.errors import (
    CommandOutcomeUnknown,
    GatewayDraining,
    GatewayError,
    SessionAdopting,
    SessionEnded,
    SessionGone,
    SessionNotReady,
)
from mxgw_core.api.events import Retention
from mxgw_core.api.types import CloseReason, Identity, SessionInfo, SessionState
from mxgw_core.config.models import Settings
from mxgw_core.events.distributor import Distributor
from mxgw_core.events.item_book import ItemBook
from mxgw_core.plugins import PluginHost
from mxgw_core.sessions.limits import bounded, buffer_limit, subscriber_limits
from mxgw_core.workers.session_worker import SessionWorker

log = logging.getLogger(__name__)

# A client that uses a session which is still ADOPTING is asked to retry after this time. Most workers are adopted by
# then.
_ADOPTION_RETRY_S = 0.25
# After a restart of the gateway the detach grace is at least this long, so that clients have the time to come back: a
# gateway that drains asks clients to wait 2 s, and the longest pause between two attempts of a client is 10 s.
# Source: docs/replay.md.
_COMING_BACK_S = 12.0
_SNAPSHOTS_AT_ONCE = 4
# The gateway accepts at least this many items of a worker, also when `workers.items` is smaller now: an orphan was
# perhaps started with a larger `workers.items`.
_ITEMS_OF_ANY_WORKER = 100_000


@dataclass(frozen=True, slots=True)
class SessionRequest:
    """An OpenSession request after its fields were checked.

    `key` is a hash of the caller and the request id, and identifies a repeated request. `digest` is a hash of the
    fields that a repeated request must have in common with the first one. Both are empty when the request has no
    request id.
    """

    client_name: str
    backend: str
    tag: str
    lease_s: float
    # Whether the gateway itself opens the session. Such a session has no lease, does not count for the limits of
    # clients, and is never adopted by the next gateway.
    is_internal: bool = False
    # The plugin for which the gateway opens it; "" when no plugin has asked for it.
    plugin: str = ""
    key: bytes = field(default=b"", repr=False)
    digest: bytes = field(default=b"", repr=False)


class Session:
    """One client's MXAccess context.

    Attributes:
        opened: a future, completed when the session is READY; it has the error when the session cannot be opened.
        closed: a future, completed when the session and its worker have ended or were left to the next gateway.
    """

    def __init__(
        self,
        session_id: str,
        serial: int,
        request: SessionRequest,
        owner: Identity,
        *,
        settings: Settings,
        plugins: PluginHost,
        make_worker: Callable[[Session], SessionWorker],
        clock: Callable[[], float] = time.perf_counter,
        adopted_from: float | None = None,
        had_subscriber: bool = False,
    ) -> None:
        """`adopted_from` is None for a new session. For a session that is taken over, it is the time when the earlier
        gateway opened the session (wall clock, seconds since 1970).

        `had_subscriber` is whether the session had a subscriber at the earlier gateway.
        """
        self.id = session_id
        self.serial = serial
        self.request = request
        self.owner = owner
        self.state = SessionState.CREATING if adopted_from is None else SessionState.ADOPTING
        self.close_reason: CloseReason | None = None
        self.close_detail = ""
        self.opened_at = time.time() if adopted_from is None else adopted_from
        self.closed_at: float | None = None
        self._settings = settings
        self._plugins = plugins
        self._clock = clock
        self._leased_until = clock() + request.lease_s
        self._grace_timer: asyncio.TimerHandle | None = None
        self._detached_at: float | None = None
        # A session that never had a subscriber has no detach grace, because perhaps its client only sends commands.
        self._had_subscriber = had_subscriber
        self._is_draining = False
        loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[None] = loop.create_future()
        self.closed: asyncio.Future[None] = loop.create_future()
        # Completed by the first `close` or `release`, with the close reason.
        self._close_wanted: asyncio.Future[tuple[CloseReason, str]] = loop.create_future()
        self._is_released = False
        events = settings.events
        # An adopted worker can have more items than `workers.items` allows now, see `_ITEMS_OF_ANY_WORKER`.
        self.items = ItemBook(max(settings.workers.items, _ITEMS_OF_ANY_WORKER))
        self.distributor = Distributor(
            items=self.items,
            unattached=Retention(events.unattached_events, events.unattached_bytes, 0.0),
            on_fail_session=lambda detail: self.close(CloseReason.OVERFLOW_FAIL_FAST, detail),
            clock=clock,
        )
        if adopted_from is not None:
            self.distributor.keep_for_return(
                Retention(settings.workers.outbox_events, settings.workers.outbox_bytes, 0.0)
            )
        # Runs while clients have time to come back after a restart of the gateway.
        self._return_timer: asyncio.TimerHandle | None = None
        self.worker = make_worker(self)
        self.distributor.hold_with(self.worker.hold)
        buffer = buffer_limit(plugins, self.info())
        if buffer is not None:
            self.distributor.bound(buffer.bytes, buffer.setting)
        self.subscriber_limits = bounded(subscriber_limits(settings, plugins, self.info()), buffer)
        # Limits how many snapshots are fetched at the same time: the worker keeps the values of a snapshot until all
        # pages of the snapshot are fetched, and it can keep only a few snapshots at a time.
        self.snapshots = asyncio.Semaphore(_SNAPSHOTS_AT_ONCE)
        self._retain()

    # the life of a session, from its start to its end

    async def run(self) -> None:
        """Start the session, serve until it must end, then end it. No exception is raised but a cancellation."""
        try:
            if not self._close_wanted.done():
                await self._start()
            if self.state is SessionState.READY:
                await self._serve()
        except Exception:
            log.exception("session %s failed inside the gateway", self.id)
            self.close(CloseReason.WORKER_PROTOCOL_ERROR, "the gateway failed; its log has the details")
        finally:
            reason, detail = self._why()
            if self.is_left:
                self._let_go()
            else:
                self._leave(reason, detail)
                try:
                    await self.worker.stop(reason, detail)
                except Exception:
                    log.exception("session %s: its worker could not be ended in order", self.id)
                self._end(reason)

    async def _start(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            starting = tasks.create_task(self._started(), name=f"session:{self.id}:start")
            await asyncio.wait((starting, self._close_wanted), return_when=asyncio.FIRST_COMPLETED)
            starting.cancel()
        if self._close_wanted.done():
            return
        error = starting.result()
        if error is None:
            self._become_ready()
        else:
            end = self.worker.ended.result() if self.worker.ended.done() else None
            self.close(
                end.reason if end is not None else CloseReason.WORKER_START_FAILED,
                end.detail if end is not None else error.message,
            )
            self._refuse_opening(error)

    async def _started(self) -> GatewayError | None:
        try:
            await self.worker.start()
        except GatewayError as error:
            return error
        return None

    def _become_ready(self) -> None:
        was_adopted = self.state is SessionState.ADOPTING
        if was_adopted:
            events = self.distributor.log
            log.info(
                "session %s (%s) is taken back: worker %d, events %d to %d",
                self.id,
                self.request.client_name or "unnamed",
                self.worker.pid,
                events.oldest,
                events.head,
            )
        self.state = SessionState.READY
        self.touch()
        self.opened.set_result(None)
        self._plugins.ask("mxgw_session_opened", session=self.info())
        if was_adopted:
            self._return_timer = asyncio.get_running_loop().call_later(_COMING_BACK_S, self._return_is_over)
        if was_adopted and self._had_subscriber:
            self._detached_at = self._clock()
            self._begin_grace(at_least_s=_COMING_BACK_S)

    def _return_is_over(self) -> None:
        """Trim the log as always, because the clients of before the restart had time to come back.

        While the session waits for its first subscriber in the detach grace, the log waits as well.
        """
        self._return_timer = None
        if self._grace_timer is None or self.distributor.was_attached:
            self.distributor.returned()

    async def _serve(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(self.worker.supervise(), name=f"session:{self.id}:watch")
            await asyncio.wait((watching, self._close_wanted), return_when=asyncio.FIRST_COMPLETED)
            watching.cancel()

    def _why(self) -> tuple[CloseReason, str]:
        """Return why the session ends: the first request to close it, or the end of its worker."""
        if self._close_wanted.done():
            return self._close_wanted.result()
        if self.worker.ended.done():
            end = self.worker.ended.result()
            return end.reason, end.detail
        return CloseReason.GATEWAY_SHUTDOWN, "the gateway stopped"

    def _leave(self, reason: CloseReason, detail: str) -> None:
        """End all streams and commands of the session now, without waiting for the worker, whose end can take some
        seconds.
        """
        self.close_reason, self.close_detail = reason, detail
        self.state = SessionState.FAULTED if reason.is_fault else SessionState.CLOSING
        self._cancel_timers()
        error = self._ended_error(reason, detail)
        self.distributor.end(error)
        self.worker.commands.fail_all(error)
        self._refuse_opening(error)
        log.log(
            logging.WARNING if reason.is_fault else logging.INFO,
            "session %s (%s) ends: %s%s",
            self.id,
            self.request.client_name or "unnamed",
            reason.name,
            f": {detail}" if detail else "",
        )

    def _end(self, reason: CloseReason) -> None:
        if self.state is SessionState.CLOSING:
            self.state = SessionState.CLOSED
        self.closed_at = time.time()
        self._plugins.ask("mxgw_session_closed", session=self.info(), reason=reason)
        self.closed.set_result(None)

    def _let_go(self) -> None:
        """Leave the worker to the next gateway, which continues the session. Streams and commands end here."""
        self._cancel_timers()
        text = "the gateway is shutting down and the session goes on at the next one: come back with your last position"
        self.distributor.end(GatewayDraining(text, retry_after_s=2.0))
        self.worker.commands.fail_all(
            CommandOutcomeUnknown(
                "the gateway is shutting down while the command runs: it may or may not take effect. Repeat a "
                "write with its request_id, or look first",
                metadata={"session_id": self.id},
            )
        )
        self._refuse_opening(GatewayDraining(text, retry_after_s=2.0))
        self.worker.release()
        log.info("session %s: worker %d is left to the next gateway", self.id, self.worker.pid)
        self.closed.set_result(None)

    def _refuse_opening(self, error: GatewayError) -> None:
        if not self.opened.done():
            self.opened.set_exception(error)
            self.opened.exception()  # without this, asyncio logs an error when no caller waits for the future any more

    def _ended_error(self, reason: CloseReason, detail: str) -> SessionEnded:
        return SessionEnded(
            f"session {self.id} ended: {_IN_WORDS[reason]}{f': {detail}' if detail else ''}",
            close_reason=reason.name,
            metadata={"session_id": self.id, "head_sequence": str(self.distributor.log.head)},
        )

    # requests to end the session, and checks of its state

    def close(self, reason: CloseReason, detail: str = "") -> bool:
        """Ask the session to end. Return False when the session was already ending or had ended."""
        if self._close_wanted.done() or self.state not in _LIVE:
            return False
        self._close_wanted.set_result((reason, detail))
        return True

    def release(self) -> None:
        """Leave the session to the next gateway if its worker can live on until then, otherwise end the session."""
        if not self._close_wanted.done():
            self._is_released = self.state in (SessionState.READY, SessionState.ADOPTING)
            self.close(CloseReason.GATEWAY_SHUTDOWN)

    @property
    def is_left(self) -> bool:
        """Whether the session is left to the next gateway."""
        return self._is_released and self.worker.outlives_gateway

    def require_ready(self) -> None:
        """Make sure that the session can serve calls.

        Raises:
            SessionGone: the session has ended, or is ending.
            GatewayDraining: the session is left to the next gateway.
            SessionAdopting: the session waits for its worker, after a restart of the gateway.
            SessionNotReady: the session is still starting, or was just asked to end.
        """
        if self.state is SessionState.READY and not self._close_wanted.done():
            return
        if self.close_reason is not None:
            raise SessionGone(
                f"session {self.id} ended: {_IN_WORDS[self.close_reason]}. Open a new one.",
                metadata={"close_reason": self.close_reason.name},
            )
        if self._is_released:
            raise GatewayDraining("the gateway is shutting down: come back later", retry_after_s=2.0)
        if self.state is SessionState.ADOPTING:
            raise SessionAdopting(
                f"session {self.id} waits for its worker after a restart of the gateway: try again",
                metadata={"state": self.state.name},
                retry_after_s=_ADOPTION_RETRY_S,
            )
        raise SessionNotReady(
            f"session {self.id} is {'closing' if self._close_wanted.done() else self.state.name.lower()}",
            metadata={"state": self.state.name},
            retry_after_s=0.5,
        )

    # lease and detach grace

    def touch(self) -> None:
        """Start the lease again, because a client used the session."""
        self._leased_until = self._clock() + self.request.lease_s

    @property
    def lease_left_s(self) -> float:
        """Seconds until the lease expires. While the session has subscribers, this is always the whole lease."""
        if self.distributor.subscribers or self.request.is_internal:
            return self.request.lease_s
        return self._leased_until - self._clock()

    def expire_if_idle(self) -> bool:
        """End the session if its lease has expired. Return whether this call ended it. The registry calls this
        regularly.
        """
        if self.state is not SessionState.READY or self._is_draining or self.lease_left_s > 0:
            return False
        return self.close(CloseReason.LEASE_EXPIRED, f"idle for {self.request.lease_s:g} s")

    def attached(self) -> None:
        """Call this when a subscriber has attached. The lease starts again, and the detach grace is cancelled."""
        is_first = not self._had_subscriber or self._detached_at is not None
        self._had_subscriber = True
        self._detached_at = None
        self._cancel_grace()
        if self._return_timer is None:
            self.distributor.returned()
        self.touch()
        if is_first:
            self._plugins.ask("mxgw_session_attached", session=self.info())

    def detached(self) -> None:
        """Call this when the last subscriber has left. The lease starts again, and the detach grace begins if a plugin
        sets one.
        """
        self.touch()
        self._detached_at = self._clock()
        if self.state is not SessionState.READY or self._is_draining:
            return
        self._plugins.ask("mxgw_session_detached", session=self.info())
        self._begin_grace()

    def drain(self) -> None:
        """Call this when the gateway is shutting down. From now on neither lease nor detach grace ends the session."""
        self._is_draining = True
        self._cancel_grace()

    def _begin_grace(self, at_least_s: float = 0.0) -> None:
        info = self.info()
        grace_s = next((a.value for a in self._plugins.ask("mxgw_detach_grace", session=info) if a.error is None), None)
        if grace_s is not None and grace_s < math.inf:
            grace_s = max(at_least_s, grace_s)
            self._grace_timer = asyncio.get_running_loop().call_later(
                grace_s, self.close, CloseReason.DETACH_GRACE_EXPIRED, f"no subscriber for {grace_s:g} s"
            )

    def _cancel_grace(self) -> None:
        if self._grace_timer is not None:
            self._grace_timer.cancel()
            self._grace_timer = None

    def _cancel_timers(self) -> None:
        self._cancel_grace()
        if self._return_timer is not None:
            self._return_timer.cancel()
            self._return_timer = None

    # what plugins decide when the session is opened

    def _retain(self) -> None:
        for answer in self._plugins.ask("mxgw_retention", session=self.info()):
            if answer.error is None:
                self.distributor.retain(answer.value)

    @property
    def lease_expires_at(self) -> float:
        """When the lease expires if nobody uses the session until then: wall clock, seconds since 1970."""
        return time.time() + self.lease_left_s

    def info(self) -> SessionInfo:
        """Return the session as plugins see it at this moment."""
        events = self.distributor.log
        return SessionInfo(
            session_id=self.id,
            state=self.state,
            owner=self.owner.id,
            client_name=self.request.client_name,
            tag=self.request.tag,
            backend=self.request.backend,
            opened_at=self.opened_at,
            epoch=self.distributor.epoch,
            head_sequence=events.head,
            oldest_sequence=events.oldest,
            subscribers=len(self.distributor.subscribers),
            worker_pid=self.worker.pid,
            close_reason=self.close_reason,
            close_detail=self.close_detail,
            detached_s=None if self._detached_at is None else self._clock() - self._detached_at,
            horizon_s=self.distributor.horizon_s,
            is_internal=self.request.is_internal,
        )


_LIVE = frozenset({SessionState.CREATING, SessionState.READY, SessionState.ADOPTING})

_IN_WORDS = {
    CloseReason.CLIENT: "its client closed it",
    CloseReason.LEASE_EXPIRED: "its lease expired",
    CloseReason.DETACH_GRACE_EXPIRED: "it was without a subscriber for too long",
    CloseReason.WORKER_EXITED: "its worker process ended",
    CloseReason.WORKER_SILENT: "its worker stopped answering and was killed",
    CloseReason.WORKER_PROTOCOL_ERROR: "its worker broke the protocol",
    CloseReason.WORKER_START_FAILED: "its worker could not be started",
    CloseReason.OVERFLOW_FAIL_FAST: "a subscriber overflowed and the policy is to fail the session",
    CloseReason.KILLED_BY_OPERATOR: "an operator ended it",
    CloseReason.OWNER_REVOKED: "its owner's access was revoked",
    CloseReason.GATEWAY_SHUTDOWN: "the gateway shut down",
}
