"""Sessions as contract messages."""

from __future__ import annotations

from mxgw.convert import duration_from_seconds, timestamp_from_ns
from mxgw.v1 import session_service_pb2 as pb
from mxgw_core.api.types import SessionInfo
from mxgw_core.sessions.registry import EndedSession
from mxgw_core.sessions.session import Session


def live_session(session: Session) -> pb.Session:
    """Return the message of a live session."""
    message = _common(session.info(), session.request.lease_s)
    message.lease_expires_at.CopyFrom(timestamp_from_ns(int(session.lease_expires_at * 1e9)))
    message.log_events = session.distributor.log.events
    message.log_bytes = session.distributor.log.bytes
    message.pending_commands = len(session.worker.commands)
    message.worker_state = session.worker.state
    message.source_health = session.worker.source_health
    return message


def ended_session(ended: EndedSession) -> pb.Session:
    """Return the message of a session that ended."""
    message = _common(ended.info, ended.lease_s)
    message.closed_at.CopyFrom(timestamp_from_ns(int(ended.closed_at * 1e9)))
    return message


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
