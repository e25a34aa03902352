"""Converts the status of a failed gRPC call into an exception that says what happened and what would help.

The gateway sends google.rpc.ErrorInfo, and sometimes RetryInfo, in the details of the status. Both are decoded here
without the package grpcio-status, so that the client does not depend on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from grpc import aio

from mxgw.convert import duration_to_seconds
from mxgw_client import errors

DOMAIN = "mxgw"

_BY_REASON: Mapping[str, type[errors.MxgwClientError]] = {
    "INVALID_REQUEST": errors.InvalidRequest,
    "UNKNOWN_BACKEND": errors.UnknownBackend,
    "POSITION_FOREIGN": errors.PositionForeign,
    "REQUEST_ID_REUSED": errors.RequestIdReused,
    "UNAUTHENTICATED": errors.Unauthenticated,
    "ACCESS_DENIED": errors.AccessDenied,
    "SESSION_NOT_FOUND": errors.SessionNotFound,
    "SESSION_GONE": errors.SessionGone,
    "SESSION_NOT_READY": errors.SessionNotReady,
    "SESSION_ADOPTING": errors.SessionNotReady,
    "SESSION_LIMIT_REACHED": errors.SessionLimitReached,
    "MEMORY_LIMIT_REACHED": errors.MemoryLimitReached,
    "CALL_LIMIT_REACHED": errors.CallLimitReached,
    "REQUEST_ID_LIMIT_REACHED": errors.RequestIdLimitReached,
    "WORKER_START_FAILED": errors.WorkerStartFailed,
    "COMMAND_TIMED_OUT": errors.CommandTimedOut,
    "COMMAND_FAILED": errors.CommandFailed,
    "COMMAND_OUTCOME_UNKNOWN": errors.CommandOutcomeUnknown,
    "PENDING_COMMANDS_EXCEEDED": errors.PendingCommandsExceeded,
    "SUBSCRIBER_EXISTS": errors.SubscriberExists,
    "EVENT_SUBSCRIBER_LIMIT_REACHED": errors.SubscriberLimitReached,
    "POSITION_LOST": errors.PositionLost,
    "FEATURE_NOT_ENABLED": errors.FeatureNotEnabled,
    "DEPENDENCY_UNAVAILABLE": errors.DependencyUnavailable,
    "INTERNAL": errors.InternalError,
    "SUBSCRIBER_OVERFLOW": errors.SubscriberOverflow,
    "GATEWAY_DRAINING": errors.GatewayDraining,
    "HISTORY_UNAVAILABLE": errors.HistoryUnavailable,
    # The reasons for which a session ends.
    "SESSION_CLOSED": errors.SessionClosed,
    "CLIENT": errors.SessionClosed,
    "LEASE_EXPIRED": errors.LeaseExpired,
    "DETACH_GRACE_EXPIRED": errors.DetachGraceExpired,
    "WORKER_EXITED": errors.WorkerExited,
    "WORKER_SILENT": errors.WorkerSilent,
    "WORKER_PROTOCOL_ERROR": errors.WorkerBroken,
    "OVERFLOW_FAIL_FAST": errors.OverflowFailFast,
    "KILLED_BY_OPERATOR": errors.KilledByOperator,
    "OWNER_REVOKED": errors.AccessRevoked,
    "REVOKED": errors.AccessRevoked,
    "GATEWAY_SHUTDOWN": errors.GatewayShutdown,
}


@dataclass(frozen=True, slots=True)
class _Details:
    reason: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    retry_after_s: float | None = None


def failure(
    error: aio.AioRpcError, *, target: str, doing: str, timeout_s: float | None = None, in_stream: bool = False
) -> errors.MxgwClientError:
    """Return the exception for a failed call.

    `doing` is the name of the call in error texts, `timeout_s` its deadline. `in_stream` is True when the call is a
    stream that had already been opened.
    """
    code, text = error.code(), error.details() or ""
    details = _details(error.trailing_metadata())
    if details.reason:
        kind = _class_of(details, in_stream=in_stream)
        return kind(
            text or f"{doing} was refused",
            reason=details.reason,
            metadata=details.metadata,
            retry_after_s=details.retry_after_s,
            code=code,
        )
    kind, message = _without_reason(code, text, target=target, doing=doing, timeout_s=timeout_s, in_stream=in_stream)
    return kind(message, retry_after_s=details.retry_after_s, code=code)


def _class_of(details: _Details, *, in_stream: bool) -> type[errors.MxgwClientError]:
    if details.reason != "SESSION_CLOSED":
        return _BY_REASON.get(details.reason, errors.StreamEnded if in_stream else errors.GatewayRefusal)
    # SESSION_CLOSED only says that the session has ended. The close reason in the metadata says why.
    kind = _BY_REASON.get(details.metadata.get("close_reason", "").upper() or details.reason, errors.SessionEnded)
    return kind if issubclass(kind, errors.SessionEnded) else errors.SessionEnded


def _without_reason(
    code: grpc.StatusCode, text: str, *, target: str, doing: str, timeout_s: float | None, in_stream: bool
) -> tuple[type[errors.MxgwClientError], str]:
    is_cut = _is_cut(code, text)
    match code:
        case _ if is_cut and in_stream:
            return errors.ConnectionLost, f"the connection to {target} broke during {doing}: {text}"
        case _ if is_cut:
            return errors.GatewayUnreachable, (
                f"no gateway answered at {target} ({doing}): {text}. Is it running there, is the port right, "
                "and do both sides agree about TLS?"
            )
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            after = f" within {timeout_s:g} s" if timeout_s is not None else ""
            return errors.CallTimedOut, f"{doing} got no answer from {target}{after}; its outcome is unknown"
        case grpc.StatusCode.UNIMPLEMENTED:
            return errors.NotAGateway, f"{target} answers but does not serve {doing}: {text}"
        case grpc.StatusCode.RESOURCE_EXHAUSTED if "larger than max" in text:
            return errors.CallFailed, (
                f"{doing}: {text}. Ask for less at once, or raise connect(max_message_bytes=) and the gateway's "
                "limits.message_bytes"
            )
    kind = errors.StreamEnded if in_stream else errors.CallFailed
    return kind, f"{doing} failed at {target}: {code.name}: {text}"


def _is_cut(code: grpc.StatusCode, text: str) -> bool:
    """Return True when gRPC made this status because the connection failed, and False when a server sent it.

    The status has no reason in its details, so it does not come from a gateway, which always sends a reason.
    """
    match code:
        case grpc.StatusCode.UNAVAILABLE:
            return True
        case grpc.StatusCode.INTERNAL | grpc.StatusCode.UNKNOWN | grpc.StatusCode.CANCELLED:
            # A proxy between client and gateway can end a stream with any HTTP/2 error code. gRPC reports all of these
            # codes as one of the three statuses above.
            return any(word in text.lower() for word in ("rst_stream", "stream removed", "goaway"))
        case _:
            return False


def _details(trailing: Any) -> _Details:
    """Return the decoded details of a status. When they are missing or cannot be decoded, all fields are empty."""
    raw = next((value for key, value in trailing or () if key == "grpc-status-details-bin"), None)
    if not isinstance(raw, bytes):
        return _Details()
    reason, metadata, retry_after_s = "", dict[str, str](), None
    try:
        for detail in status_pb2.Status.FromString(raw).details:
            info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
            if detail.Unpack(info) and info.domain == DOMAIN:
                reason, metadata = info.reason, dict(info.metadata)
            elif detail.Unpack(retry):
                retry_after_s = duration_to_seconds(retry.retry_delay)
    except DecodeError:
        return _Details()
    return _Details(reason, metadata, retry_after_s)
