"""Checks overflow policies, which come from plugins: their attributes, their actions, and how long their calls take.

When a policy fails, the gateway does what `disconnect`, core's own policy, would do.
"""

from __future__ import annotations

import gc
import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType

from mxgw_core.api.events import Action, Disconnect, Lag, OverflowPolicy, PacedPolicy
from mxgw_core.events.counts import POLICY_ERRORS, SessionCounts
from mxgw_core.events.subscriber import Subscriber
from mxgw_core.printable import printable
from mxgw_worker.platform import thread_waits

log = logging.getLogger(__name__)

# How long one call of a policy may keep the event loop busy (docs/reference/streams.md#policy-budget).
POLICY_BUDGET_S = 0.001
# `keep` of the actions `Select` and `SelectEvents` may take this time for each answer, in addition to POLICY_BUDGET_S
# for all answers.
_ANSWER_BUDGET_S = 0.000_002


class DisconnectPolicy:
    """Ends the stream with SUBSCRIBER_OVERFLOW after the unread events are delivered; the client then resumes."""

    @property
    def name(self) -> str:
        return "disconnect"

    def on_overflow(self, lag: Lag) -> Disconnect:  # noqa: ARG002 - the answer does not depend on the lag
        return Disconnect()


class PolicyGuard:
    """Asks policies, and counts their failures. Only the first failure of each policy is logged."""

    def __init__(self, counts: SessionCounts) -> None:
        self._counts = counts
        self._logged: set[tuple[str, str]] = set()

    def usable(self, policy: object, source: str) -> OverflowPolicy:
        """Return `policy`, or the policy `disconnect` if `policy` lacks something that a policy must have."""
        try:
            problem = _problem_with(policy)
        except BaseException as error:
            problem = f"raised {type(error).__name__} when looked at"
        if problem:
            self._failed(type(policy).__name__, source or type(policy).__module__, problem)
            return DisconnectPolicy()
        assert isinstance(policy, OverflowPolicy)
        return policy

    def ask(self, subscriber: Subscriber, lag: Lag) -> Action:
        """Return the action that the subscriber's policy chooses; `Disconnect` when the policy fails."""
        budget = Budget(POLICY_BUDGET_S)
        try:
            with budget:
                action: Action = subscriber.policy.on_overflow(lag)
        except BaseException:
            self.failed(subscriber, "raised", exc_info=True)
            return Disconnect()
        if budget.overrun_s:
            self.failed(subscriber, f"took {budget.overrun_s * 1000:.1f} ms of the event loop's time")
            return Disconnect()
        if not isinstance(action, Action):
            self.failed(subscriber, f"answered {printable(repr(action), 80)}, which is no action")
            return Disconnect()
        return action

    def answers(self, keep: Callable[..., bool], questions: Iterable[Sequence[object]]) -> list[bool]:
        """Return what `keep` of a policy's action answers to each question; see the function `answers`."""
        return answers(keep, questions, POLICY_BUDGET_S, _ANSWER_BUDGET_S)

    def failed(self, subscriber: Subscriber, what: str, *, exc_info: bool = False) -> None:
        """Count and log that the policy of a subscriber failed."""
        source = subscriber.policy_source or type(subscriber.policy).__module__
        self._failed(subscriber.policy_name, source, what, exc_info=exc_info)

    def _failed(self, name: str, source: str, what: str, *, exc_info: bool = False) -> None:
        self._counts.count(POLICY_ERRORS, source)
        if (name, source) not in self._logged:
            self._logged.add((name, source))
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


class Budget:
    """Measures a block of code. If the block took too long by its own fault, `overrun_s` is its duration; else 0.

    It is the block's fault when it used more CPU time than its budget, or slept or waited for something. It is not its
    fault when another process had the CPU meanwhile. Garbage collection is off until the block ends, because it would
    be charged to a block that did not cause it.
    """

    def __init__(self, budget_s: float) -> None:
        self.budget_s = budget_s
        self._began = (0.0, 0.0, 0)
        self._collects = False
        self.overrun_s = 0.0

    def __enter__(self) -> Budget:
        self._collects = gc.isenabled()
        gc.disable()
        self._began = (time.perf_counter(), time.thread_time(), thread_waits())
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._collects:
            gc.enable()
        wall, cpu, waits = self._began
        wall_s = time.perf_counter() - wall
        if wall_s > self.budget_s and (time.thread_time() - cpu > self.budget_s or thread_waits() > waits):
            self.overrun_s = wall_s


class OverBudget(Exception):
    """Code of a plugin took too long; the text says how long."""


class NoAnswer(Exception):
    """Code of a plugin returned neither True nor False; the text says what it returned."""


def answers(
    keep: Callable[..., bool], questions: Iterable[Sequence[object]], budget_s: float, per_answer_s: float
) -> list[bool]:
    """Call `keep` with each of `questions` as its arguments, and return the answers in the same order.

    Raises:
        OverBudget: all answers together took longer than `budget_s` plus `per_answer_s` for each answer.
        NoAnswer: `keep` returned neither True nor False.
        Exception: what `keep` raises.
    """
    found: list[bool] = []
    rest = iter(questions)
    while True:  # when the time is over by no fault of `keep`, the loop continues with a new budget
        with Budget(budget_s) as budget:
            began = time.perf_counter()
            until = began + budget_s
            for question in rest:
                until += per_answer_s
                answer = keep(*question)
                if answer is not True and answer is not False:
                    raise NoAnswer(f"returned {printable(repr(answer), 80)} from keep, which is neither True nor False")
                found.append(answer)
                if time.perf_counter() > until:
                    budget.budget_s = until - began
                    break
            else:
                return found
        if budget.overrun_s:
            raise OverBudget(f"took {budget.overrun_s * 1000:.1f} ms for {len(found)} answers")
