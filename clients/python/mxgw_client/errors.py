"""All errors of the client, in one tree.

MxgwClientError
├── ConnectionOptionError        an option has a wrong value; also a ValueError
├── PositionFileError            a position file cannot be read, written or used
├── GatewayUnreachable           nothing answered, or the connection broke during a call
├── NotAGateway                  the program that answered does not serve the contract of mxgw
├── CallTimedOut                 no answer came before the deadline; the outcome is unknown
├── ProtocolViolation            the answer breaks the contract
├── CallFailed                   a call failed, and the gateway gave no reason
├── MxAccessError                MXAccess failed (hresult != 0)
│   ├── WriteFailed              the write completed with a failure, or its completion never came
│   ├── LoginFailed              AuthenticateUser answered 0
│   └── SubscribeFailed          some references of subscribe() were refused
├── GatewayRefusal               the gateway refused the call; `reason` says why
│   ├── InvalidRequest ── UnknownBackend, PositionForeign, RequestIdReused
│   ├── Unauthenticated, AccessDenied
│   ├── SessionNotFound ── SessionGone
│   ├── SessionNotReady, SessionLimitReached, MemoryLimitReached, RequestIdLimitReached, CallLimitReached
│   ├── WorkerStartFailed
│   ├── CommandTimedOut, CommandFailed, CommandOutcomeUnknown, PendingCommandsExceeded
│   ├── SubscriberExists, SubscriberLimitReached, PositionLost
│   ├── FeatureNotEnabled, InternalError
│   └── DependencyUnavailable        resume after `stream.position` when it ended a stream
├── StreamStale                  no event and no heartbeat came: the connection or the gateway is dead
└── StreamEnded                  a stream has ended; the subclass says why
    ├── ConnectionLost, GatewayDraining, SubscriberOverflow, HistoryUnavailable     resume after `stream.position`
    └── SessionEnded             the session has ended; its calls raise this too
        ├── WorkerLost ── WorkerExited, WorkerSilent, WorkerBroken
        ├── SessionClosed, LeaseExpired, DetachGraceExpired, OverflowFailFast
        └── KilledByOperator, AccessRevoked, GatewayShutdown
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import grpc

from mxgw_client.values import Status


class MxgwClientError(Exception):
    """The base class of all errors of the client.

    Attributes:
        message: a sentence for people. When the gateway refused a call, it is the sentence of the gateway, which also
            says what would help.
        reason: a stable name for programs, such as SESSION_GONE; empty when the gateway gave no reason.
        metadata: names and values that the gateway sent with the reason, for programs.
        retry_after_s: the gateway asks to try again after this many seconds; None when it does not ask for a pause.
        code: the gRPC status code; None when the error does not come from a gRPC call.
        resumable: True when a stream that ended with this error can be opened again after its position.
    """

    resumable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        retry_after_s: float | None = None,
        code: grpc.StatusCode | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.metadata: dict[str, str] = dict(metadata or {})
        self.retry_after_s = retry_after_s
        self.code = code

    @property
    def hint(self) -> str:
        """The same as `message`: a sentence for people."""
        return self.message

    def __str__(self) -> str:
        return f"{self.message} [{self.reason}]" if self.reason else self.message


class ConnectionOptionError(MxgwClientError, ValueError):
    """An argument of `connect`, `Tls`, `ApiKey` or `ResumePolicy`, or a `timeout_s`, has a wrong value."""


class PositionFileError(MxgwClientError):
    """A position file cannot be read or written, has other content, or belongs to another session.

    The text says what to do.
    """


class GatewayUnreachable(MxgwClientError):
    """Nothing answered at the address of the gateway, or the connection broke during a call."""


class NotAGateway(MxgwClientError):
    """The program that answered at the address does not serve the contract of mxgw."""


class CallTimedOut(MxgwClientError):
    """No answer came before the deadline of the call. Whether the call took effect is unknown.

    Repeat a write only with the same request id, so that it is not carried out twice.
    """


class ProtocolViolation(MxgwClientError):
    """The answer breaks the contract. Either the gateway has a bug, or a proxy or another server answered."""


class CallFailed(MxgwClientError):
    """A call failed without a reason from the gateway. `code` is the gRPC status code."""


class MxAccessError(MxgwClientError):
    """MXAccess answered with a failure.

    Attributes:
        method: the name of the call that failed; in a bulk call, the reference of the item that failed.
        hresult: the COM HRESULT as a signed 32-bit number; 0 when the failure is not an HRESULT.
        statuses: the statuses in the reply (the MXSTATUS_PROXY array).
    """

    def __init__(
        self,
        method: str,
        hresult: int,
        message: str = "",
        statuses: Sequence[Status] = (),
        reason: str = "",
        advice: str = "",
    ) -> None:
        parts = [f"{method} failed: {message or 'MXAccess gave no text'}"]
        if hresult:
            parts.append(f"(HRESULT 0x{hresult & 0xFFFFFFFF:08X})")
        parts.extend(f"[{status}]" for status in statuses)
        if advice:
            parts.append(f"- {advice}")
        super().__init__(" ".join(parts), reason=reason)
        self.method = method
        self.hresult = hresult
        self.statuses = tuple(statuses)


class WriteFailed(MxAccessError):
    """A write completed with a failure, or its completion did not come; in that case the outcome is unknown."""


class LoginFailed(MxAccessError):
    """AuthenticateUser returned the user id 0: the user or password was not accepted."""


class SubscribeFailed(MxAccessError):
    """Some references of `subscribe` were refused. The items of the other references were removed again.

    `failed` maps each refused reference to a text that says why.
    """

    def __init__(self, failed: Mapping[str, str]) -> None:
        first = "; ".join(f"{reference}: {text}" for reference, text in list(failed.items())[:3])
        super().__init__(
            "subscribe",
            0,
            f"{len(failed)} reference(s) refused: {first}",
            advice="use subscribe_bulk to keep those that work",
        )
        self.failed = dict(failed)


class GatewayRefusal(MxgwClientError):
    """The gateway refused the call or could not carry it out.

    `reason` is a stable name for programs. The text says what would help.
    """


class InvalidRequest(GatewayRefusal):
    """An argument is malformed, too long or out of range."""


class UnknownBackend(InvalidRequest):
    """The gateway's settings define no backend of this name."""


