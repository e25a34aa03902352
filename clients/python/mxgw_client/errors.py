"""Everything the client raises, as one tree.

MxgwClientError
├── ConnectionOptionError        an option that cannot be used as it is; also a ValueError
├── PositionFileError            a position file that cannot be read, written or used
├── GatewayUnreachable           nothing answered, or the connection broke during a call
├── NotAGateway                  something answered that does not serve this contract
├── CallTimedOut                 no answer in time; the outcome is unknown
├── ProtocolViolation            the answer breaks the contract
├── CallFailed                   a call failed, and the gateway gave no reason
├── MxAccessError                MXAccess failed (hresult != 0)
│   ├── WriteFailed              the write completed with a failure, or its completion never came
│   ├── LoginFailed              AuthenticateUser answered 0
│   └── SubscribeFailed          some references of subscribe() were refused
├── GatewayRefusal               the gateway refused; `reason` says why
│   ├── InvalidRequest ── UnknownBackend, PositionForeign, RequestIdReused
│   ├── Unauthenticated, AccessDenied
│   ├── SessionNotFound ── SessionGone
│   ├── SessionNotReady, SessionLimitReached, MemoryLimitReached, RequestIdLimitReached, WorkerStartFailed
│   ├── CommandTimedOut, CommandFailed, CommandOutcomeUnknown, PendingCommandsExceeded
│   ├── SubscriberExists, SubscriberLimitReached, PositionLost
│   └── FeatureNotEnabled, InternalError
├── StreamStale                  not even a heartbeat came: the connection or the gateway is dead
└── StreamEnded                  why a stream is over; a call of a session that ended raises the same
    ├── ConnectionLost, GatewayDraining, SubscriberOverflow, HistoryUnavailable     resume after `stream.position`
    └── SessionEnded             the session is over, and everything in it
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
    """Root of all errors of the client.

    Attributes:
        message: the sentence for people; for a refusal, the gateway's own, which says what would help.
        reason: stable UPPER_SNAKE name for programs; empty when the gateway gave none.
        metadata: facts for programs that came with the reason.
        retry_after_s: the gateway asks to try again no sooner than after this many seconds; None when it does not say.
        code: the gRPC status code; None when no call failed.
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
        """The sentence for people, which also says what would help; the same as `message`."""
        return self.message

    def __str__(self) -> str:
        return f"{self.message} [{self.reason}]" if self.reason else self.message


class ConnectionOptionError(MxgwClientError, ValueError):
    """An option of `connect` or `ResumePolicy` that cannot be used as it is."""


class PositionFileError(MxgwClientError):
    """A position file cannot be read or written, has other content, or belongs to another session. The text says what
    to do."""


class GatewayUnreachable(MxgwClientError):
    """Nothing answered at the target, or the connection broke while a call was under way."""


class NotAGateway(MxgwClientError):
    """Something answers at the target, but it does not serve this contract."""


class CallTimedOut(MxgwClientError):
    """No answer within the call's deadline: the outcome is unknown, so repeat a write only with its request id."""


class ProtocolViolation(MxgwClientError):
    """The answer breaks the contract: a bug of the gateway, or a proxy or another server answered."""


class CallFailed(MxgwClientError):
    """A call failed and the gateway gave no reason; `code` is the gRPC status."""


class MxAccessError(MxgwClientError):
    """MXAccess answered with a failure.

    Attributes:
        method: the name of the call that failed.
        hresult: the COM HRESULT as a signed 32-bit number; 0 when something else failed.
        statuses: the MXSTATUS_PROXY array of the reply.
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
    """The write was accepted and then failed, or its completion never came (then the outcome is unknown)."""


class LoginFailed(MxAccessError):
    """AuthenticateUser answered with user id 0."""


class SubscribeFailed(MxAccessError):
    """Some references of `subscribe` were refused, and the accepted ones were removed again.

    `failed` maps each refused reference to the reason.
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
    """The gateway refused or failed the call; `reason` is for programs, the text says what would help."""


class InvalidRequest(GatewayRefusal):
    """An argument is malformed, too long or out of range."""


class UnknownBackend(InvalidRequest):
    """The gateway's settings define no backend of this name."""


