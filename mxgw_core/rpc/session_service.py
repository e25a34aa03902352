"""SessionService: opens, closes, lists and describes sessions."""

from __future__ import annotations

import asyncio
import math
import time
from itertools import compress

from google.protobuf.duration_pb2 import Duration

from mxgw.convert import duration_from_seconds, duration_to_seconds
from mxgw.v1 import session_service_pb2 as pb
from mxgw.v1.events_pb2 import EventKind
from mxgw.worker.v1 import worker_pb2 as w
from mxgw_core.api.calls import Call
from mxgw_core.api.errors import InvalidRequest
from mxgw_core.api.slices import in_slices
from mxgw_core.api.types import CloseReason
from mxgw_core.config.models import Settings
from mxgw_core.events.filters import ItemFilters
from mxgw_core.rpc.access import AccessControl
from mxgw_core.rpc.pages import PageRoom, SealedTokens, page
from mxgw_core.rpc.request_ids import body_digest, request_key
from mxgw_core.rpc.session_messages import ended_session, live_session, subscribers_of
from mxgw_core.rpc.worker_calls import call_worker
from mxgw_core.sessions.ended import RememberedSession
from mxgw_core.sessions.registry import SessionRegistry
from mxgw_core.sessions.session import Session, SessionRequest
from mxgw_worker.ipc.page_tokens import STATE, page_token

_DATA_CHANGE = int(EventKind.EVENT_KIND_DATA_CHANGE)
_LARGEST_STATE_PAGE = 10_000


