"""The gRPC service AlarmService: clients follow, list and acknowledge alarms. Each call checks the caller's rights."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from mxgw.convert import duration_to_seconds
from mxgw.v1 import alarm_service_pb2 as pb
from mxgw.v1.events_pb2 import Position
from mxgw_alarms.book import Entry
from mxgw_alarms.filters import AlarmFilter
from mxgw_alarms.monitor import Monitor
from mxgw_alarms.providers import Outcome
from mxgw_alarms.states import UNACK_ALM, UNACK_RTN
from mxgw_core.api import Call, FeedRequest, Gateway, Identity, ItemAccess, ResponseStream, in_slices, turn
from mxgw_core.api.errors import CommandTimedOut, GatewayError, InvalidRequest
from mxgw_core.api.slices import NAMES_AT_ONCE

# Key: method. Value: what a plugin that authorizes callers demands: the scope of an API key, or (after "|") the role of
# an operator.
SCOPES = {
    "StreamAlarms": "events|viewer",
    "QueryActiveAlarms": "read|viewer",
    "AcknowledgeAlarm": "write|administrator",
}
_PAGE, _LARGEST_PAGE = 1000, 5000
# How many alarms are copied into an answer before other tasks of the event loop run; the copying takes about 1 ms.
_ALARMS_AT_ONCE = 100
_LONGEST_COMMENT = 200
_LONGEST_OPERATOR = 128
# The most alarms in one call. There is a limit because the worker gets all of them in one command.
_LARGEST_ACKNOWLEDGEMENT = 1000
_UNACKNOWLEDGED = frozenset({UNACK_ALM, UNACK_RTN})


class AlarmService:
    """Implements mxgw.v1.AlarmService."""

    def __init__(self, gateway: Gateway, monitor: Monitor) -> None:
        self._gateway = gateway
        self._monitor = monitor

    async def StreamAlarms(self, request: pb.StreamAlarmsRequest, call: Call, stream: ResponseStream) -> None:
        alarm_filter = self._filter(request.filter, call)
        if not alarm_filter.lets_all_pass:
            await alarm_filter.ask([entry.handle for entry in self._monitor.book.ordered()])
        heartbeat_s = None
        if request.HasField("heartbeat_interval"):
            heartbeat_s = duration_to_seconds(request.heartbeat_interval)
            if not 1 <= heartbeat_s <= 60:
                raise InvalidRequest(
                    f"heartbeat_interval is {heartbeat_s:g} s; it must lie between 1 and 60 s",
                    metadata={"field": "heartbeat_interval"},
                )
        await self._monitor.feed.serve(
            FeedRequest(
                start=request.start if request.start.WhichOneof("start") is not None else None,
                on_gap=request.on_gap,
                client_name=request.client_name,
                policy=request.policy,
                heartbeat_s=heartbeat_s,
                with_snapshot=request.with_snapshot,
                filters=() if alarm_filter.lets_all_pass else (alarm_filter,),
            ),
            call,
            stream,
        )

    async def QueryActiveAlarms(self, request: pb.QueryActiveAlarmsRequest, call: Call) -> pb.QueryActiveAlarmsResponse:
        if not 0 <= request.page_size <= _LARGEST_PAGE:
            raise InvalidRequest(
                f"page_size is {request.page_size}; it must lie between 0 (for {_PAGE}) and {_LARGEST_PAGE}",
                metadata={"field": "page_size", "limit": str(_LARGEST_PAGE)},
            )
        size = request.page_size or _PAGE
        alarm_filter = self._filter(request.filter, call)
        book, feed = self._monitor.book, self._monitor.feed
        await turn()
        # The answer shows the state of this moment, even when making the answer takes long: an `Entry` never changes.
        entries, is_degraded, is_stale, unwatched = book.ordered(), book.is_degraded, book.is_stale, book.unwatched
        answer = pb.QueryActiveAlarmsResponse(
            provider=self._monitor.status, position=Position(epoch=feed.epoch, sequence=feed.head_sequence)
        )
        # A page begins after the last reference of the previous page. So no alarm is skipped or listed twice when other
        # alarms are raised or end between two pages.
        first = bisect_right(entries, request.page_token, key=lambda entry: entry.alarm.reference)
        at_once = NAMES_AT_ONCE if alarm_filter.is_costly else _ALARMS_AT_ONCE
        async for places in in_slices(range(first, len(entries)), at_once):
            for entry in entries[places[0] : places[-1] + 1]:
                if not self._shows(alarm_filter, entry):
                    continue
                if len(answer.alarms) == size:
                    answer.next_page_token = answer.alarms[-1].alarm.reference
                    return answer
                shown = answer.alarms.add(alarm_handle=entry.handle, alarm=entry.alarm).alarm
                shown.degraded, shown.stale = is_degraded, is_stale or shown.reference in unwatched
        return answer

    async def AcknowledgeAlarm(self, request: pb.AcknowledgeAlarmRequest, call: Call) -> pb.AcknowledgeAlarmResponse:
        operator = _operator(request, call.identity)
        if not request.references:
            raise InvalidRequest("name at least one alarm by its reference", metadata={"field": "references"})
        if len(request.references) > _LARGEST_ACKNOWLEDGEMENT:
            raise InvalidRequest(
                f"{len(request.references)} alarms are named, {_LARGEST_ACKNOWLEDGEMENT} are allowed: split the call",
                metadata={"field": "references", "limit": str(_LARGEST_ACKNOWLEDGEMENT)},
            )
        if len(request.comment) > _LONGEST_COMMENT:
            raise InvalidRequest(
                f"the comment has {len(request.comment)} characters, {_LONGEST_COMMENT} are allowed",
                metadata={"field": "comment", "limit": str(_LONGEST_COMMENT)},
            )
        references = list(dict.fromkeys(request.references))
        access = self._gateway.item_access(call.identity)
        outcomes: dict[str, Outcome | None] = {}
        allowed: list[str] = []
        denied: list[str] = []
        async for some in in_slices(references):
            for reference in some:
                outcomes[reference] = self._outcome_without_asking(reference, access)
                (allowed if _may_acknowledge(reference, access) else denied).append(reference)
        for one in access:
            one.decided("AcknowledgeAlarm", allowed, denied)
        to_ask = [reference for reference, outcome in outcomes.items() if outcome is None]
        if to_ask:
            answers = await self._asked(to_ask, request.comment, operator)
            outcomes.update(zip(to_ask, answers, strict=True))
        results = [_result(reference, outcomes[reference]) for reference in request.references]
        self._monitor.counts.acknowledged(results)
        return pb.AcknowledgeAlarmResponse(results=results, operator=operator)

    def _outcome_without_asking(self, reference: str, access: Sequence[ItemAccess]) -> Outcome | None:
        """Return the outcome of an acknowledgement if the gateway knows it already; None if the source must decide."""
        entry = self._monitor.book.get(reference)
        # An alarm that the caller is not allowed to read is answered like an alarm that does not exist.
        if entry is None or not all(one.may_read(reference) for one in access):
            return Outcome(pb.ACKNOWLEDGE_OUTCOME_NOT_ACTIVE, 0, "no alarm of this reference is active")
        if not _may_acknowledge(reference, access):
            return Outcome(pb.ACKNOWLEDGE_OUTCOME_DENIED, 0, "this caller may not write the item")
        if entry.alarm.state not in _UNACKNOWLEDGED:
            return Outcome(pb.ACKNOWLEDGE_OUTCOME_ALREADY_ACKNOWLEDGED, 0, "it is acknowledged already")
        return None

    async def _asked(self, references: Sequence[str], comment: str, operator: str) -> Sequence[Outcome]:
        try:
            return await self._monitor.acknowledge(references, comment, operator)
        except CommandTimedOut as error:
            return [Outcome(pb.ACKNOWLEDGE_OUTCOME_UNKNOWN, 0, error.message)] * len(references)
        except GatewayError as error:
            return [Outcome(pb.ACKNOWLEDGE_OUTCOME_FAILED, 0, error.message)] * len(references)

    def _filter(self, wanted: pb.AlarmFilter, call: Call) -> AlarmFilter:
        return AlarmFilter(self._monitor.book, wanted, self._gateway.item_access(call.identity))

    @staticmethod
    def _shows(alarm_filter: AlarmFilter, entry: Entry) -> bool:
        return alarm_filter.keep(entry.handle, entry.alarm.priority, 0)


def _may_acknowledge(reference: str, access: Sequence[ItemAccess]) -> bool:
    """Return whether the caller is allowed to read and to acknowledge the alarm."""
    # An acknowledgement in MXAccess is a write to the sub-attribute AckMsg. The right to write the alarm's reference or
    # the right to write this sub-attribute is enough.
    return all(
        one.may_read(reference) and (one.may_write(reference) or one.may_write(f"{reference}.AckMsg")) for one in access
    )


def _operator(request: pb.AcknowledgeAlarmRequest, identity: Identity) -> str:
    """Return the name of the person or client that acknowledges.

    For a logged-in operator this is the operator's name. For any other client it is the name in the request or, if the
    request has no name, the name of the client's identity.

    Raises:
        InvalidRequest: the request of a logged-in operator names another person, or the name is too long.
    """
    own = (identity.display_name or identity.id)[:_LONGEST_OPERATOR]
    if identity.kind == "operator":
        name = identity.id.removeprefix("operator:")[:_LONGEST_OPERATOR]
        if request.operator not in ("", name):
            raise InvalidRequest(
                f"you are logged in as {name}, so that is who acknowledges: leave `operator` empty",
                metadata={"field": "operator"},
            )
        return name
    if len(request.operator) > _LONGEST_OPERATOR:
        raise InvalidRequest(
            f"operator has {len(request.operator)} characters, {_LONGEST_OPERATOR} are allowed",
            metadata={"field": "operator", "limit": str(_LONGEST_OPERATOR)},
        )
    return request.operator or own


def _result(reference: str, outcome: Outcome | None) -> pb.AcknowledgeResult:
    assert outcome is not None  # every reference has an outcome now
    return pb.AcknowledgeResult(
        reference=reference, outcome=outcome.outcome, hresult=outcome.hresult, message=outcome.message
    )
