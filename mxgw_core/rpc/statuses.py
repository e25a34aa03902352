"""The gateway's errors as gRPC statuses: code, ErrorInfo{reason, domain, metadata}, RetryInfo."""

from __future__ import annotations

import grpc
from google.protobuf.any_pb2 import Any
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from mxgw.convert import duration_from_seconds
from mxgw_core.api import errors as e
from mxgw_core.printable import printable

DOMAIN = "mxgw"
DETAILS_KEY = "grpc-status-details-bin"

# gRPC loses trailing headers of more than 8 KiB now and then, and always those of more than 16 KiB: the caller then
# gets another status. What a message and its metadata may take there, and the longest value of the metadata:
_MESSAGE_BYTES = 4000
_METADATA_BYTES = 1500
_VALUE_CHARACTERS = 500
_REASON_CHARACTERS = 64

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


def status_message(error: e.GatewayError) -> str:
    """Return the text of an error as it is sent: printable, and cut off when it is too long for the headers."""
    text = printable(error.message, _MESSAGE_BYTES)
    while _sent_bytes(text) > _MESSAGE_BYTES:
        text = printable(text, len(text) * 3 // 4)
    return text


def _sent_bytes(text: str) -> int:
    # gRPC sends the text itself, in which each byte beyond ASCII takes three; and the details, which are base64.
    size, plain = len(text.encode()), sum(map(str.isascii, text))
    return plain + 3 * (size - plain) + 4 * size // 3


def _sent_metadata(error: e.GatewayError) -> dict[str, str]:
    """Return as much of an error's metadata as there is room for; values are cut off first."""
    sent: dict[str, str] = {}
    room = _METADATA_BYTES
    for key, value in error.metadata.items():
        name, shown = printable(key, _REASON_CHARACTERS), printable(value, _VALUE_CHARACTERS)
        room -= len(name.encode()) + len(shown.encode())
        if room < 0:
            break
        sent[name] = shown
    return sent


def status_details(error: e.GatewayError) -> bytes:
    """Return the encoded google.rpc.Status that travels in the trailing metadata."""
    status = Status(code=status_code(error).value[0], message=status_message(error))
    details: list[ErrorInfo | RetryInfo] = [
        ErrorInfo(reason=printable(error.reason, _REASON_CHARACTERS), domain=DOMAIN, metadata=_sent_metadata(error)),
    ]
    if error.retry_after_s is not None:
        details.append(RetryInfo(retry_delay=duration_from_seconds(error.retry_after_s)))
    for detail in details:
        packed = Any()
        packed.Pack(detail)
        status.details.append(packed)
    encoded: bytes = status.SerializeToString()
    return encoded
