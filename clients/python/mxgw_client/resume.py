"""How a stream that was cut comes back: which ends are temporary, how long to wait, when to give up."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import grpc

from mxgw_client.errors import (
    CallFailed,
    CallTimedOut,
    ConnectionOptionError,
    GatewayUnreachable,
    MxgwClientError,
    SessionNotReady,
    SubscriberExists,
    SubscriberLimitReached,
)

# What an attempt to come back may meet until the gateway is there again, has noticed that the old stream is dead, or
# has taken its workers back.
_TEMPORARY = (GatewayUnreachable, CallTimedOut, SessionNotReady, SubscriberExists, SubscriberLimitReached)
_TEMPORARY_CODES = (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.CANCELLED)


@dataclass(frozen=True, slots=True)
class ResumePolicy:
    """How a stream comes back by itself after a cut; `resume=None` switches that off.

    The n-th attempt waits a random time up to `first_delay_s * 2**n`, at most `longest_delay_s` (full jitter, so that
    many clients do not come back at once), and no less than the gateway asks for (`retry_after_s`). Without
    `maximum_attempts` and `maximum_outage_s` it tries for as long as the gateway does not say that the session is over.

    Attributes:
        attempt_timeout_s: how long one attempt may take to be answered.
        maximum_attempts: attempts in a row that fail before the stream ends with the error of the last one.
        maximum_outage_s: time since the cut after which no other attempt is made.
    """

    first_delay_s: float = 0.2
    longest_delay_s: float = 10.0
    attempt_timeout_s: float = 10.0
    maximum_attempts: int | None = None
    maximum_outage_s: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.first_delay_s <= self.longest_delay_s:
            raise ConnectionOptionError(
                f"first_delay_s is {self.first_delay_s}, longest_delay_s {self.longest_delay_s}: the first must be "
                "greater than 0 and no longer than the longest"
            )
        if self.attempt_timeout_s <= 0:
            raise ConnectionOptionError(f"attempt_timeout_s is {self.attempt_timeout_s}; it must be greater than 0")
        if self.maximum_attempts is not None and self.maximum_attempts < 1:
            raise ConnectionOptionError(f"maximum_attempts is {self.maximum_attempts}; pass resume=None for none")
        if self.maximum_outage_s is not None and self.maximum_outage_s <= 0:
            raise ConnectionOptionError(f"maximum_outage_s is {self.maximum_outage_s}; pass resume=None for none")

    def delay_s(self, attempt: int, retry_after_s: float | None, chance: float) -> float:
        """Return how long to wait before attempt `attempt` (0 is the first); `chance` is from 0 to 1."""
        longest_s = min(self.longest_delay_s, self.first_delay_s * 2.0 ** min(attempt, 60))
        return (retry_after_s or 0.0) + chance * longest_s


RESUME = ResumePolicy()


def is_temporary(error: MxgwClientError, *, was_open: bool) -> bool:
    """Return whether another attempt makes sense. `was_open`: the stream had been open before, maybe long ago."""
    if not was_open:
        return False
    if error.resumable or isinstance(error, _TEMPORARY):
        return True
    return isinstance(error, CallFailed) and error.code in _TEMPORARY_CODES


class Ladder:
    """Counts the attempts of one outage. `clock` is monotonic seconds."""

    def __init__(
        self, policy: ResumePolicy, clock: Callable[[], float], chance: Callable[[], float] = random.random
    ) -> None:
        self._policy = policy
        self._clock = clock
        self._chance = chance
        self._cut_at: float | None = None
        self.attempts = 0

    def works(self) -> None:
        """The stream is back, and something came over it."""
        self._cut_at, self.attempts = None, 0

    def step(self, error: MxgwClientError) -> float | None:
        """Return how long to wait before the next attempt; None to give up, then `error` says why."""
        now, policy = self._clock(), self._policy
        if self._cut_at is None:
            self._cut_at = now
        delay_s = policy.delay_s(self.attempts, error.retry_after_s, self._chance())
        out_s = now - self._cut_at
        is_last = policy.maximum_attempts is not None and self.attempts >= policy.maximum_attempts
        is_late = policy.maximum_outage_s is not None and out_s + delay_s > policy.maximum_outage_s
        if is_last or is_late:
            error.add_note(f"gave up after {self.attempts} attempts in {out_s:.1f} s")
            return None
        self.attempts += 1
        return delay_s
