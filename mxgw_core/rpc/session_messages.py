"""Makes the messages of the contract that describe sessions and subscribers."""

from __future__ import annotations

import time

from mxgw.convert import duration_from_seconds, timestamp_from_ns
from mxgw.v1 import session_service_pb2 as pb
from mxgw.v1.events_pb2 import GapReason, Position
from mxgw_core.api.types import SessionInfo
from mxgw_core.events.subscriber import Subscriber
from mxgw_core.sessions.ended import RememberedSession
from mxgw_core.sessions.session import Session


def live_session(session: Session) -> pb.Session:
    """Return the contract's message that describes a live session."""
    session.distributor.trim()
    info = session.info()
    message = _common(info, session.request.lease_s)
    if info.horizon_s is not None:
        message.horizon.CopyFrom(duration_from_seconds(info.horizon_s))
    if info.detached_s is not None:
        message.detached_at.CopyFrom(timestamp_from_ns(int((time.time() - info.detached_s) * 1e9)))
    message.lease_expires_at.CopyFrom(timestamp_from_ns(int(session.lease_expires_at * 1e9)))
    message.log_events = session.distributor.log.events
    message.log_bytes = session.distributor.log.bytes
    message.item_bytes = session.items.size_bytes
    message.pending_commands = len(session.worker.commands)
    message.worker_state = session.worker.state
    message.source_health = session.worker.health.source
    message.worker_rss_bytes = session.worker.rss_bytes
    return message


def ended_session(ended: RememberedSession) -> pb.Session:
    """Return the contract's message that describes a session that has ended."""
    message = _common(ended.info, ended.lease_s)
    message.closed_at.CopyFrom(timestamp_from_ns(int(ended.closed_at * 1e9)))
    return message


def subscribers_of(session: Session) -> pb.ListSubscribersResponse:
    """Return the subscribers and the counters of a live session."""
    distributor = session.distributor
    distributor.trim()
    log = distributor.log
    return pb.ListSubscribersResponse(
        subscribers=[_subscriber(s, distributor.epoch) for s in distributor.subscribers.values()],
        maximum_subscribers=session.subscriber_limits.maximum,
        head_sequence=log.head,
        oldest_sequence=log.oldest,
        log_events=log.events,
        log_bytes=log.bytes,
        counters=[
            pb.SessionCounter(name=name, labels=labels, value=value)
            for name, labels, value in distributor.counts.items()
        ],
    )


def _subscriber(subscriber: Subscriber, epoch: bytes) -> pb.Subscriber:
    limits, counts, unread = subscriber.limits, subscriber.counts, subscriber.unread
    return pb.Subscriber(
        subscriber_id=subscriber.id,
        client_name=subscriber.client_name,
        address=subscriber.peer,
        attached_at=timestamp_from_ns(int((time.time() - subscriber.attached_s) * 1e9)),
        policy=subscriber.policy_name,
        limits=pb.SubscriberLimits(events=limits.events, bytes=limits.bytes, age=duration_from_seconds(limits.seconds)),
        position=Position(epoch=epoch, sequence=subscriber.delivered),
        lag_events=unread.events,
        lag_bytes=unread.bytes,
        lag_age=duration_from_seconds(unread.seconds),
        backlog_bytes=subscriber.backlog_bytes,
        delivered_events=counts.delivered_events,
        delivered_bytes=counts.delivered_bytes,
        filtered_events=counts.filtered_events,
        lost=[
            pb.LostEvents(reason=GapReason.Value(f"GAP_REASON_{reason}"), events=events)
            for reason, events in sorted(counts.lost_events.items())
        ],
        ending=subscriber.end_error is not None,
    )


def _common(info: SessionInfo, lease_s: float) -> pb.Session:
    return pb.Session(
        session_id=info.session_id,
        state=pb.SessionState.ValueType(info.state.value),
        close_reason=pb.CloseReason.ValueType(info.close_reason.value if info.close_reason else 0),
        close_detail=info.close_detail,
        client_name=info.client_name,
        owner=info.owner,
        tag=info.tag,
        backend=info.backend,
        opened_at=timestamp_from_ns(int(info.opened_at * 1e9)),
        lease=duration_from_seconds(lease_s),
        epoch=info.epoch,
        head_sequence=info.head_sequence,
        oldest_sequence=info.oldest_sequence,
        subscribers=info.subscribers,
        worker_pid=info.worker_pid,
    )
