"""Follows the server's Alarms and Conditions with one subscription to events. The alarms are refreshed whenever events
were perhaps missed.

Source: OPC UA Part 9. An alarm is a condition with ActiveState, and its condition id identifies it. On ConditionRefresh
the server sends all retained conditions, between a start event and an end event. Branches of a condition (earlier
states that still have to be acknowledged) are ignored; only the current state of a condition is reported.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from asyncua import ua

from mxgw.convert import timestamp_from_datetime
from mxgw.v1 import alarms_pb2 as pb
from mxgw_worker.backends.base import E_FAIL, E_INVALIDARG, AlarmAck, AlarmListener, MxError

from .batches import Refused, in_batches
from .condition_events import alarm_of, fields_of, select_clauses
from .link import Link
from .options import OpcUaOptions
from .publisher import Subscription, parameters_of, unused
from .references import durable, locate
from .server_connection import ServerConnection
from .subscriptions import Subscriptions
from .texts import shown
from .types import plain, read

log = logging.getLogger(__name__)

_O = ua.ObjectIds
_REFRESH_START, _REFRESH_END = ua.NodeId(_O.RefreshStartEventType), ua.NodeId(_O.RefreshEndEventType)
_MISSED = frozenset({ua.NodeId(_O.RefreshRequiredEventType), ua.NodeId(_O.EventQueueOverflowEventType)})
_RETRY_S = 5.0
# How long a server is given to delete the subscription of a `follow` that failed.
_DELETE_S = 2.0
# The native detail for "the alarm is acknowledged already". Source: docs/reference/mxaccess.md#status-details.
_ACKED_ALREADY = 1015


class Conditions:
    """The alarms of one server. Nothing is requested before `follow`. The backend calls `lost` when the connection to
    the server is lost, and runs `maintain` while the connection is up.
    """

    def __init__(self, connection: ServerConnection, subscriptions: Subscriptions, options: OpcUaOptions) -> None:
        self._connection = connection
        self._publisher = subscriptions.publisher
        self._discard = subscriptions.discard
        self._options = options
        self._listener: AlarmListener | None = None
        self._subscription: Subscription | None = None
        # Key: condition id. Value: the alarm. Ended alarms are kept until the next refresh, because a later event of
        # the same condition needs their times.
        self._alarms: dict[str, pb.Alarm] = {}
        # Key: condition id as text. Value: the id of the condition and the id of its last event. An acknowledgement
        # needs both. They are valid only on the link on which they came.
        self._events: dict[str, tuple[ua.NodeId, bytes]] = {}
        self._link: Link | None = None
        # Active alarms whose last event said `Retain` false. A refresh does not send them: see `_refreshed`.
        self._unretained: set[str] = set()
        # Alarms that a refresh did not send although they were active, and that `maintain` has to read. True when the
        # server has the same session as before.
        self._doubtful: dict[str, bool] = {}
        # The session of the refresh before; see `ServerConnection.session_number`.
        self._session_number = 0
        # The alarms that the running refresh has sent so far; None when no refresh is running.
        self._refreshing: dict[str, pb.Alarm] | None = None
        # This is set when `maintain` has to subscribe or refresh again.
        self._wake = asyncio.Event()
        # This lock is held while a subscription is created, because two subscriptions would deliver every event twice.
        self._beginning = asyncio.Lock()

    # The methods of `AlarmPublisher`.

    async def follow(self, listener: AlarmListener) -> None:
        """Start to report alarms to `listener`.

        Raises:
            MxError: the server has no events, or cannot refresh its alarms.
        """
        try:
            async with self._beginning:
                self._listener = listener
                await self._begin()
        except (ua.UaError, OSError, TimeoutError) as error:
            self._listener = None
            await self._delete()
            raise MxError(E_FAIL, f"the server's alarms cannot be followed: {_told(error)}") from error
        except BaseException:
            self._listener = None
            self._forget()
            raise

    def active(self) -> Sequence[pb.Alarm]:
        """Return the active alarms, as the last events reported them."""
        return [alarm for alarm in self._alarms.values() if alarm.state != pb.ALARM_STATE_ACK_RTN]

    async def acknowledge(self, alarm_ids: Sequence[str], comment: str, operator: str) -> Sequence[AlarmAck]:
        """Acknowledge alarms. The server knows only the user of the session, so the operator's name is added to the
        comment.

        Raises:
            MxError: the server does not answer.
        """
        text = f"{comment} ({operator})" if comment and operator else comment or operator
        answers = dict.fromkeys(alarm_ids, AlarmAck(E_INVALIDARG, "there is no alarm of this id"))
        # After a reconnect there is no event of an alarm that the server did not send again.
        answers.update(dict.fromkeys(answers.keys() & self._unretained, _acked_already()))
        known = [alarm_id for alarm_id in answers if alarm_id in self._events]
        requests = []
        for alarm_id in known:
            condition, event_id = self._events[alarm_id]
            request = ua.CallMethodRequest()
            request.ObjectId = condition
            request.MethodId = ua.NodeId(_O.AcknowledgeableConditionType_Acknowledge)
            request.InputArguments = [
                ua.Variant(event_id, ua.VariantType.ByteString),
                ua.Variant(ua.LocalizedText(text), ua.VariantType.LocalizedText),
            ]
            requests.append(request)
        link = self._link
        if requests and link is not None:
            try:
                results = await in_batches(link, "call", requests, link.session.call, repeatable=False)
            except (ua.UaError, OSError, TimeoutError) as error:
                raise MxError(E_FAIL, f"the server did not acknowledge: {_told(error)}") from error
            for alarm_id, result in zip(known, results, strict=True):
                status = ua.StatusCode(result.code) if isinstance(result, Refused) else result.StatusCode
                answers[alarm_id] = _ack_of(status)
        return [answers[alarm_id] for alarm_id in alarm_ids]

    # Methods for the loss of the connection and the time after it.

    def lost(self, reason: str) -> None:
        """Forget the subscription, and tell the listener that the alarms are not available. This is called when the
        connection is lost, and when events are missing.
        """
        self._forget()
        if self._listener is not None:
            self._listener.failed(f"the OPC UA server's alarms are away: {reason}")

    async def maintain(self) -> None:
        """Subscribe and refresh again on a new connection, and whenever events were lost. Runs until cancelled.

        Raises:
            OSError, TimeoutError: the connection failed.
        """
        while True:
            if not await self._has_begun():
                await asyncio.sleep(_RETRY_S)
                continue
            self._wake.clear()
            if self._doubtful:
                await self._read_doubtful()
            await self._wake.wait()

    async def _has_begun(self) -> bool:
        """Subscribe and refresh if this is due. Return False when the server refuses."""
        async with self._beginning:
            if self._listener is None or self._subscription is not None:
                return True
            try:
                await self._begin()
            except ua.UaError as error:
                self._forget()
                self._listener.failed(f"the server's alarms cannot be followed: {_told(error)}")
                return False
            return True

    def _missed(self, reason: str) -> None:
        """Start a new refresh, because events are missing: until it ends, the known alarms are perhaps wrong."""
        log.warning("the server's alarms are followed anew: %s", reason)
        self.lost(reason)
        self._wake.set()

    def _forget(self) -> None:
        """Use the subscription no more. It is deleted at the server soon, if the server still has it."""
        subscription, self._subscription = self._subscription, None
        if subscription is not None and subscription.id is not None:
            self._discard(subscription.id)
        self._refreshing = None

    async def _delete(self) -> None:
        """Use the subscription no more, and delete it at the server now; soon, if that fails."""
        subscription, link = self._subscription, self._link
        if subscription is not None and subscription.id is not None and link is not None:
            try:
                async with asyncio.timeout(_DELETE_S):
                    await link.session.delete_subscriptions([subscription.id])
            except (ua.UaError, OSError, TimeoutError) as error:
                log.debug("deleting the subscription to alarms: %s", type(error).__name__)
            else:
                self._publisher.remove(subscription.id)
                subscription.id = None
        self._forget()

    async def _begin(self) -> None:
        self._forget()
        link = self._connection.link
        if link is not self._link:
            self._link, self._events = link, {}
        result = await link.session.create_subscription(parameters_of(self._options), unused)
        subscription = self._subscription = Subscription(0)
        subscription.begin(result)
        subscription.on_events = self._happened
        subscription.on_lost = self._missed
        self._publisher.add(result.SubscriptionId, subscription)
        await self._monitor(result.SubscriptionId)
        await self._refresh(result.SubscriptionId)

    async def _monitor(self, subscription_id: int) -> None:
        request = ua.MonitoredItemCreateRequest()
        request.ItemToMonitor = ua.ReadValueId(NodeId=ua.NodeId(_O.Server), AttributeId=ua.AttributeIds.EventNotifier)
        request.MonitoringMode = ua.MonitoringMode.Reporting
        request.RequestedParameters = ua.MonitoringParameters(
            ClientHandle=1, SamplingInterval=0.0, QueueSize=self._options.queue_size, DiscardOldest=True
        )
        request.RequestedParameters.Filter = ua.EventFilter(SelectClauses=select_clauses())
        parameters = ua.CreateMonitoredItemsParameters()
        parameters.SubscriptionId = subscription_id
        parameters.TimestampsToReturn = ua.TimestampsToReturn.Both
        parameters.ItemsToCreate = [request]
        (result,) = await self._connection.session.create_monitored_items(parameters)
        result.StatusCode.check()

    async def _refresh(self, subscription_id: int) -> None:
        request = ua.CallMethodRequest()
        request.ObjectId = ua.NodeId(_O.ConditionType)
        request.MethodId = ua.NodeId(_O.ConditionType_ConditionRefresh)
        request.InputArguments = [ua.Variant(subscription_id, ua.VariantType.UInt32)]
        (result,) = await self._connection.session.call([request])
        result.StatusCode.check()

    # Methods that handle events from the server.

    def _happened(self, events: Sequence[Any]) -> None:
        for event in events:
            fields = fields_of(event)
            match fields.get("EventType"):
                case kind if kind == _REFRESH_START:
                    self._refreshing = {}
                case kind if kind == _REFRESH_END:
                    self._refreshed()
                case kind if kind in _MISSED:
                    self._missed("the server says that events are missing")
                    return
                case _:
                    self._condition(fields)

    def _condition(self, fields: dict[str, Any]) -> None:
        condition, branch = fields.get("ConditionId"), fields.get("BranchId")
        is_branch = isinstance(branch, ua.NodeId) and not branch.is_null()
        if not isinstance(condition, ua.NodeId) or fields.get("ActiveState/Id") is None or is_branch:
            return  # This event is not an alarm's, or it does not describe the current state of the alarm.
        # The id outlives the connection: a client can acknowledge with it after the server has numbered its namespaces
        # anew.
        alarm_id = shown(durable(condition, self._link.namespaces if self._link else []))
        alarm = alarm_of(alarm_id, fields, self._alarms.get(alarm_id))
        self._alarms[alarm_id] = alarm
        self._events[alarm_id] = condition, fields.get("EventId") or b""
        self._doubtful.pop(alarm_id, None)
        if fields.get("Retain") is False and alarm.state != pb.ALARM_STATE_ACK_RTN:
            self._unretained.add(alarm_id)
        else:
            self._unretained.discard(alarm_id)
        if self._refreshing is not None:
            self._refreshing[alarm_id] = alarm
        elif self._listener is not None:
            self._listener.changed(alarm)

    def _refreshed(self) -> None:
        sent, self._refreshing = self._refreshing, None
        if sent is None:
            return  # This is the end of a refresh that another client requested.
        # A server that clears `Retain` of an acknowledged alarm does not send it, even if it is still active. Nothing
        # says that it has ended, so it stays in the list until it was read.
        kept = {key: alarm for key, alarm in self._alarms.items() if key in self._unretained and key not in sent}
        same_session = self._connection.session_number == self._session_number
        self._session_number = self._connection.session_number
        self._alarms = {**kept, **sent}
        self._events = {key: event for key, event in self._events.items() if key in self._alarms}
        self._unretained &= self._alarms.keys()
        self._doubtful = dict.fromkeys(kept, same_session)
        if kept:
            self._wake.set()
        if self._listener is not None:
            self._listener.refreshed(self.active())

    async def _read_doubtful(self) -> None:
        """Read whether alarms are still active that the refresh has not sent. One that cannot be read stays as long as
        the session: a server that was restarted has forgotten its acknowledgements, and sends every active alarm.
        """
        doubtful, self._doubtful = self._doubtful, {}
        link = self._link
        states: dict[str, Any] = {}
        try:
            if link is not None:
                nodes = await locate(link, [("0:ActiveState/0:Id", alarm_id) for alarm_id in doubtful])
                there = {key: node for key, node in zip(doubtful, nodes, strict=True) if isinstance(node, ua.NodeId)}
                rows = await read(link, list(there.values()), (ua.AttributeIds.Value,))
                states = {key: plain(row[0]) for key, row in zip(there, rows, strict=True)}
        except ua.UaError as error:
            log.info("reading active alarms: %s", _told(error))
        for alarm_id, same_session in doubtful.items():
            is_active = states.get(alarm_id)
            is_over = is_active is False or (is_active is None and not same_session)
            # An event can have come in the meantime.
            if is_over and alarm_id in self._unretained:
                self._end(alarm_id)

    def _end(self, alarm_id: str) -> None:
        alarm = pb.Alarm()
        alarm.CopyFrom(self._alarms[alarm_id])
        alarm.state, alarm.native_state = pb.ALARM_STATE_ACK_RTN, "Inactive, Acked"
        alarm.clear_time.CopyFrom(timestamp_from_datetime(datetime.now(UTC)))
        self._alarms[alarm_id] = alarm
        self._unretained.discard(alarm_id)
        if self._listener is not None:
            self._listener.changed(alarm)


def _ack_of(status: ua.StatusCode) -> AlarmAck:
    if status.is_good():
        return AlarmAck()
    name = str(status.name)
    if status.value == ua.StatusCodes.BadConditionBranchAlreadyAcked:
        return _acked_already()
    return AlarmAck(E_FAIL, f"the OPC UA server answered {name}")


def _acked_already() -> AlarmAck:
    return AlarmAck(E_FAIL, "the alarm is acknowledged already", _ACKED_ALREADY)


def _told(error: Exception) -> str:
    return str(ua.StatusCode(error.code).name) if isinstance(error, ua.UaStatusCodeError) else type(error).__name__
