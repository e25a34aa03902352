"""A session that a plugin uses inside the gateway: implements api.InternalSession on a session of the registry."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from mxgw.v1.alarms_pb2 import Alarm
from mxgw.v1.commands_pb2 import BrowseNode, MxCommand, MxReply
from mxgw.v1.event_service_pb2 import StreamEventsResponse
from mxgw.v1.events_pb2 import SourceHealth, WorkerState
from mxgw.worker.v1 import worker_pb2 as w
from mxgw_core.api.events import DropOldest, Lag, QueueLimits
from mxgw_core.api.internal_sessions import AlarmAcknowledged, AlarmReport
from mxgw_core.api.types import CloseReason, SessionInfo
from mxgw_core.events.frames import gap_frame
from mxgw_core.events.pieces import Chunk, Gap
from mxgw_core.events.subscriber import End, Subscriber
from mxgw_core.rpc.worker_calls import call_worker
from mxgw_core.sessions.session import Session

_BROWSE_TIMEOUT_S = 10.0
_BROWSE_PAGE = 2000
# How far an internal reader can fall behind. Beyond these limits its oldest unread events are dropped, and a gap
# reports them.
_LIMITS = QueueLimits(events=100_000, bytes=32 * 1024 * 1024, seconds=0.0)


class _KeepNewest:
    name = "keep_newest"

    def on_overflow(self, lag: Lag) -> DropOldest:
        return DropOldest(lag.limits.events // 2)


class OwnSession:
    """Implements api.InternalSession. `batch_bytes` limits the size of one frame of events."""

    def __init__(self, session: Session, batch_bytes: int) -> None:
        self._session = session
        self._batch_bytes = batch_bytes

    @property
    def session_id(self) -> str:
        return self._session.id

    def info(self) -> SessionInfo:
        return self._session.info()

    @property
    def worker_state(self) -> WorkerState.ValueType:
        return self._session.worker.state

    @property
    def source_health(self) -> SourceHealth.ValueType:
        return self._session.worker.health.source

    async def wait_closed(self) -> None:
        await asyncio.wait((self._session.closed,))

    async def close(self) -> None:
        self._session.close(CloseReason.CLIENT, "the gateway does not need it any more")
        await self.wait_closed()

    async def invoke(self, command: MxCommand, timeout_s: float) -> MxReply:
        return (await call_worker(self._session, w.CommandRequest(mx=command), timeout_s)).mx

    async def browse(self, parent: str) -> Sequence[BrowseNode]:
        nodes: list[BrowseNode] = []
        token = ""
        while True:
            query = w.Browse(parent=parent, page_size=_BROWSE_PAGE, page_token=token)
            page = (await call_worker(self._session, w.CommandRequest(browse=query), _BROWSE_TIMEOUT_S)).browse
            nodes += page.nodes
            token = page.next_page_token
            if not token:
                return nodes

    @asynccontextmanager
    async def events(self) -> AsyncIterator[AsyncIterator[StreamEventsResponse]]:
        distributor = self._session.distributor
        name = f"internal-{secrets.token_hex(4)}"
        subscriber = distributor.attach_internal(name, limits=_LIMITS, policy=_KeepNewest())
        try:
            yield frames_of(subscriber, distributor.epoch, self._batch_bytes)
        finally:
            distributor.detach(subscriber)

    async def poll_alarms(self, after_revision: int, wait_s: float, timeout_s: float) -> AlarmReport:
        alarms: list[Alarm] = []
        poll = w.PollAlarms(after_revision=after_revision, wait_ms=int(wait_s * 1000))
        while True:
            reply = await call_worker(self._session, w.CommandRequest(poll_alarms=poll), wait_s + timeout_s)
            report = reply.alarms
            alarms += report.alarms
            if not report.next_page_token:
                return AlarmReport(report.revision, report.complete, alarms, report.event_driven)
            poll = w.PollAlarms(page_token=report.next_page_token)

    async def acknowledge_alarms(
        self, alarm_ids: Sequence[str], comment: str, operator: str, timeout_s: float
    ) -> Sequence[AlarmAcknowledged]:
        request = w.AcknowledgeAlarms(alarm_ids=alarm_ids, comment=comment, operator=operator)
        reply = await call_worker(self._session, w.CommandRequest(acknowledge_alarms=request), timeout_s)
        return [AlarmAcknowledged(r.hresult, r.message, r.detail) for r in reply.acknowledged.results]


async def frames_of(subscriber: Subscriber, epoch: bytes, batch_bytes: int) -> AsyncIterator[StreamEventsResponse]:
    """Yield the frames of an internal reader; raise the error with which the session ends."""
    while True:
        match subscriber.take(batch_bytes):
            case Chunk(frame=frame):
                yield StreamEventsResponse.FromString(frame)
            case Gap() as gap:
                yield StreamEventsResponse.FromString(gap_frame(epoch, gap))
            case End(error):
                raise error
            case None:
                await subscriber.wait()
            case _:
                # The other kinds of output never come: internal readers have no filters, snapshots and control frames.
                pass
