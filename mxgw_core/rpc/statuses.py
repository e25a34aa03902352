"""The gateway's errors as gRPC statuses: code, ErrorInfo{reason, domain, metadata}, RetryInfo."""

from __future__ import annotations

import grpc
from google.protobuf.any_pb2 import Any
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from mxgw.convert import duration_from_seconds
from mxgw_core.api import errors as e

DOMAIN = "mxgw"
DETAILS_KEY = "grpc-status-details-bin"

_CODES: dict[type[e.GatewayError], grpc.StatusCode] = {
    e.InternalError: grpc.StatusCode.INTERNAL,
    e.InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    e.PositionForeign: grpc.StatusCode.INVALID_ARGUMENT,
    e.UnknownBackend: grpc.StatusCode.INVALID_ARGUMENT,
    e.RequestIdReused: grpc.StatusCode.INVALID_ARGUMENT,
    e.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    e.TooManyAttempts: grpc.StatusCode.RESOURCE_EXHAUSTED,
    e.AccessDenied: grpc.StatusCode.PERMISSION_DENIED,
    e.AccessRevoked: grpc.StatusCode.PERMISSION_DENIED,
    e.SessionNotFound: grpc.StatusCode.NOT_FOUND,
    e.SessionGone: grpc.StatusCode.NOT_FOUND,
    e.SessionNotReady: grpc.StatusCode.FAILED_PRECONDITION,
    e.SessionAdopting: grpc.StatusCode.UNAVAILABLE,
    e.SessionLimitReached: grpc.StatusCode.RESOURCE_EXHAUSTED,
    e.MemoryLimitReached: grpc.StatusCode.RESOURCE_EXHAUSTED,
    e.RequestIdLimitReached: grpc.StatusCode.RESOURCE_EXHAUSTED,
    e.CallLimitReached: grpc.StatusCode.RESOURCE_EXHAUSTED,
    e.SessionEnded: grpc.StatusCode.ABORTED,
    e.WorkerStartFailed: grpc.StatusCode.UNAVAILABLE,
    e.CommandTimedOut: grpc.StatusCode.DEADLINE_EXCEEDED,
    e.CommandFailed: grpc.StatusCode.UNKNOWN,
    # Not UNAVAILABLE, because proxies and clients would then repeat the call by themselves.
    e.CommandOutcomeUnknown: grpc.StatusCode.UNKNOWN,
    e.PendingCommandsExceeded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    e.SubscriberExists: grpc.StatusCode.ALREADY_EXISTS,
    e.SubscriberLimitReached: grpc.StatusCode.RESOURCE_EXHAUSTED,
    e.SubscriberOverflow: grpc.StatusCode.RESOURCE_EXHAUSTED,
    e.PositionLost: grpc.StatusCode.DATA_LOSS,
    e.FeatureNotEnabled: grpc.StatusCode.FAILED_PRECONDITION,
    e.GatewayDraining: grpc.StatusCode.UNAVAILABLE,
    e.DependencyUnavailable: grpc.StatusCode.UNAVAILABLE,
    e.PluginFailed: grpc.StatusCode.UNAVAILABLE,
    e.HistoryUnavailable: grpc.StatusCode.UNAVAILABLE,
}


def status_code(error: e.GatewayError) -> grpc.StatusCode:
    """Return the gRPC code of an error's class, or of its nearest base class (plugins may derive their own)."""
    code = next((_CODES[kind] for kind in type(error).__mro__ if kind in _CODES), grpc.StatusCode.INTERNAL)
    if code is grpc.StatusCode.UNAVAILABLE and error.metadata.get("outcome") == "unknown":
        # Proxies and clients repeat a call that ends with UNAVAILABLE, and a command could then take effect twice.
        return grpc.StatusCode.UNKNOWN
    return code


def status_details(error: e.GatewayError) -> bytes:
    """Return the encoded google.rpc.Status that travels in the trailing metadata."""
    status = Status(code=status_code(error).value[0], message=error.message)
    details: list[ErrorInfo | RetryInfo] = [
        ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata),
    ]
    if error.retry_after_s is not None:
        details.append(RetryInfo(retry_delay=duration_from_seconds(error.retry_after_s)))
    for detail in details:
        packed = Any()
        packed.Pack(detail)
        status.details.append(packed)
    encoded: bytes = status.SerializeToString()
    return encoded