class SessionService:
    """Implements mxgw.v1.SessionService."""

    def __init__(self, settings: Settings, registry: SessionRegistry, access: AccessControl) -> None:
        self._settings = settings
        self._registry = registry
        self._access = access
        self._tokens = SealedTokens()

    async def OpenSession(self, request: pb.OpenSessionRequest, call: Call) -> pb.OpenSessionResponse:
        key = request_key(call.identity, request.request_id)
        if key:
            body = pb.OpenSessionRequest()
            body.CopyFrom(request)
            body.ClearField("request_id")
        session = await self._registry.open(
            SessionRequest(
                client_name=request.client_name,
                backend=request.backend or self._settings.default_backend,
                tag=request.tag,
                lease_s=self._lease(request.lease) if request.HasField("lease") else self._settings.limits.lease_s,
                key=key,
                digest=body_digest(body) if key else b"",
            ),
            call.identity,
        )
        return pb.OpenSessionResponse(session=live_session(session))

    def _lease(self, lease: Duration) -> float:
        seconds = duration_to_seconds(lease)
        if seconds <= 0:
            raise InvalidRequest("lease must be longer than 0 s", metadata={"field": "lease"})
        return min(seconds, self._settings.limits.maximum_lease_s)

    async def CloseSession(self, request: pb.CloseSessionRequest, call: Call) -> pb.CloseSessionResponse:
        del call
        session = self._registry.find(request.session_id)
        if session is not None:
            session.close(CloseReason.CLIENT)
            await asyncio.wait((session.closed,))
        # To close a session that has ended is no error, as long as the gateway remembers the session.
        ended = self._registry.ended.find(request.session_id)
        if ended is None and session is not None:
            ended = RememberedSession.of(session)
        if ended is None:
            self._registry.get(request.session_id)
        return pb.CloseSessionResponse(session=ended_session(ended) if ended is not None else None)

    async def GetSession(self, request: pb.GetSessionRequest, call: Call) -> pb.GetSessionResponse:
        del call
        ended = self._registry.ended.find(request.session_id)
        if ended is not None:
            return pb.GetSessionResponse(session=ended_session(ended))
        return pb.GetSessionResponse(session=live_session(self._registry.get(request.session_id)))

    async def ListSessions(self, request: pb.ListSessionsRequest, call: Call) -> pb.ListSessionsResponse:
        size = page(request.page_size, 100, 1000)
        after = self._tokens.number_of(request.page_token)
        rows: list[Session | RememberedSession] = [s for s in self._registry.live() if s.serial > after]
        if request.include_ended:
            rows += [e for e in self._registry.ended.all() if e.serial > after]
        rows.sort(key=lambda row: row.serial)
        response = pb.ListSessionsResponse()
        async for some in in_slices(rows):
            for row in some:
                if not self._may_see(row, call):
                    continue
                if len(response.sessions) == size:
                    response.next_page_token = self._tokens.seal(after)
                    return response
                after = row.serial
                response.sessions.append(live_session(row) if isinstance(row, Session) else ended_session(row))
        return response

    def _may_see(self, row: Session | RememberedSession, call: Call) -> bool:
        """Return whether the caller is allowed to call GetSession for this session.

        Only such sessions are in the caller's list.
        """
        session_id, find = (row.id, row.info) if isinstance(row, Session) else (row.info.session_id, lambda: row.info)
        return self._access.may_see(call.identity, call.peer, session_id, find)

    async def GetSessionState(self, request: pb.GetSessionStateRequest, call: Call) -> pb.GetSessionStateResponse:
        session = self._registry.get(request.session_id)
        size = page(request.page_size, 1000, _LARGEST_STATE_PAGE)
        if filters := self._access.filters(session.info(), call.identity):
            return await self._shown_state(
                session, request, size, ItemFilters(filters, session.items), self._timeout(call)
            )
        asked = w.GetState(include_values=request.include_values, page_size=size, page_token=request.page_token)
        return (await call_worker(session, w.CommandRequest(get_state=asked), self._timeout(call))).state

    async def _shown_state(
        self, session: Session, request: pb.GetSessionStateRequest, size: int, filters: ItemFilters, timeout_s: float
    ) -> pb.GetSessionStateResponse:
        """Return a page of the items that pass the filters. Page length and page token reveal no hidden items.

        Raises:
            GatewayError: raised by `call_worker`, which is called until the page is full.
        """
        until = time.perf_counter() + timeout_s
        asked = w.GetState(include_values=request.include_values, page_size=size, page_token=request.page_token)
        # The returned page has the position of the worker's first answer: all changes after it come as events.
        response: pb.GetSessionStateResponse | None = None
        room = PageRoom(size, self._settings.workers.frame_bytes)
        while response is None or (asked.page_token and not room.is_full):
            asked.page_size = min(2 * asked.page_size, _LARGEST_STATE_PAGE)
            left_s = max(0.0, until - time.perf_counter())
            state = (await call_worker(session, w.CommandRequest(get_state=asked), left_s)).state
            if response is None:
                response = pb.GetSessionStateResponse(position=state.position, registrations=state.registrations)
            async for some in in_slices(state.items):
                passes = filters.shown((item.item_serial for item in some), _DATA_CHANGE)
                response.items.extend(item for item in compress(some, passes) if room.takes(item))
                if room.is_full:
                    break
            asked.page_token = state.next_page_token
        if room.is_full:
            last = response.items[-1]
            response.next_page_token = page_token(last.server_handle, last.item_handle, STATE)
        elif not request.page_token:
            response.total_items = len(response.items)
        return response

    async def ListSubscribers(self, request: pb.ListSubscribersRequest, call: Call) -> pb.ListSubscribersResponse:
        del call
        return subscribers_of(self._registry.get(request.session_id))

    async def GetWorkerInfo(self, request: pb.GetWorkerInfoRequest, call: Call) -> pb.GetWorkerInfoResponse:
        session = self._registry.get(request.session_id)
        worker = session.worker
        reply = await call_worker(session, w.CommandRequest(get_info=w.GetInfo()), self._timeout(call))
        info = reply.info
        sees_all = not self._access.filters(session.info(), call.identity)
        return pb.GetWorkerInfoResponse(
            pid=worker.pid,
            state=worker.state,
            backend=info.backend,
            epoch=session.distributor.epoch,
            started_at=info.started_at,
            head_sequence=info.head_sequence,
            outbox_oldest=info.outbox_oldest,
            outbox_events=info.outbox_events,
            outbox_bytes=info.outbox_bytes,
            events_lost=info.events_lost,
            rss_bytes=info.rss_bytes,
            source_health=info.source_health,
            source_detail=info.source_detail,
            items=info.items if sees_all else None,
            silence=duration_from_seconds(worker.health.silence_s),
            protocol_version=worker.protocol_version,
        )

    def _timeout(self, call: Call) -> float:
        return min(self._settings.limits.command_timeout_s, call.deadline_s or math.inf)
