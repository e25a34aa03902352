"""What of a chunk the subscribers with one set of filters may see."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from typing import NamedTuple
from weakref import ref

from mxgw_core.api.events import EventFilter, StandingAnswer, StandingFilter
from mxgw_core.events.log import Chunk
from mxgw_core.events.opened import Opened, identity_of, kept_of, opened

# Items and kinds whose answers are remembered.
_REMEMBERED = 65_536
# Sets of filters whose part of one chunk is remembered; the backpressure plugin allows so many subscribers by default.
CUTS = 8


class Judged(NamedTuple):
    """A range with `events` events of which `passed` may pass: `kept`, which covers the whole range.

    `undecided` is the sequence of the event behind the range that the filters cannot judge yet, None when all are.
    """

    first: int
    last: int
    events: int
    passed: int
    kept: Chunk | None
    undecided: int | None = None


class Sieve:
    """Filters that must all agree. Those whose filters are equal share one, so that an event is judged once for all."""

    def __init__(self, filters: Sequence[EventFilter]) -> None:
        self.filters = tuple(filters)
        standing = [f for f in self.filters if isinstance(f, StandingFilter)]
        # Whether answers may be remembered, and shared.
        self.is_standing = len(standing) == len(self.filters)
        self._standing = standing if self.is_standing else []
        self._revisions: tuple[int, ...] = ()
        # By item and kind (see `identity_of`); None where each event must be asked for.
        self._answers: dict[int, bool | None] = {}
        # Of answers that hold only behind some sequence, that sequence; and the greatest of these.
        self._afters: dict[int, int] = {}
        self._latest_after = 0
        # What a chunk knows this by: a chunk that is kept for others keeps no filters that nobody has any more.
        self._reference = ref(self)

    def judge(self, chunk: Chunk, *, may_wait: bool = False) -> Judged:
        """Ask for each event; with `may_wait`, stop before the first that cannot be judged yet.

        Without it such an event does not pass.

        Raises:
            MalformedBatch: the events are not encoded, or not numbered, as the contract says.
        """
        if not self.is_standing:
            events = opened(chunk)
            return self._judged(chunk, events, [None] * len(events.keys), may_wait)
        revisions = tuple(f.revision for f in self._standing)
        if revisions != self._revisions:
            self._forget()
            self._revisions = revisions
        known = chunk.cuts.get(self._reference)
        if known is not None and known[0] == revisions:
            _, passed, kept = known
            return Judged(chunk.first, chunk.last, chunk.events, passed, chunk if passed == chunk.events else kept)
        events = opened(chunk)
        judged = self._judged(chunk, events, self._remembered(chunk, events), may_wait)
        if may_wait and judged.undecided is None:
            if len(chunk.cuts) >= CUTS:
                del chunk.cuts[next(iter(chunk.cuts))]
            # Not the chunk itself, which would then be freed by the collector only.
            chunk.cuts[self._reference] = revisions, judged.passed, None if judged.kept is chunk else judged.kept
        return judged

    def _judged(self, chunk: Chunk, events: Opened, answers: list[bool | None], may_wait: bool) -> Judged:
        """Ask where there is no answer, and cut."""
        if None in answers:
            for index, answer in enumerate(answers):
                if answer is not None:
                    continue
                sequence = events.sequences[index]
                asked = self._ask(*identity_of(events.keys[index]), sequence)
                if asked is None and may_wait:
                    # The range before it, which may be empty: nothing of it is lost when it is handed over.
                    last = sequence - 1 if index else chunk.first - 1
                    return _cut(chunk, events, answers[:index], last, undecided=sequence)
                answers[index] = bool(asked)
        return _cut(chunk, events, answers, chunk.last)

    def _ask(self, server_handle: int, item_handle: int, kind: int, sequence: int) -> bool | None:
        answer: bool | None = True
        for f in self.filters:
            answer = f.keep(server_handle, item_handle, kind, sequence) and answer
            if answer is False:
                break
        return answer

    # answers that stand

    def _remembered(self, chunk: Chunk, events: Opened) -> list[bool | None]:
        """Return the answers that stand for a chunk's events; None where there is none."""
        keys = events.keys
        answers = list(map(self._answers.get, keys))
        if None in answers:
            unknown = {key for key, answer in zip(keys, answers, strict=True) if answer is None}
            if new := unknown - self._answers.keys():
                if len(self._answers) + len(new) > _REMEMBERED:
                    self._forget()
                    new = set(keys)
                for key in new:
                    self._learn(key)
                answers = list(map(self._answers.get, keys))
        if self._latest_after >= chunk.first:  # a reader that is far behind: some answers came into force later
            late = {key for key, after in self._afters.items() if after >= chunk.first}
            answers = [None if key in late else answer for key, answer in zip(keys, answers, strict=True)]
        return answers

    def _learn(self, key: int) -> None:
        standing = [f.standing(*identity_of(key)) for f in self._standing]
        answer = _combined(standing)
        self._answers[key] = answer.keep if answer is not None else None
        if answer is not None and answer.after:
            self._afters[key] = answer.after
            self._latest_after = max(self._latest_after, answer.after)

    def _forget(self) -> None:
        self._answers.clear()
        self._afters.clear()
        self._latest_after = 0


def _combined(answers: Sequence[StandingAnswer | None]) -> StandingAnswer | None:
    """Return what several filters say together: one that denies settles it, whatever the others cannot say."""
    for answer in answers:
        if answer is not None and not answer.keep:
            return answer
    known = [answer.after for answer in answers if answer is not None]
    return StandingAnswer(True, max(known)) if len(known) == len(answers) else None


def _cut(
    chunk: Chunk, events: Opened, answers: Sequence[bool | None], last: int, undecided: int | None = None
) -> Judged:
    passed = answers.count(True)
    if passed == len(events.keys):
        return Judged(chunk.first, last, passed, passed, chunk)
    kept = kept_of(chunk.first, last, compress(events.bodies, answers), passed) if passed else None
    return Judged(chunk.first, last, len(answers), passed, kept, undecided)
