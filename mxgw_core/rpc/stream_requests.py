"""Reads and checks requests for a stream of numbered events, and attaches a subscriber for each."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence

from google.protobuf.duration_pb2 import Duration

from mxgw.convert import duration_to_seconds
from mxgw.v1 import event_service_pb2 as pb
from mxgw_core.api.errors import GatewayError, InvalidRequest, PositionLost, SubscriberExists, SubscriberLimitReached
from mxgw_core.api.events import EventFilter, OverflowPolicy, PolicyRequest, SubscriberLimits
from mxgw_core.api.feeds import FeedFilter, FeedRequest
from mxgw_core.api.types import Position, SessionInfo
from mxgw_core.config.problems import nearest
from mxgw_core.events.distributor import Distributor
from mxgw_core.events.pieces import Gap
from mxgw_core.events.policies import DisconnectPolicy
from mxgw_core.events.start import Start
from mxgw_core.events.subscriber import Subscriber
from mxgw_core.plugins import PluginHost
from mxgw_core.plugins.calls import Owner
from mxgw_core.printable import printable

EPOCH_BYTES = 16


def start_of(start: pb.StartPosition) -> Start | Position:
    """Return where a stream begins. For `snapshot_then_live` this is `Start.NOW`; the caller adds the snapshot.

    Raises:
        InvalidRequest: the position has no valid epoch.
    """
    match start.WhichOneof("start"):
        case "now":
            return Start.NOW
        case "after":
            epoch = start.after.epoch
            if len(epoch) != EPOCH_BYTES:
                raise InvalidRequest(
                    f"the position's epoch has {len(epoch)} bytes, it must have {EPOCH_BYTES}: send back what the "
                    "gateway gave you, unchanged",
                    metadata={"field": "start.after.epoch"},
                )
            return Position(epoch, start.after.sequence)
        case "snapshot_then_live":
            return Start.NOW
        case _:
            return Start.OLDEST_RETAINED


def heartbeat_of(asked: Duration | None, default_s: float) -> float:
    """Return after how many seconds of silence a heartbeat is sent.

    Raises:
        InvalidRequest: the client asks for an interval that is out of range.
    """
    if asked is None:
        return default_s
    seconds = duration_to_seconds(asked)
    if not 1 <= seconds <= 60:
        raise InvalidRequest(
            f"heartbeat_interval is {seconds:g} s; it must lie between 1 and 60 s",
            metadata={"field": "heartbeat_interval"},
        )
    return seconds


def attach(
    distributor: Distributor,
    plugins: PluginHost,
    request: pb.StreamEventsRequest | FeedRequest,
    start: Start | Position,
    *,
    session: SessionInfo,
    limits: SubscriberLimits,
    peer: str,
    wants_snapshot: bool,
    snapshot_on_gap: Sequence[pb.OnGap.ValueType],
    filters: Callable[[], Sequence[EventFilter]] = tuple,
    feed_filters: Sequence[FeedFilter] = (),
    older_until: int | None = None,
) -> Subscriber:
    """Check the request and attach a subscriber. Nothing in here waits, so that nothing changes between the two.

    Args:
        filters: returns the reader's filters; called only when the request is not refused.
        snapshot_on_gap: the values of `on_gap` for which a snapshot is sent if the resume is not complete.
        older_until: see `Distributor.attach`.

    Raises:
        PositionLost: the resume would not be complete, and the request accepts only a complete resume.
        GatewayError: raised by `_check_room` or `_policy_of`, or the session has ended.
    """
    if isinstance(start, Position) and request.on_gap == pb.ON_GAP_REFUSE:
        place = distributor.decide(start, older_until)
        if not place.recovered:
            raise _position_lost(distributor, place.gap)
    _check_room(distributor, limits)
    subscriber_id = secrets.token_hex(4)
    name, parameters = request.policy.name, dict(request.policy.parameters)
    policy, source, owner = _policy_of(
        plugins, PolicyRequest(session, subscriber_id, request.client_name, name, parameters, limits.queue)
    )
    subscriber = distributor.attach(
        subscriber_id,
        start,
        limits=limits.queue,
        policy=policy,
        policy_source=source,
        policy_owner=owner,
        filters=filters(),
        feed_filters=feed_filters,
        client_name=printable(request.client_name, 128),
        peer=peer,
        older_until=older_until,
    )
    is_incomplete = subscriber.place.was_resuming and not subscriber.place.recovered
    if wants_snapshot or (is_incomplete and request.on_gap in snapshot_on_gap):
        subscriber.want_snapshot()
    return subscriber


def _check_room(distributor: Distributor, limits: SubscriberLimits) -> None:
    """Make sure that one more subscriber is allowed to attach.

    Raises:
        SubscriberExists: only one subscriber is allowed, and one is attached already.
        SubscriberLimitReached: as many subscribers are attached as are allowed.
    """
    attached = len(distributor.subscribers)
    if attached < limits.maximum:
        return
    if limits.maximum == 1:
        raise SubscriberExists(
            "the session has its one subscriber: end that stream first, or "
            + (f"change {limits.setting}" if limits.setting else "enable the plugin backpressure for more"),
            metadata={"subscribers": "1", "setting": limits.setting or "plugins.enabled"},
        )
    raise SubscriberLimitReached(
        f"the session has {attached} subscribers, as many as it may have: end one, or raise "
        + (limits.setting or "the limit of the plugin that sets it"),
        metadata={"subscribers": str(attached), "setting": limits.setting},
    )


def _policy_of(plugins: PluginHost, request: PolicyRequest) -> tuple[OverflowPolicy, str, Owner | None]:
    """Return the policy that the client asks for, the name of the distribution that brings it, and the plugin.

    Raises:
        GatewayError: no plugin brings this policy, or a plugin refuses it.
    """
    asked = request.name
    answers = plugins.ask("mxgw_overflow_policy", request=request)
    for answer in answers:
        if isinstance(answer.error, GatewayError):
            raise answer.error
        if answer.value is not None:
            return answer.value, plugins.source_of(answer.plugin), answer.owner
    if asked in ("", "disconnect"):
        return DisconnectPolicy(), "mxgw", None
    if failed := [answer.plugin for answer in answers if answer.error is not None]:
        raise InvalidRequest(
            f"the overflow policy {asked!r} cannot be had: plugin {', '.join(failed)} failed, as the gateway's "
            "log says; ask for disconnect",
            metadata={"field": "policy"},
        )
    raise InvalidRequest(
        f"no plugin of this gateway brings the overflow policy {asked!r}: {_advice(plugins, asked)}",
        metadata={"field": "policy"},
    )


def _advice(plugins: PluginHost, asked: str) -> str:
    """Return what can be asked for in place of a policy that no plugin brings. Only a plugin knows the names of its
    policies, but many policies have the name of their plugin.
    """
    asking = [implementation.plugin for implementation in plugins.calls.implementations("mxgw_overflow_policy")]
    if (match := nearest(asked, ("disconnect", *asking))) is not None:
        return f"did you mean {match!r}?"
    if asking:
        return f"ask for disconnect, for a policy of the plugins {', '.join(sorted(asking))}, or enable another plugin"
    return "ask for disconnect, or enable a plugin that brings it, for example backpressure"


def _position_lost(distributor: Distributor, gap: Gap | None) -> PositionLost:
    """Return the error for a resume that would not be complete."""
    return PositionLost(
        gap.detail
        if gap
        else "events after the position were lost at the worker: with ON_GAP_DELIVER_RETAINED the stream says which",
        metadata={
            "epoch": distributor.epoch.hex(),
            "oldest_sequence": str(distributor.log.oldest),
            "head_sequence": str(distributor.log.head),
        },
    )
