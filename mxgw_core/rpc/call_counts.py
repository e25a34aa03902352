"""Counts of calls, by method: how they ended, how long they took, and whether their callers were let in.

Only methods of served services have counts of their own. Calls of all other methods share one count, because strangers
can invent any number of names.
"""

from __future__ import annotations

import enum
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from mxgw_core.api import errors as e
from mxgw_core.api.metrics import Distribution

log = logging.getLogger(__name__)

# The bounds reach from the fastest call, which only reads memory, to the slowest command: limits.command_timeout_s is
# 30 s by default.
DURATION_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class AccessOutcome(enum.Enum):
    """Whether a caller was let in, and if not, why. The values are labels of a metric, so there are only a few."""

    OK = "ok"
    UNAUTHENTICATED = "unauthenticated"
    TOO_MANY_ATTEMPTS = "too_many_attempts"
    # The caller is known, but is not allowed to do this.
    DENIED = "denied"
    # The caller was allowed to do this at first, but has lost the right since.
    REVOKED = "revoked"
    # A service that is needed to identify the caller, such as a directory, cannot be reached.
    UNAVAILABLE = "unavailable"
    # Any other refusal that a plugin made on purpose.
    REFUSED = "refused"

    @classmethod
    def of(cls, error: e.GatewayError) -> AccessOutcome:
        """Return the outcome of a call that failed with this error.

        An error class that a plugin defines has the outcome of its base class.
        """
        for kind, outcome in _OUTCOMES:
            if isinstance(error, kind):
                return outcome
        return cls.REFUSED


# An error class must come before its base class, because the first class that matches decides.
_OUTCOMES: tuple[tuple[type[e.GatewayError], AccessOutcome], ...] = (
    (e.TooManyAttempts, AccessOutcome.TOO_MANY_ATTEMPTS),
    (e.Unauthenticated, AccessOutcome.UNAUTHENTICATED),
    (e.AccessRevoked, AccessOutcome.REVOKED),
    (e.AccessDenied, AccessOutcome.DENIED),
    (e.DependencyUnavailable, AccessOutcome.UNAVAILABLE),
)


class MethodCounts:
    """The calls of one method: how many ended with each code, how long unary calls took, and how many are running."""

    __slots__ = ("codes", "duration", "method", "running")

    def __init__(self, method: str, *, streams: bool) -> None:
        self.method = method
        self.codes: Counter[str] = Counter({"OK": 0})
        # None for a streaming method: how long a stream is open depends on its client alone.
        self.duration = None if streams else Distribution(DURATION_BOUNDS_S)
        self.running = 0

    def ended(self, code: str, seconds: float) -> None:
        """Count a call that ended."""
        self.codes[code] += 1
        if self.duration is not None:
            self.duration.observe(seconds)


class CallCounts:
    """Counts of all calls of a gateway.

    Attributes:
        methods: Key: the path of a method, `/package.Service/Method`. Value: the counts of this method.
        limit: how many calls and streams may be served at once; None for no limit.
        running: how many calls and streams are being served, those of reflection included, health checks not.
        over_limit: how many calls were refused because of `limit`.
        unlisted: how many calls asked for a method that no service has.
        access: Key: an access outcome. Value: how many checked calls had this outcome.
        logins: Key: an access outcome. Value: how many logins of operators had this outcome.
    """

    def __init__(self, limit: int | None = None) -> None:
        self.limit = limit
        self.running = 0
        self.over_limit = 0
        # How many calls were refused since the limit was reached; 0 while calls are served.
        self._refused = 0
        self.methods: dict[str, MethodCounts] = {}
        self.unlisted = 0
        self.access: Counter[AccessOutcome] = Counter()
        self.logins: Counter[AccessOutcome] = Counter()

    def method(self, path: str, *, streams: bool) -> MethodCounts:
        """Return the counts of a served method. The first call for a method makes its counts."""
        return self.methods.setdefault(path, MethodCounts(path, streams=streams))

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Count a call while the block serves it. One line is logged when calls begin to be refused, and one when a
        tenth of the limit is free again.

        Raises:
            CallLimitReached: as many calls are served as the limit allows.
        """
        if self.limit is not None and self.running >= self.limit:
            self.over_limit += 1
            self._refused += 1
            if self._refused == 1:
                log.warning("%d calls and streams are served (limits.concurrent_calls): more are refused", self.running)
            raise e.CallLimitReached(
                f"the gateway serves {self.limit} calls and streams, as many as it may (limits.concurrent_calls): try "
                "again later",
                metadata={"limit": str(self.limit)},
                retry_after_s=1.0,
            )
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1
            if self._refused and self.limit is not None and self.running <= self.limit * 0.9:
                log.warning("calls are served again; %d were refused (limits.concurrent_calls)", self._refused)
                self._refused = 0

    def unlisted_handler(self) -> grpc.GenericRpcHandler:
        """Return a handler that only counts the calls that no other handler took. It must be added after all others."""
        return _Unlisted(self)


class _Unlisted(grpc.GenericRpcHandler):
    def __init__(self, counts: CallCounts) -> None:
        self._counts = counts

    def service(self, handler_call_details: Any) -> None:
        del handler_call_details  # the caller can invent any method name, so there is no count for each name
        self._counts.unlisted += 1
