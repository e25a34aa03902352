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
from mxgw_core.plugins.calls import Owner
from mxgw_core.plugins.loading import describe
from mxgw_core.printable import printable, scalar_or_type
from mxgw_worker.platform import exact_thread_use

log = logging.getLogger(__name__)

# How long one call of a policy may keep the event loop busy (docs/reference/streams.md#policy-budget).
POLICY_BUDGET_S = 0.001
# `keep` of the actions `Select` and `SelectEvents` may take this time for each answer, in addition to POLICY_BUDGET_S
# for all answers.
_ANSWER_BUDGET_S = 0.000_002


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
                return answers(keep, questions, POLICY_BUDGET_S, _ANSWER_BUDGET_S)
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
    """Measures a block of code. If the block took too long by its own fault, `overrun_s` is its duration; else 0.

    It is the block's fault when it used more CPU time than its budget. When it slept or waited for something, it is the
    block's fault only if the system did not take the CPU away from it meanwhile: a thread that gets the CPU back has to
    wait for Python's lock, which looks like any other waiting. Garbage collection is off until the block ends, because
    it would be charged to a block that did not cause it.

    `clock` returns the time in seconds, and `use` what the thread has used (`exact_thread_use`).
    """

    __slots__ = ("_began", "_clock", "_collects", "_use", "budget_s", "overrun_s")

    def __init__(
        self,
        budget_s: float,
        *,
        clock: Callable[[], float] = time.perf_counter,
        use: Callable[[], tuple[float, int, int]] | None = None,
    ) -> None:
        self.budget_s = budget_s
        self._clock = clock
        self._use = use or exact_thread_use
        self._began = (0.0, (0.0, 0, 0))
        self._collects = False
        self.overrun_s = 0.0

    def __enter__(self) -> Budget:
        self._collects = gc.isenabled()
        gc.disable()
        self._began = (self._clock(), self._use())
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._collects:
            gc.enable()
        began, (cpu_before_s, waits_before, interruptions_before) = self._began
        wall_s = self._clock() - began
        if wall_s <= self.budget_s:
            return
        cpu_s, waits, interruptions = self._use()
        has_waited = waits > waits_before and interruptions == interruptions_before
        if has_waited or cpu_s - cpu_before_s > self.budget_s:
            self.overrun_s = wall_s


class OverBudget(Exception):
    """Code of a plugin took too long; the text says how long."""


class NoAnswer(Exception):
    """Code of a plugin returned neither True nor False; the text says what it did."""


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
                    raise NoAnswer(f"returned {_shown(answer)} from keep, which is neither True nor False")
                found.append(answer)
                if time.perf_counter() > until:
                    budget.budget_s = until - began
                    break
            else:
                return found
        if budget.overrun_s:
            raise OverBudget(f"took {budget.overrun_s * 1000:.1f} ms for {len(found)} answers")
