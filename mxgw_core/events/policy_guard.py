"""Checks overflow policies, which come from plugins: their attributes, their actions, and how long their calls take.

When a policy fails, the gateway does what `disconnect`, core's own policy, would do.
"""

from __future__ import annotations

import gc
import inspect
import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields
from types import TracebackType
from typing import Any, get_args

from mxgw_core.api.events import Action, Lag
from mxgw_core.events.counts import POLICY_ERRORS, SessionCounts
from mxgw_core.events.policies import CheckedPolicy
from mxgw_core.events.subscriber import Subscriber
from mxgw_core.plugins.answers import WrongAnswer, problem_of_action
from mxgw_core.plugins.blame import Delays, is_to_blame
from mxgw_core.plugins.calls import Owner
from mxgw_core.plugins.loading import describe
from mxgw_core.printable import printable, scalar_or_type
from mxgw_worker.platform import THREAD_TIME_STEP_S, ThreadUse, exact_thread_use

log = logging.getLogger(__name__)

# How long one call of a policy may keep the event loop busy (docs/reference/streams.md#policy-budget).
POLICY_BUDGET_S = 0.001
# `keep` of the actions `Select` and `SelectEvents` may take this time for each answer, in addition to POLICY_BUDGET_S
# for all answers.
_ANSWER_BUDGET_S = 0.000_002
# After this many answers of `keep` without a pause, something else is to have the processor on a busy machine: a delay
# then is nothing to wonder at.
_LONG_RUN = 1000


class PolicyFailed(Exception):
    """A policy failed. This is already counted and logged."""


class PolicyGuard:
    """Asks policies, and counts their failures. Only the first failure of each policy is logged.

    Whatever code of a policy raises is a failure of the policy, also SystemExit and CancelledError, which would
    otherwise end the gateway or a session.
    """

    def __init__(self, counts: SessionCounts) -> None:
        self._counts = counts
        self._logged: set[tuple[str, str]] = set()

    def checked(self, policy: object, source: str, owner: Owner | None) -> CheckedPolicy:
        """Return `policy`, or the policy `disconnect` if `policy` lacks something that a policy must have.

        The attributes of the policy are read here, once, and never again.
        """
        source = source or type(policy).__module__
        try:
            with _at_work(owner, "OverflowPolicy.name"):
                checked = _checked(policy, source, owner)
        except _Unusable as error:
            problem = str(error)
        except BaseException as error:
            problem = f"raised {describe(error)} when looked at"
        else:
            return checked
        self._failed(type(policy).__name__, source, owner, problem)
        return CheckedPolicy()

    def ask(self, subscriber: Subscriber, lag: Lag) -> Action:
        """Return the action that the subscriber's policy chooses.

        Raises:
            PolicyFailed: the policy raised something, took too long, or its answer is no action.
        """
        budget = Budget(POLICY_BUDGET_S)
        try:
            with _at_work(subscriber.policy_owner, "OverflowPolicy.on_overflow"):
                with budget:
                    answer = subscriber.policy.on_overflow(lag)
                # Looking at the answer can run code of the plugin too.
                action = _plain(answer)
        except NoAnswer as error:
            self.failed(subscriber, str(error))
        except BaseException:
            self.failed(subscriber, "raised", exc_info=True)
        else:
            if not budget.delay_s:
                subscriber.policy_delays.none()
            elif subscriber.policy_delays.one():
                budget.overrun_s = budget.delay_s
            if not budget.overrun_s:
                return action
            self.failed(subscriber, f"took {budget.overrun_s * 1000:.1f} ms of the event loop's time")
        raise PolicyFailed

    def answers(
        self, subscriber: Subscriber, action: str, keep: Callable[..., bool], questions: Iterable[Sequence[object]]
    ) -> list[bool]:
        """Return what `keep` of an action of a subscriber's policy answers to each question; see `answers` below.

        Raises:
            PolicyFailed: `keep` raised something, took too long, or returned neither True nor False.
        """
        try:
            with _at_work(subscriber.policy_owner, f"{action}.keep"):
                return answers(keep, questions, POLICY_BUDGET_S, _ANSWER_BUDGET_S, subscriber.keep_delays)
        except (OverBudget, NoAnswer) as error:
            self.failed(subscriber, str(error))
        except Exception:
            self.failed(subscriber, f"failed in {action}", exc_info=True)
        except BaseException as error:
            self.failed(subscriber, f"raised {type(error).__name__} from keep", exc_info=True)
        raise PolicyFailed

    def failed(self, subscriber: Subscriber, what: str, *, exc_info: bool = False) -> None:
        """Count and log that the policy of a subscriber failed."""
        name, source, owner = subscriber.policy_name, subscriber.policy_source, subscriber.policy_owner
        self._failed(name, source, owner, what, exc_info=exc_info)

    def _failed(self, name: str, source: str, owner: Owner | None, what: str, *, exc_info: bool = False) -> None:
        self._counts.count(POLICY_ERRORS, source)
        if owner is not None:
            owner.failed(f"overflow policy {printable(name, 64)}", WrongAnswer(what), is_logged=True)
        if (name, source) not in self._logged:
            self._logged.add((name, source))
            log.warning(
                "overflow policy %s of %s %s: its subscriber is disconnected instead; later ones are only counted",
                printable(name, 64),
                source,
                what,
                exc_info=exc_info,
            )


def _at_work(owner: Owner | None, what: str) -> AbstractContextManager[None]:
    """Return what counts and times a call of a policy, so that it is named while it does not return."""
    return nullcontext() if owner is None else owner.at_work(what)