class PositionForeign(InvalidRequest):
    """The position belongs to another session: store positions per session."""


class RequestIdReused(InvalidRequest):
    """The request id was used before for a different request; nothing was done."""


class Unauthenticated(GatewayRefusal):
    """The gateway does not know who calls; pass api_key= or a client certificate."""


class AccessDenied(GatewayRefusal):
    """The caller is known and may not do this."""


class SessionNotFound(GatewayRefusal):
    """No session has this id."""


class SessionGone(SessionNotFound):
    """The session existed and ended; `metadata["close_reason"]` says how."""


class SessionNotReady(GatewayRefusal):
    """The session exists but cannot answer calls now, for example while its worker starts or is taken back."""


class SessionLimitReached(GatewayRefusal):
    """As many sessions are open as the gateway's settings allow."""


class MemoryLimitReached(GatewayRefusal):
    """The gateway's memory has no room for another session or large request; see `limit` and `used` in `metadata`."""


class RequestIdLimitReached(GatewayRefusal):
    """As many request ids are remembered as fit, so this one was refused; nothing was done."""


class WorkerStartFailed(GatewayRefusal):
    """The worker process or its backend did not become ready."""


class CommandTimedOut(GatewayRefusal, CallTimedOut):
    """The worker did not answer within the command's deadline: the outcome is unknown."""


class CommandFailed(GatewayRefusal):
    """The worker could not run the command at all."""


class CommandOutcomeUnknown(GatewayRefusal):
    """The gateway ended while the command ran, which may or may not take effect. Read back before repeating a write."""


class PendingCommandsExceeded(GatewayRefusal):
    """Too many commands of this session have no answer yet; await some of them first."""


class SubscriberExists(GatewayRefusal):
    """The session already has a subscriber, and the gateway allows one (fan-out is off)."""


class SubscriberLimitReached(GatewayRefusal):
    """The session has as many subscribers as the gateway allows."""


class PositionLost(GatewayRefusal):
    """The stream cannot be resumed completely, and `OnGap.REFUSE` was asked for."""


class FeatureNotEnabled(GatewayRefusal):
    """The request needs a plugin that the gateway has not enabled; `metadata["plugin"]` names it."""


class InternalError(GatewayRefusal):
    """A bug of the gateway; the text has the id to look for in its log."""


class StreamStale(MxgwClientError):
    """Nothing, not even a heartbeat, came for 2.5 heartbeat intervals: what was read last may be old."""

    resumable = True


class StreamEnded(MxgwClientError):
    """A stream is over. When `resumable` is True, another one, started `after(stream.position)`, can go on."""


class ConnectionLost(StreamEnded):
    """The connection broke; the session stays open for its lease or detach grace."""

    resumable = True


class GatewayDraining(StreamEnded):
    """The gateway shuts down in an orderly way; open the stream again after `retry_after_s`."""

    resumable = True


class HistoryUnavailable(StreamEnded):
    """The gateway's history store did not return events it had announced. The resumed stream names them in a Gap."""

    resumable = True


class SubscriberOverflow(StreamEnded):
    """This reader fell further behind than its limit: read faster, ask for another policy, or raise the limit."""

    resumable = True


class SessionEnded(StreamEnded):
    """The session itself is over, with all its registrations and items; open a new one."""


class SessionClosed(SessionEnded):
    """A client closed the session."""


class LeaseExpired(SessionEnded):
    """Neither a call nor a subscriber used the session for as long as its lease."""


class DetachGraceExpired(SessionEnded):
    """No subscriber attached again within the detach grace."""


class WorkerLost(SessionEnded):
    """The session lost its worker process; last values are stale."""


class WorkerExited(WorkerLost):
    """The worker process ended."""


class WorkerSilent(WorkerLost):
    """The worker stopped answering and was killed."""


class WorkerBroken(WorkerLost):
    """The worker broke its protocol."""


class OverflowFailFast(SessionEnded):
    """A subscriber fell behind, and its overflow policy ends the session in that case."""


class KilledByOperator(SessionEnded):
    """An operator ended the session."""


class AccessRevoked(SessionEnded):
    """The key that opened the session was revoked or expired."""


class GatewayShutdown(SessionEnded):
    """The gateway ended, and the session with it."""
