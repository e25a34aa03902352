"""SessionService: open, close, describe."""

from __future__ import annotations

import asyncio
import math

from google.protobuf.duration_pb2 import Duration

from mxgw.convert import duration_from_seconds, duration_to_seconds
from mxgw.v1 import session_service_pb2 as pb
from mxgw.v1.events_pb2 import EventKind
from mxgw.worker.v1 import worker_pb2 as w
from mxgw_core.api.access import AccessRequest, Moment
from mxgw_core.api.errors import GatewayError, InvalidRequest
from mxgw_core.api.gateway import Call
from mxgw_core.api.slices import in_slices
from mxgw_core.api.types import CloseReason, SessionInfo
from mxgw_core.config.models import Settings
from mxgw_core.events.filtering import ItemSieve
from mxgw_core.rpc.access import AccessControl
from mxgw_core.rpc.messages import ended_session, live_session, subscribers_of
from mxgw_core.rpc.request_ids import body_digest, request_key
from mxgw_core.rpc.validation import after_token, page
from mxgw_core.rpc.worker_calls import call_worker
from mxgw_core.sessions.registry import RememberedSession, SessionRegistry
from mxgw_core.sessions.session import Session, SessionRequest

_DATA_CHANGE = int(EventKind.EVENT_KIND_DATA_CHANGE)
_GET_SESSION = "/mxgw.v1.SessionService/GetSession"


class SessionService:
    """Implements mxgw.v1.SessionService."""

    def __init__(self, settings: Settings, registry: SessionRegistry, access: AccessControl) -> None:
        self._settings = settings
        self._registry = registry
        self._access = access

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
        # Closing twice is no error while the session is remembered.
        ended = self._registry.find_ended(request.session_id)
        if ended is None and session is not None:
            ended = RememberedSession.of(session)
        if ended is None:
            self._registry.get(request.session_id)
        return pb.CloseSessionResponse(session=ended_session(ended) if ended is not None else None)

    async def GetSession(self, request: pb.GetSessionRequest, call: Call) -> pb.GetSessionResponse:
        del call
        ended = self._registry.find_ended(request.session_id)
        if ended is not None:
            return pb.GetSessionResponse(session=ended_session(ended))
        return pb.GetSessionResponse(session=live_session(self._registry.get(request.session_id)))

    async def ListSessions(self, request: pb.ListSessionsRequest, call: Call) -> pb.ListSessionsResponse:
        size = page(request.page_size, 100, 1000)
        after = after_token(request.page_token)
        rows: list[Session | RememberedSession] = [s for s in self._registry.live() if s.serial > after]
        if request.include_ended:
            rows += [e for e in self._registry.ended() if e.serial > after]
        rows.sort(key=lambda row: row.serial)
        response = pb.ListSessionsResponse()
        for row in rows:
            if len(response.sessions) == size:
                response.next_page_token = str(after)
                break
            after = row.serial
            if self._may_see(row.info() if isinstance(row, Session) else row.info, call):
                response.sessions.append(live_session(row) if isinstance(row, Session) else ended_session(row))
        return response

    def _may_see(self, info: SessionInfo, call: Call) -> bool:
        """What the caller may not see one by one, it does not see in a list."""
        try:
            self._access.authorize(
                AccessRequest(_GET_SESSION, call.identity, call.peer, info.session_id, info, moment=Moment.LIST)
            )
        except GatewayError:
            return False
        return True

    async def GetSessionState(self, request: pb.GetSessionStateRequest, call: Call) -> pb.GetSessionStateResponse:
        session = self._registry.get(request.session_id)
        size = page(request.page_size, 1000, 10_000)
        reply = await call_worker(
            session,
            w.CommandRequest(
                get_state=w.GetState(
                    include_values=request.include_values, page_size=size, page_token=request.page_token
                )
            ),
            self._timeout(call),
        )
        state = reply.state
        if filters := self._access.filters(session.info(), call.identity):
            sieve = ItemSieve(filters, session.items)
            shown: list[pb.ItemState] = []
            async for some in in_slices(state.items):
                shown += [item for item in some if sieve.shows(item.item_serial, _DATA_CHANGE)]
            del state.items[:]
            state.items.extend(shown)
            state.ClearField("total_items")
            if not request.page_token and not state.next_page_token:
                state.total_items = len(shown)
        return state

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