class PositionForeign(InvalidRequest):
    """The position belongs to another session. Store the position of each session separately."""


class RequestIdReused(InvalidRequest):
    """The request id was used before for a different request. The new request was not carried out."""


class Unauthenticated(GatewayRefusal):
    """The gateway does not know the caller. Pass `api_key` to `connect`, or a client certificate in `Tls`."""


class AccessDenied(GatewayRefusal):
    """The gateway knows the caller and does not allow this call."""


class SessionNotFound(GatewayRefusal):
    """No session has this id."""


class SessionGone(SessionNotFound):
    """The session has ended; `metadata["close_reason"]` says why."""


class SessionNotReady(GatewayRefusal):
    """The session cannot answer calls yet, because its worker is starting or is being adopted by a new gateway."""


class SessionLimitReached(GatewayRefusal):
    """No session was opened, because the number of open sessions has reached the limit in the gateway's settings."""


class MemoryLimitReached(GatewayRefusal):
    """The gateway has too little memory left for another session or a large request.

    `metadata` has the numbers of bytes as `limit` and `used`.
    """


class CallLimitReached(GatewayRefusal):
    """The gateway serves as many calls and streams at once as its settings allow. Nothing was done."""


class RequestIdLimitReached(GatewayRefusal):
    """The call was not carried out, because there is no room to remember another request id."""


class WorkerStartFailed(GatewayRefusal):
    """The worker process or its backend did not become ready."""


class CommandTimedOut(GatewayRefusal, CallTimedOut):
    """The worker did not answer before the deadline of the command. The outcome is unknown."""


class CommandFailed(GatewayRefusal):
    """The worker could not run the command."""


class CommandOutcomeUnknown(GatewayRefusal):
    """The gateway ended while the command ran. Whether the command takes effect is unknown.

    Read the item back before you repeat a write.
    """


class PendingCommandsExceeded(GatewayRefusal):
    """Too many commands of this session are still running. Wait for some of them before you send another."""


class SubscriberExists(GatewayRefusal):
    """The session already has a subscriber, and this gateway allows one per session (plugin backpressure is off)."""


class SubscriberLimitReached(GatewayRefusal):
    """The number of subscribers of the session has reached the limit of the gateway."""


class PositionLost(GatewayRefusal):
    """The gateway no longer holds all events after the position, and the request had `on_gap=OnGap.REFUSE`."""


class FeatureNotEnabled(GatewayRefusal):
    """The request needs a plugin that the gateway has not enabled; `metadata["plugin"]` names it."""


class DependencyUnavailable(GatewayRefusal):
    """Something that the gateway needs for its answer, for example its list of callers, cannot be used at the moment.

    Try again after `retry_after_s` seconds. A stream that ended with this error can be resumed.
    """

    resumable = True


class InternalError(GatewayRefusal):
    """The gateway has a bug. The text contains an id under which the gateway's log has the details."""


class StreamStale(MxgwClientError):
    """No frame, not even a heartbeat, came for 2.5 heartbeat intervals. The last values are perhaps out of date."""

    resumable = True


class StreamEnded(MxgwClientError):
    """A stream has ended.

    When `resumable` is True, open another stream with `start=after(stream.position)` to go on.
    """


class ConnectionLost(StreamEnded):
    """The connection broke. The session stays open until its lease or detach grace runs out."""

    resumable = True


class GatewayDraining(StreamEnded):
    """The gateway is shutting down. Open the stream again after `retry_after_s` seconds."""

    resumable = True


class HistoryUnavailable(StreamEnded):
    """The gateway's store of older events failed to return events that it should have.

    When the stream is resumed, a Gap names these events.
    """

    resumable = True


class SubscriberOverflow(StreamEnded):
    """The lag of this subscriber went beyond its limits. Read faster, choose another policy, or raise the limits."""

    resumable = True


class SessionEnded(StreamEnded):
    """The session has ended, and all its registrations and items with it. Open a new session."""


class SessionClosed(SessionEnded):
    """A client closed the session."""


class LeaseExpired(SessionEnded):
    """The lease ran out, because neither a call nor a subscriber used the session."""


class DetachGraceExpired(SessionEnded):
    """The last subscriber left, and no other one attached before the detach grace ran out."""


class WorkerLost(SessionEnded):
    """The session ended because its worker failed. The last values are out of date."""


class WorkerExited(WorkerLost):
    """The worker process ended by itself or was killed."""


class WorkerSilent(WorkerLost):
    """The worker stopped answering and was killed."""


class WorkerBroken(WorkerLost):
    """The worker sent a message that breaks the protocol between worker and gateway."""


class OverflowFailFast(SessionEnded):
    """The overflow policy of a subscriber ended the session, because the subscriber was too far behind."""


class KilledByOperator(SessionEnded):
    """An operator ended the session."""


class AccessRevoked(SessionEnded):
    """The key that opened the session was revoked or expired."""


class GatewayShutdown(SessionEnded):
    """The gateway was shut down, which ended the session."""
