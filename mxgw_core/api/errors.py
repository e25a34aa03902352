"""Everything mxgw refuses or reports, as one tree.

MxgwError
├── SettingsError            a settings file, key or value
├── PluginError              a plugin that cannot be used
└── GatewayError             an answer to a caller; becomes a gRPC status with ErrorInfo{reason, metadata}
    ├── InvalidRequest ── UnknownBackend, PositionForeign, RequestIdReused
    ├── Unauthenticated ── TooManyAttempts
    ├── AccessDenied ── AccessRevoked
    ├── SessionNotFound ── SessionGone
    ├── SessionNotReady ── SessionAdopting
    ├── SessionLimitReached, MemoryLimitReached, RequestIdLimitReached, SessionEnded
    ├── WorkerStartFailed, CommandTimedOut, CommandFailed, CommandOutcomeUnknown, PendingCommandsExceeded
    ├── SubscriberExists, SubscriberLimitReached, SubscriberOverflow, PositionLost
    ├── FeatureNotEnabled, GatewayDraining, DependencyUnavailable, HistoryUnavailable
    └── InternalError

`reason` is stable and meant for programs; the text is for people and says which setting or call would help.
"""

from __future__ import annotations

from collections.abc import Mapping


class MxgwError(Exception):
    """Root of all errors of mxgw."""


class SettingsError(MxgwError):
    """A problem with the settings; the text names file, key, reason and the nearest valid key."""


class PluginError(MxgwError):
    """An enabled plugin cannot be used; the text names its distribution and the cause."""


class GatewayError(MxgwError):
    """A refusal or failure that is shown to a caller.

    Attributes:
        reason: stable UPPER_SNAKE name, sent as `ErrorInfo.reason`.
        metadata: facts for programs, sent as `ErrorInfo.metadata`; no secrets, no tag values.
        retry_after_s: when set, a retry after this many seconds makes sense (sent as `RetryInfo`).
    """

    reason: str = "INTERNAL"

    def __init__(
        self, message: str, *, metadata: Mapping[str, str] | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.metadata: dict[str, str] = dict(metadata or {})
        self.retry_after_s = retry_after_s


class InternalError(GatewayError):
    """A bug of the gateway; the caller is shown a correlation id and no detail."""


class InvalidRequest(GatewayError):
    """The request's arguments are malformed, too long or out of range."""

    reason = "INVALID_REQUEST"


class UnknownBackend(InvalidRequest):
    """OpenSession named a backend that the settings do not define."""

    reason = "UNKNOWN_BACKEND"


class PositionForeign(InvalidRequest):
    """The position belongs to another session; resuming from it would skip events without a gap."""

    reason = "POSITION_FOREIGN"


class RequestIdReused(InvalidRequest):
    """The request id was used before, for another request; nothing was done."""

    reason = "REQUEST_ID_REUSED"


class Unauthenticated(GatewayError):
    """The caller is not known."""

    reason = "UNAUTHENTICATED"


class TooManyAttempts(Unauthenticated):
    """Too many failed attempts from this peer or for this name; a later attempt may be accepted."""

    reason = "TOO_MANY_ATTEMPTS"


class AccessDenied(GatewayError):
    """The caller is known and may not do this."""

    reason = "ACCESS_DENIED"


class AccessRevoked(AccessDenied):
    """The caller had access and lost it: its key was revoked or has expired."""

    reason = "REVOKED"


class SessionNotFound(GatewayError):
    """No session has this id."""

    reason = "SESSION_NOT_FOUND"


class SessionGone(SessionNotFound):
    """The session existed and ended; metadata carries `close_reason`."""

    reason = "SESSION_GONE"


class SessionNotReady(GatewayError):
    """The session exists but cannot serve now (starting, closing, or waiting for its worker)."""

    reason = "SESSION_NOT_READY"


class SessionAdopting(SessionNotReady):
    """The gateway was restarted and the session still waits for its worker; retry soon."""

    reason = "SESSION_ADOPTING"


class SessionLimitReached(GatewayError):
    """The number of open sessions is at the limit of the settings."""

    reason = "SESSION_LIMIT_REACHED"


class MemoryLimitReached(GatewayError):
    """The gateway's memory for events has no room for another session, or for another large request."""

    reason = "MEMORY_LIMIT_REACHED"


class RequestIdLimitReached(GatewayError):
    """No further request id can be remembered for the required time; nothing was done."""

    reason = "REQUEST_ID_LIMIT_REACHED"


class SessionEnded(GatewayError):
    """The session of a stream or command ended.

    The reason is the name of the close reason (WORKER_EXITED, LEASE_EXPIRED, …), and SESSION_CLOSED for CLIENT.
    """

    reason = "SESSION_CLOSED"

    def __init__(self, message: str, *, close_reason: str, metadata: Mapping[str, str] | None = None) -> None:
        super().__init__(message, metadata={"close_reason": close_reason, **(metadata or {})})
        self.close_reason = close_reason
        if close_reason != "CLIENT":
            self.reason = close_reason


class WorkerStartFailed(GatewayError):
    """The worker process or its backend did not become ready."""

    reason = "WORKER_START_FAILED"


class CommandTimedOut(GatewayError):
    """No answer within the command's deadline: its outcome is unknown."""

    reason = "COMMAND_TIMED_OUT"


class CommandFailed(GatewayError):
    """The worker could not run the command at all; metadata has the worker's `worker_reason`."""

    reason = "COMMAND_FAILED"


class CommandOutcomeUnknown(GatewayError):
    """The gateway ends while the command runs: it may or may not take effect. The gateway never repeats it."""

    reason = "COMMAND_OUTCOME_UNKNOWN"


class PendingCommandsExceeded(GatewayError):
    """Too many commands of this session wait for their answers."""

    reason = "PENDING_COMMANDS_EXCEEDED"


class SubscriberExists(GatewayError):
    """The session already has its one subscriber, and several subscribers are not enabled."""

    reason = "SUBSCRIBER_EXISTS"


class SubscriberLimitReached(GatewayError):
    """The number of subscribers of the session is at the limit of the settings."""

    reason = "EVENT_SUBSCRIBER_LIMIT_REACHED"


class SubscriberOverflow(GatewayError):
    """The subscriber fell further behind than its limit; resume after the last position received."""

    reason = "SUBSCRIBER_OVERFLOW"


class PositionLost(GatewayError):
    """The stream cannot be resumed completely from this position, and the client asked for a refusal in that case."""

    reason = "POSITION_LOST"


class FeatureNotEnabled(GatewayError):
    """The request needs a plugin that is not enabled; metadata has its name as `plugin`."""

    reason = "FEATURE_NOT_ENABLED"


class DependencyUnavailable(GatewayError):
    """Something that the answer needs (a directory, a database) cannot be reached now; a later call may succeed."""

    reason = "DEPENDENCY_UNAVAILABLE"


class HistoryUnavailable(GatewayError):
    """A history store did not deliver events that it had announced; resume after the last position."""

    reason = "HISTORY_UNAVAILABLE"


class GatewayDraining(GatewayError):
    """The gateway is shutting down in an orderly way."""

    reason = "GATEWAY_DRAINING"
