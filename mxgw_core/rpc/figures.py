"""What became of calls, counted once per call: by method and code, how long, and who was let in.

Methods are those of the services that are served, so what a stranger asks for adds no name.
"""

from __future__ import annotations

import enum
from collections import Counter
from typing import Any

import grpc

from mxgw_core.api import errors as e
from mxgw_core.api.metrics import Distribution

# From what a look at memory takes to the longest command (limits.command_timeout_s is 30 s by default).
DURATION_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class AccessOutcome(enum.Enum):
    """Whether somebody was let in; a closed set, so that it can be a label."""

    OK = "ok"
    UNAUTHENTICATED = "unauthenticated"
    TOO_MANY_ATTEMPTS = "too_many_attempts"
    # Known, and may not do this.
    DENIED = "denied"
    # Was allowed to, and is no longer.
    REVOKED = "revoked"
    # What the answer depends on is not there: a directory, a database.
    UNAVAILABLE = "unavailable"
    # Any other refusal that a plugin made on purpose.
    REFUSED = "refused"

    @classmethod
    def of(cls, error: e.GatewayError) -> AccessOutcome:
        """Return the outcome that an error stands for; errors of plugins count as what they derive from."""
        for kind, outcome in _OUTCOMES:
            if isinstance(error, kind):
                return outcome
        return cls.REFUSED


# The more special first.
_OUTCOMES: tuple[tuple[type[e.GatewayError], AccessOutcome], ...] = (
    (e.TooManyAttempts, AccessOutcome.TOO_MANY_ATTEMPTS),
    (e.Unauthenticated, AccessOutcome.UNAUTHENTICATED),
    (e.AccessRevoked, AccessOutcome.REVOKED),
    (e.AccessDenied, AccessOutcome.DENIED),
    (e.DependencyUnavailable, AccessOutcome.UNAVAILABLE),
)


class MethodFigures:
    """The calls of one method: ended ones by code, how long unary ones took, and how many run now."""

    __slots__ = ("codes", "duration", "method", "running")

    def __init__(self, method: str, *, streams: bool) -> None:
        self.method = method
        self.codes: Counter[str] = Counter({"OK": 0})
        # Of a stream its length would say nothing.
        self.duration = None if streams else Distribution(DURATION_BOUNDS_S)
        self.running = 0

    def ended(self, code: str, seconds: float) -> None:
        """Count a call that ended."""
        self.codes[code] += 1
        if self.duration is not None:
            self.duration.observe(seconds)


class CallFigures:
    """All calls of a gateway.

    Attributes:
        methods: by path, `/package.Service/Method`.
        unlisted: calls of methods that no service has.
        access: whether callers were let in, once per call that was judged.
        logins: the same for operators' logins.
    """

    def __init__(self) -> None:
        self.methods: dict[str, MethodFigures] = {}
        self.unlisted = 0
        self.access: Counter[AccessOutcome] = Counter()
        self.logins: Counter[AccessOutcome] = Counter()

    def method(self, path: str, *, streams: bool) -> MethodFigures:
        """Return the figures of a method that is served; made on first use."""
        return self.methods.setdefault(path, MethodFigures(path, streams=streams))

    def unlisted_handler(self) -> grpc.GenericRpcHandler:
        """Return a handler to add behind all others: it serves nothing, and counts what gets there."""
        return _Unlisted(self)


class _Unlisted(grpc.GenericRpcHandler):
    def __init__(self, figures: CallFigures) -> None:
        self._figures = figures

    def service(self, handler_call_details: Any) -> None:
        del handler_call_details  # the name is the stranger's choice
        self._figures.unlisted += 1
