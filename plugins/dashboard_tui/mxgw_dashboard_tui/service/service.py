"""The gRPC service of the dashboard.

A stream about sessions checks before every message which sessions the operator is allowed to see, so that
nothing is sent after a right was revoked.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator

from google.protobuf.duration_pb2 import Duration

from mxgw.convert import duration_from_seconds, duration_to_seconds, timestamp_from_ns
from mxgw.dashboard.v1 import dashboard_service_pb2 as pb
from mxgw_core.api import Call, CloseReason, Gateway, Operator, ResponseStream, SessionInfo, turn
from mxgw_core.api.errors import AccessDenied, InvalidRequest, Unauthenticated
from mxgw_dashboard_tui.service.audit import ENTRIES, NewEntries, entry_message
from mxgw_dashboard_tui.service.journal import Journal
from mxgw_dashboard_tui.service.mirrors import Mirrors
from mxgw_dashboard_tui.service.operators import Operators, role_of
from mxgw_dashboard_tui.service.sampler import Sampler, row_of
from mxgw_dashboard_tui.settings import DashboardSettings

# Key: method. Value: the role that a caller needs. A plugin that authorizes callers checks this role, and the service
# checks it once more.
SCOPES = {
    "GetAccess": "public",
    "Login": "public",
    "RenewLogin": "viewer",
    "Logout": "viewer",
    "WatchGateway": "viewer",
    "WatchSession": "viewer",
    "WatchEvents": "viewer",
    "ListItems": "viewer",
    "ListSettings": "administrator",
    "WatchAudit": "administrator",
    "CloseSession": "administrator",
    "KillWorker": "administrator",
}
_INTERVAL_S = 1.0
_SHORTEST_S, _LONGEST_S = 0.25, 60.0
_PAGE, _LARGEST_PAGE = 200, 1000
# How long WatchEvents waits for events. After this time the operator's rights are checked again, and the next message
# is sent even without events.
_QUIET_S = 2.0


class DashboardService:
    """Implements mxgw.dashboard.v1.DashboardService."""

    def __init__(
        self, gateway: Gateway, settings: DashboardSettings, journal: Journal, mirrors: Mirrors, version: str
    ) -> None:
        self._gateway = gateway
        self._settings = settings
        self._journal = journal
        self._operators = Operators(gateway, settings, journal)
        self._sampler = Sampler(gateway)
        self._mirrors = mirrors
        self._version = version
        self._started_at = timestamp_from_ns(time.time_ns())
        self._watchers = 0
        self._audit_watchers = 0

    # The following methods log operators in and out.

    async def GetAccess(self, request: pb.GetAccessRequest, call: Call) -> pb.GetAccessResponse:
        del request
        answer = pb.GetAccessResponse(login_required=self._operators.login_required, version=self._version)
        try:
            operator = self._operators.of(call)
        except Unauthenticated:
            return answer
        answer.operator, answer.role = operator.name, role_of(operator)
        return answer

    async def Login(self, request: pb.LoginRequest, call: Call) -> pb.LoginResponse:
        operator = await self._operators.login(request.user, request.password, call.peer)
        return pb.LoginResponse(
            token=operator.token,
            expires_at=timestamp_from_ns(int(operator.expires_at * 1e9)),
            valid_for=_valid_for(operator),
            operator=operator.name,
            role=role_of(operator),
        )

    async def RenewLogin(self, request: pb.RenewLoginRequest, call: Call) -> pb.RenewLoginResponse:
        del request
        operator = await self._operators.renew(call)
        return pb.RenewLoginResponse(
            token=operator.token,
            expires_at=timestamp_from_ns(int(operator.expires_at * 1e9)),
            valid_for=_valid_for(operator),
            operator=operator.name,
            role=role_of(operator),
        )

    async def Logout(self, request: pb.LogoutRequest, call: Call) -> pb.LogoutResponse:
        del request
        self._operators.logout(call)
        return pb.LogoutResponse()

    # The following methods answer the calls that the screens make for their data.

    async def WatchGateway(self, request: pb.WatchGatewayRequest, call: Call, stream: ResponseStream) -> None:
        interval_s = _interval(request.interval)
        operator = self._operators.of(call)
        self._require_place(self._watchers)
        self._watchers += 1
        try:
            journal_from = 0
            async for skipped, late_s in _ticks(interval_s):
                message = self._snapshot(operator, late_s, journal_from)
                message.interval.CopyFrom(duration_from_seconds(interval_s))
                message.skipped = skipped
                if message.journal:
                    journal_from = message.journal[-1].number
                await stream.write(message)
        finally:
            self._watchers -= 1

    def _require_place(self, watchers: int) -> None:
        if watchers >= self._settings.maximum_watchers:
            raise AccessDenied(
                f"{watchers} dashboards watch already, as many as plugins.dashboard_tui.maximum_watchers allows",
                retry_after_s=5.0,
            )

    def _snapshot(self, operator: Operator, late_s: float, journal_from: int) -> pb.WatchGatewayResponse:
        sample = self._sampler.sample(self._watchers, late_s)
        seen = self._gateway.observation
        may_see = self._operators.sight_of(operator)
        role = role_of(operator)
        message = pb.WatchGatewayResponse(
            as_of=timestamp_from_ns(sample.as_of_ns),
            instance_id=self._gateway.instance_id,
            version=self._version,
            started_at=self._started_at,
            draining=seen.is_draining,
            operator=operator.name,
            role=role,
            sessions=[row for info, row in sample.sessions if may_see(info)],
            session_limit=seen.session_limit,
            session_count=len(sample.sessions),
            memory_bytes=seen.memory_bytes,
            memory_limit_bytes=seen.memory_limit_bytes,
            process=sample.process,
            plugins=sample.plugins,
            backends=seen.backends,
            journal=self._journal.after(journal_from, may_see, administrator=role == pb.ROLE_ADMINISTRATOR),
        )
        for info in self._journal.ended(may_see):
            if (ended := seen.session(info.session_id)) is not None:
                message.ended.append(ended)
        return message

    async def WatchSession(self, request: pb.WatchSessionRequest, call: Call, stream: ResponseStream) -> None:
        interval_s = _interval(request.interval)
        operator = self._operators.of(call)
        async for _ in _ticks(interval_s):
            info = self._operators.session(operator, request.session_id)
            message = self._detail(operator, info)
            message.interval.CopyFrom(duration_from_seconds(interval_s))
            await stream.write(message)
            if not message.HasField("subscribers"):
                return

    def _detail(self, operator: Operator, info: SessionInfo) -> pb.WatchSessionResponse:
        seen = self._gateway.observation
        return pb.WatchSessionResponse(
            as_of=timestamp_from_ns(time.time_ns()),
            row=row_of(seen, info),
            subscribers=seen.subscribers(info.session_id),
            commands=[
                pb.CommandInFlight(name=command.name, age=duration_from_seconds(command.age_s))
                for command in seen.commands(info.session_id)
            ],
            timeline=self._journal.of_session(
                info.session_id, administrator=role_of(operator) == pb.ROLE_ADMINISTRATOR
            ),
        )

    async def WatchEvents(self, request: pb.WatchEventsRequest, call: Call, stream: ResponseStream) -> None:
        operator = self._operators.of(call)
        self._operators.session(operator, request.session_id)
        async with self._mirrors.reading(request.session_id) as reader:
            # The first message has no events. It tells the dashboard that the stream has begun.
            message: pb.WatchEventsResponse | None = None
            while True:
                info = self._operators.session(operator, request.session_id)
                if message is None:
                    message = pb.WatchEventsResponse(
                        as_of=timestamp_from_ns(time.time_ns()), head_sequence=info.head_sequence
                    )
                await stream.write(message)
                message = await reader.next(_QUIET_S)

    async def ListItems(self, request: pb.ListItemsRequest, call: Call) -> pb.ListItemsResponse:
        operator = self._operators.of(call)
        self._operators.session(operator, request.session_id)
        if not 0 <= request.page_size <= _LARGEST_PAGE:
            raise InvalidRequest(
                f"page_size is {request.page_size}; it must lie between 0 and {_LARGEST_PAGE}",
                metadata={"field": "page_size"},
            )
        state = await self._gateway.observation.session_state(
            request.session_id,
            include_values=True,
            page_size=request.page_size or _PAGE,
            page_token=request.page_token,
        )
        return pb.ListItemsResponse(as_of=timestamp_from_ns(time.time_ns()), state=state)

    async def ListSettings(self, request: pb.ListSettingsRequest, call: Call) -> pb.ListSettingsResponse:
        del request
        self._operators.require_administrator(call, "read the settings")
        return pb.ListSettingsResponse(
            as_of=timestamp_from_ns(time.time_ns()),
            settings=[
                pb.Setting(key=setting.key, value=json.dumps(setting.value), origin=setting.origin)
                for setting in self._gateway.observation.settings()
            ],
        )

    async def WatchAudit(self, request: pb.WatchAuditRequest, call: Call, stream: ResponseStream) -> None:
        interval_s = _interval(request.interval)
        self._operators.require_administrator(call, "read the audit log")
        self._require_place(self._audit_watchers)
        self._audit_watchers += 1
        try:
            new = NewEntries()
            async for _ in _ticks(interval_s):
                # All watchers get their ticks at the same moment. Here each lets other tasks run before it continues.
                await turn()
                entries = self._gateway.observation.audit_tail(ENTRIES)
                message = pb.WatchAuditResponse(
                    as_of=timestamp_from_ns(time.time_ns()),
                    interval=duration_from_seconds(interval_s),
                    kept=entries is not None,
                )
                fresh, message.incomplete = new.of(entries or ())
                message.entries.extend(map(entry_message, fresh))
                await stream.write(message)
                if entries is None:
                    return
        finally:
            self._audit_watchers -= 1

    # The following methods close sessions and kill workers.

    async def CloseSession(self, request: pb.CloseSessionRequest, call: Call) -> pb.CloseSessionResponse:
        operator, info = self._operators.administrator(call, request.session_id, "close sessions")
        if self._gateway.close_session(info.session_id, CloseReason.KILLED_BY_OPERATOR, f"closed by {operator.name}"):
            self._journal.add(pb.JOURNAL_KIND_OPERATOR_ACTION, info, "closed the session", operator.name)
        return pb.CloseSessionResponse()

    async def KillWorker(self, request: pb.KillWorkerRequest, call: Call) -> pb.KillWorkerResponse:
        operator, info = self._operators.administrator(call, request.session_id, "kill workers")
        if self._gateway.kill_worker(info.session_id, f"worker killed by {operator.name}"):
            self._journal.add(
                pb.JOURNAL_KIND_OPERATOR_ACTION, info, f"killed the worker, pid {info.worker_pid}", operator.name
            )
        return pb.KillWorkerResponse()


def _valid_for(operator: Operator) -> Duration:
    return duration_from_seconds(max(0.0, operator.expires_at - time.time()))


def _interval(asked: Duration) -> float:
    interval_s = duration_to_seconds(asked) or _INTERVAL_S
    if not _SHORTEST_S <= interval_s <= _LONGEST_S:
        raise InvalidRequest(
            f"interval is {interval_s:g} s; it must lie between {_SHORTEST_S:g} and {_LONGEST_S:g} s",
            metadata={"field": "interval"},
        )
    return interval_s


async def _ticks(interval_s: float) -> AsyncIterator[tuple[int, float]]:
    """Yield once immediately, and then whenever the event loop's clock is a multiple of the interval.

    Each tick is a pair: how many multiples were missed so far, and by how many seconds this tick is late. All watchers
    with the same interval get their ticks at the same moments, so that they share one sample.
    """
    loop = asyncio.get_running_loop()
    missed, late_s = 0, 0.0
    while True:
        due = (math.floor(loop.time() / interval_s) + 1) * interval_s
        yield missed, late_s
        behind_s = loop.time() - due
        if behind_s > 0:
            missed += math.floor(behind_s / interval_s) + 1
            due = (math.floor(loop.time() / interval_s) + 1) * interval_s
        await asyncio.sleep(due - loop.time())
        late_s = loop.time() - due