def _shown(answer: object) -> str:
    """Return a wrong answer as text. A coroutine is closed, because it will never be awaited."""
    if inspect.iscoroutine(answer):
        answer.close()
    return scalar_or_type(answer, 80)


class _Unusable(Exception):
    """An object cannot be used as a policy; the text says why."""


_MISSING = object()


def _checked(policy: Any, source: str, owner: Owner | None) -> CheckedPolicy:
    # Each attribute is read once: `isinstance` with a protocol would read it too, and it can be code of the plugin.
    name = getattr(policy, "name", _MISSING)
    if name is _MISSING or not callable(getattr(policy, "on_overflow", None)):
        raise _Unusable("has no name or no on_overflow(lag)")
    if not isinstance(name, str) or not name:
        raise _Unusable("has no text for its name")
    interval_s = getattr(policy, "interval_s", _MISSING)
    pace_s = 0.0 if interval_s is _MISSING else _pace_s_of(interval_s)
    return CheckedPolicy(policy, str.__str__(name), pace_s, source, owner)  # a class derived from str can have code too


def _pace_s_of(interval_s: object) -> float:
    if isinstance(interval_s, bool) or not isinstance(interval_s, int | float):
        raise _Unusable("has an interval_s that is no number")
    if not (math.isfinite(interval_s) and interval_s > 0):
        raise _Unusable(f"has an interval_s of {interval_s}; it must be greater than 0")
    return float(interval_s)


_ACTIONS: Sequence[type] = get_args(Action)


def _plain(answer: object) -> Action:
    """Return a policy's answer as an action that has no code of the plugin, apart from a `keep`.

    Raises:
        NoAnswer: the answer is no action, or an action with a wrong value.
    """
    kind = type(answer)
    if kind not in _ACTIONS:  # perhaps it is of a class that the plugin has derived from an action
        found = next((base for base in kind.__mro__ if base in _ACTIONS), None)
        if found is None:
            raise NoAnswer(f"answered {_shown(answer)}, which is no action")
        answer = found(**{field.name: getattr(answer, field.name) for field in fields(found)})
    action: Action = answer  # type: ignore[assignment]  # mypy does not see what `kind` says
    if problem := problem_of_action(action):
        raise NoAnswer(f"returned {problem}")
    return action


class Budget:
    """Measures a block of code. If the block took too long by its own fault (`is_to_blame`), `overrun_s` is its
    duration; else 0. If it took too long and the system does not say why, `delay_s` is its duration; else 0.

    Garbage collection is off until the block ends, because it would be charged to a block that did not cause it.

    `clock` returns the time in seconds, `use` what the thread has used (`exact_thread_use`), with an error of `step_s`.
    """

    __slots__ = ("_began", "_clock", "_collects", "_step_s", "_use", "budget_s", "delay_s", "overrun_s")

    def __init__(
        self,
        budget_s: float,
        *,
        clock: Callable[[], float] | None = None,
        use: Callable[[], ThreadUse] | None = None,
        step_s: float | None = None,
    ) -> None:
        self.budget_s = budget_s
        self._clock = clock or time.perf_counter
        self._use = use or exact_thread_use
        self._step_s = THREAD_TIME_STEP_S if step_s is None else step_s
        self._began: tuple[float, ThreadUse] = (0.0, (0.0, 0, 0))
        self._collects = False
        self.overrun_s = self.delay_s = 0.0

    def __enter__(self) -> Budget:
        self._collects = gc.isenabled()
        gc.disable()
        used = self._use()  # first, because it takes a tenth of a millisecond on some systems
        self._began = (self._clock(), used)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._collects:
            gc.enable()
        began, before = self._began
        wall_s = self._clock() - began
        if wall_s <= self.budget_s:
            return
        match is_to_blame(before, self._use(), self.budget_s, self._step_s):
            case True:
                self.overrun_s = wall_s
            case None:
                self.delay_s = wall_s


class OverBudget(Exception):
    """Code of a plugin took too long; the text says how long."""


class NoAnswer(Exception):
    """Code of a plugin returned neither True nor False; the text says what it did."""


def answers(
    keep: Callable[..., bool],
    questions: Iterable[Sequence[object]],
    budget_s: float,
    per_answer_s: float,
    delays: Delays,
) -> list[bool]:
    """Call `keep` with each of `questions` as its arguments, and return the answers in the same order.

    `delays` counts the delays of this `keep` for which the system does not say whether `keep` is to blame.

    Raises:
        OverBudget: all answers together took longer than `budget_s` plus `per_answer_s` for each answer.
        NoAnswer: `keep` returned neither True nor False.
        Exception: what `keep` raises.
    """
    found: list[bool] = []
    rest = iter(questions)
    was_delayed = False
    while True:  # when the time is over by no fault of `keep`, the loop continues with a new budget
        answered = len(found)
        with Budget(budget_s) as budget:
            began = time.perf_counter()
            until = began + budget_s
            for question in rest:
                until += per_answer_s
                answer = keep(*question)
                if answer is not True and answer is not False:
                    raise NoAnswer(f"returned {_shown(answer)} from keep, which is neither True nor False")
                found.append(answer)
                if time.perf_counter() > until:
                    budget.budget_s = until - began
                    break
            else:
                if not was_delayed:
                    delays.none()
                return found
        if budget.delay_s and len(found) - answered <= _LONG_RUN:
            was_delayed = True
            if delays.one():
                budget.overrun_s = budget.delay_s
        if budget.overrun_s:
            raise OverBudget(f"took {budget.overrun_s * 1000:.1f} ms for {len(found)} answers")
