"""Policies come from others: what they are and what they answer is checked, and how long they take."""

from __future__ import annotations

import logging
import math

from mxgw_core.api.events import Disconnect, Lag, OverflowPolicy, PacedPolicy, Verdict
from mxgw_core.events.budget import Budget
from mxgw_core.events.figures import POLICY_ERRORS, SessionFigures
from mxgw_core.events.policies import DisconnectPolicy
from mxgw_core.events.subscriber import Subscriber
from mxgw_core.printable import printable

log = logging.getLogger(__name__)

# What one question to a policy may cost the event loop (docs/reference/streams.md#policy-budget).
POLICY_BUDGET_S = 0.001


class PolicyGuard:
    """Puts `disconnect` in the place of a policy that cannot be relied on, counts that, and says so once for each."""

    def __init__(self, figures: SessionFigures) -> None:
        self._figures = figures
        self._told: set[tuple[str, str]] = set()

    def usable(self, policy: object, source: str) -> OverflowPolicy:
        """Return `policy`, or `disconnect` when it is none."""
        try:
            problem = _problem_with(policy)
        except Exception as error:
            problem = f"raised {type(error).__name__} when looked at"
        if problem:
            self._failed(type(policy).__name__, source or type(policy).__module__, problem)
            return DisconnectPolicy()
        assert isinstance(policy, OverflowPolicy)
        return policy

    def verdict(self, subscriber: Subscriber, lag: Lag) -> Verdict:
        """Ask the subscriber's policy."""
        budget = Budget(POLICY_BUDGET_S)
        try:
            with budget:
                verdict: Verdict = subscriber.policy.on_overflow(lag)
        except Exception:
            self.failed(subscriber, "raised", exc_info=True)
            return Disconnect()
        if budget.overrun_s:
            self.failed(subscriber, f"took {budget.overrun_s * 1000:.1f} ms of the event loop's time")
            return Disconnect()
        if not isinstance(verdict, Verdict):
            self.failed(subscriber, f"answered {printable(repr(verdict), 80)}, which is no verdict")
            return Disconnect()
        return verdict

    def failed(self, subscriber: Subscriber, what: str, *, exc_info: bool = False) -> None:
        """The policy of a subscriber failed."""
        source = subscriber.policy_source or type(subscriber.policy).__module__
        self._failed(subscriber.policy_name, source, what, exc_info=exc_info)

    def _failed(self, name: str, source: str, what: str, *, exc_info: bool = False) -> None:
        self._figures.count(POLICY_ERRORS, source)
        if (name, source) not in self._told:
            self._told.add((name, source))
            log.warning(
                "overflow policy %s of %s %s: its subscriber is disconnected instead; later ones are only counted",
                printable(name, 64),
                source,
                what,
                exc_info=exc_info,
            )


def _problem_with(policy: object) -> str:
    if not isinstance(policy, OverflowPolicy) or not callable(policy.on_overflow):
        return "has no name or no on_overflow(lag)"
    if not isinstance(policy.name, str) or not policy.name:
        return "has no text for its name"
    if isinstance(policy, PacedPolicy):
        interval_s = policy.interval_s
        if isinstance(interval_s, bool) or not isinstance(interval_s, int | float):
            return "has an interval_s that is no number"
        if not (math.isfinite(interval_s) and interval_s > 0):
            return f"has an interval_s of {interval_s}; it must be greater than 0"
    return ""
