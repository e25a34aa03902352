"""All errors of mxgw, as one tree.

MxgwError
├── SettingsError            a settings file, key or value
├── PluginError              a plugin that cannot be used
└── GatewayError             an answer to a caller; becomes a gRPC status with ErrorInfo{reason, metadata}
    ├── InvalidRequest ── UnknownBackend, PositionForeign, RequestIdReused
    ├── Unauthenticated ── TooManyAttempts
    ├── AccessDenied ── AccessRevoked
    ├── SessionNotFound ── SessionGone
    ├── SessionNotReady ── SessionAdopting
    ├── SessionLimitReached, MemoryLimitReached, RequestIdLimitReached, CallLimitReached, SessionEnded
    ├── WorkerStartFailed, CommandTimedOut, CommandFailed, CommandOutcomeUnknown, PendingCommandsExceeded
    ├── SubscriberExists, SubscriberLimitReached, SubscriberOverflow, PositionLost
    ├── FeatureNotEnabled, GatewayDraining, HistoryUnavailable
    ├── DependencyUnavailable ── PluginFailed
    └── InternalError

Programs should use `reason`, which does not change. The text is for people, and says which setting or call would help.
"""

from __future__ import annotations

from collections.abc import Mapping


class MxgwError(Exception):
    """The base class of all errors of mxgw."""


class SettingsError(MxgwError):
    """The settings are wrong. The text has one line per problem, with the file, the key and the reason."""


class PluginError(MxgwError):
    """An enabled plugin cannot be used. The text names its distribution and the cause."""


class GatewayError(MxgwError):
    """A refusal or failure that is shown to a caller.

    Attributes:
        reason: a name in capital letters that never changes, sent as `ErrorInfo.reason`.
        metadata: facts for programs, sent as `ErrorInfo.metadata`. It must not contain secrets or values of tags.
        retry_after_s: after how many seconds the caller should try again, sent as `RetryInfo`; None when trying again
            is useless.
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
    """A defect of the gateway. The caller sees a correlation id, which is also in the gateway's log, and no details."""


class InvalidRequest(GatewayError):
    """The request's arguments are malformed, too long or out of range."""

    reason = "INVALID_REQUEST"


class UnknownBackend(InvalidRequest):
    """OpenSession named a backend that the settings do not define."""

    reason = "UNKNOWN_BACKEND"


class PositionForeign(InvalidRequest):
    """The client wants to resume after a position of another session. This would skip events without a gap."""

    reason = "POSITION_FOREIGN"


class RequestIdReused(InvalidRequest):
    """The request id was used before, for a different request. Nothing was done."""

    reason = "REQUEST_ID_REUSED"


class Unauthenticated(GatewayError):
    """No plugin knows who the caller is, or the credentials are wrong."""

    reason = "UNAUTHENTICATED"


class TooManyAttempts(Unauthenticated):
    """There were too many failed attempts from this peer or for this name. A later attempt can be accepted."""

    reason = "TOO_MANY_ATTEMPTS"


class AccessDenied(GatewayError):
    """The caller is known, and is not allowed to do this."""

    reason = "ACCESS_DENIED"


class AccessRevoked(AccessDenied):
    """The caller was allowed to do this, but has lost the right: for example, its key was revoked or has expired."""

    reason = "REVOKED"


class SessionNotFound(GatewayError):
    """No session has this id."""

    reason = "SESSION_NOT_FOUND"


class SessionGone(SessionNotFound):
    """The session has ended. The metadata has its `close_reason`."""

    reason = "SESSION_GONE"


class SessionNotReady(GatewayError):
    """The session exists but cannot serve now (starting, closing, or waiting for its worker)."""

    reason = "SESSION_NOT_READY"


class SessionAdopting(SessionNotReady):
    """The session waits for its worker after a restart of the gateway. The client should try again soon."""

    reason = "SESSION_ADOPTING"


class SessionLimitReached(GatewayError):
    """As many sessions are open as the settings allow."""

    reason = "SESSION_LIMIT_REACHED"


class MemoryLimitReached(GatewayError):
    """The gateway has not enough memory for another session, or for another large request."""

    reason = "MEMORY_LIMIT_REACHED"


class RequestIdLimitReached(GatewayError):
    """There is no room to remember another request id. Nothing was done."""

    reason = "REQUEST_ID_LIMIT_REACHED"


class CallLimitReached(GatewayError):
    """The gateway serves as many calls and streams at once as the settings allow. Nothing was done."""

    reason = "CALL_LIMIT_REACHED"


class SessionEnded(GatewayError):
    """The session of a stream or command ended.

    `reason` is the name of the close reason, for example WORKER_EXITED. For the close reason CLIENT it is
    SESSION_CLOSED.
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
    """The worker did not answer before the command's deadline. The outcome of the command is unknown."""

    reason = "COMMAND_TIMED_OUT"


class CommandFailed(GatewayError):
    """The worker could not run the command. The metadata has the worker's reason as `worker_reason`."""

    reason = "COMMAND_FAILED"


class CommandOutcomeUnknown(GatewayError):
    """The gateway ends while the command runs. Whether the command takes effect is unknown; the gateway never repeats
    it.
    """

    reason = "COMMAND_OUTCOME_UNKNOWN"


class PendingCommandsExceeded(GatewayError):
    """As many commands of this session are unanswered as the settings allow."""

    reason = "PENDING_COMMANDS_EXCEEDED"


class SubscriberExists(GatewayError):
    """The session has a subscriber already, and the settings do not enable several subscribers."""

    reason = "SUBSCRIBER_EXISTS"


class SubscriberLimitReached(GatewayError):
    """The session has as many subscribers as the settings allow."""

    reason = "EVENT_SUBSCRIBER_LIMIT_REACHED"


class SubscriberOverflow(GatewayError):
    """The subscriber was further behind than its limits allow. The client can resume after its last position."""

    reason = "SUBSCRIBER_OVERFLOW"


class PositionLost(GatewayError):
    """The stream cannot be resumed completely from this position, and the client asked for a refusal in that case."""

    reason = "POSITION_LOST"


class FeatureNotEnabled(GatewayError):
    """The request needs a plugin that is not enabled. The metadata has the name of the plugin as `plugin`."""

    reason = "FEATURE_NOT_ENABLED"


class DependencyUnavailable(GatewayError):
    """A directory, a database or the like that is needed for the answer cannot be reached. A later call can succeed."""

    reason = "DEPENDENCY_UNAVAILABLE"


class PluginFailed(DependencyUnavailable):
    """The plugin that serves the call, or that decides whether it is allowed, has failed. It works again after a
    restart of the gateway. The metadata has the name of the plugin as `plugin`.
    """

    reason = "PLUGIN_FAILED"


class HistoryUnavailable(GatewayError):
    """A history store did not deliver events that it had announced. The client can resume after its last position."""

    reason = "HISTORY_UNAVAILABLE"


class GatewayDraining(GatewayError):
    """The gateway is shutting down, so it refuses new calls or ends a running one."""

    reason = "GATEWAY_DRAINING"
