"""Counts and times the calls of plugins, and logs those that take long."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

from mxgw_core.plugins.blame import Delays, is_to_blame
from mxgw_core.plugins.discovery import PluginRecord
from mxgw_worker.platform import THREAD_TIME_STEP_S, ThreadUse, thread_use

log = logging.getLogger(__name__)

# Stands for a hook while a plugin is imported, made and given its settings, before any gateway runs.
LOADING = "loading"
# These hooks are called in threads of their own, or in a process without a gateway, so they are allowed to block.
_BLOCKING_HOOKS = frozenset(
    {LOADING, "mxgw_authenticate_operator", "mxgw_renew_operator", "mxgw_backup", "mxgw_cli", "mxgw_doctor"}
)
# After this time without a slow call of a hook, the next slow call is logged again.
_EPISODE_S = 60.0


@dataclass(slots=True)
class Tally:
    """What the calls of one hook of one plugin cost. The calls of objects that the hook returned count too.

    `slow_at` and `hung_at` are when the last slow call ended, and when the last call that hung was noticed. `delays`
    counts calls that took long without anyone knowing why.
    """

    calls: int = 0
    seconds: float = 0.0
    slow: int = 0
    slow_at: float = -math.inf
    hung_at: float = -math.inf
    delays: Delays = field(default_factory=Delays)


class Source(Protocol):
    """A plugin, and the hook with which its code came into the gateway."""

    @property
    def plugin(self) -> str: ...

    @property
    def hook(self) -> str: ...

    @property
    def tally(self) -> Tally: ...


class Span:
    """One call that has not returned. `outer` is the call during which this call began, in the same thread.

    `wall` is the time when the call began, `used` is what the thread had used until then (`thread_use`). `is_reported`
    says whether the watching thread has logged this call.
    """

    __slots__ = ("is_reported", "outer", "owner", "used", "wall", "what")

    def __init__(self, owner: Source, what: str, outer: Span | None, wall: float, used: ThreadUse) -> None:
        self.owner = owner
        self.what = what
        self.outer = outer
        self.wall = wall
        self.used = used
        self.is_reported = False


class CallTimes:
    """Counts and times calls. The methods can be called in any thread.

    `records` are the records of the plugins; they can change at any time.

    Attributes:
        slow_call_s: a call of a plugin that takes longer by its own fault counts as slow.
        is_starting: whether the gateway serves nobody yet. Then no call counts as slow, because nobody waits for it.
        clock: returns the time in seconds.
        use: returns what this thread has used, see `thread_use`, with an error of `step_s`.
        spans: the innermost call that has not returned, for each thread that is in one. Key: the number of the thread.
    """

    def __init__(self, records: Mapping[str, PluginRecord]) -> None:
        self._records = records
        self._tallies: dict[tuple[str, str], Tally] = {}
        self._counting = threading.Lock()
        self.slow_call_s = 0.1
        self.is_starting = False
        self.clock: Callable[[], float] = time.perf_counter
        self.use: Callable[[], ThreadUse] = thread_use
        self.step_s = THREAD_TIME_STEP_S
        self.spans: dict[int, Span] = {}

    @property
    def tallies(self) -> Mapping[tuple[str, str], Tally]:
        """How many calls there were, and how long they took. Key: a plugin and a hook."""
        return MappingProxyType(self._tallies)

    def tally_of(self, plugin: str, hook: str) -> Tally:
        """Return what counts the calls of a hook of a plugin."""
        if hook == LOADING:  # this is no hook, so nothing is counted
            return Tally()
        return self._tallies.setdefault((plugin, hook), Tally())

    def begin(self, owner: Source, what: str) -> Span:
        """Record that a call of a plugin begins."""
        thread, spans = threading.get_ident(), self.spans
        span = spans[thread] = Span(owner, what, spans.get(thread), self.clock(), self.use())
        return span

    def end(self, span: Span) -> None:
        """Record that a call of a plugin has returned. Call this in the thread in which the call began."""
        thread = threading.get_ident()
        if span.outer is None:
            del self.spans[thread]
        else:
            self.spans[thread] = span.outer
        now, tally = self.clock(), span.owner.tally
        wall_s = now - span.wall
        # Hooks that may block are called in several threads.
        if span.owner.hook in _BLOCKING_HOOKS:
            with self._counting:
                tally.calls += 1
                tally.seconds += wall_s
            return
        tally.calls += 1
        tally.seconds += wall_s
        if wall_s <= self.slow_call_s:
            tally.delays.count = 0
        elif not self.is_starting and self._is_its_fault(span):
            self._slow(span, now, wall_s)

    def _slow(self, span: Span, now: float, wall_s: float) -> None:
        tally = span.owner.tally
        tally.slow += 1
        is_new = now - tally.slow_at >= _EPISODE_S
        tally.slow_at = now
        log.log(
            logging.WARNING if is_new else logging.DEBUG,
            "%s took %.0f ms, and nothing else ran meanwhile; a call must take less than %.0f ms "
            "(plugins.slow_call_ms); later ones are only counted",
            self.in_words(span.owner, span.what),
            wall_s * 1000,
            self.slow_call_s * 1000,
        )

    def hangs(self, span: Span) -> None:
        """Log that a call has not returned yet. Only the first one of an episode is a warning."""
        now, tally = self.clock(), span.owner.tally
        is_new = now - tally.hung_at >= _EPISODE_S
        tally.hung_at = now
        log.log(
            logging.WARNING if is_new else logging.DEBUG,
            "%s has not returned for %.1f s, and nothing else runs meanwhile",
            self.in_words(span.owner, span.what),
            now - span.wall,
        )

    def _is_its_fault(self, span: Span) -> bool:
        """Return whether a call that took long used the processor, or waited. Otherwise another process had the
        processor meanwhile. Where the system does not say, several such calls in succession are the plugin's fault.
        """
        is_its_fault = is_to_blame(span.used, self.use(), self.slow_call_s, self.step_s)
        return span.owner.tally.delays.one() if is_its_fault is None else is_its_fault

    def in_words(self, owner: Source, what: str) -> str:
        """Return the begin of a sentence about a part of a plugin, with the plugin's distribution and the hook."""
        record = self._records.get(owner.plugin)
        source = f"{record.distribution} {record.version}".strip() if record is not None else ""
        part = what if what == owner.hook else f"{what} ({owner.hook})"
        return f"plugin {owner.plugin} ({source or 'unknown distribution'}): {part}"
