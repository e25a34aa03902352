"""What of a chunk the subscribers with one set of filters may see."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from typing import NamedTuple, Protocol
from weakref import ref

from mxgw_core.api.events import EventFilter, StandingFilter
from mxgw_core.api.feeds import FeedFilter
from mxgw_core.api.slices import NAMES_AT_ONCE
from mxgw_core.events.item_book import ItemBook
from mxgw_core.events.log import Chunk
from mxgw_core.events.opened import Opened, identity_of, kept_of, opened
from mxgw_core.events.records import fourth_field

# Items and kinds whose answers are remembered; each takes a number and its place in a dictionary.
_REMEMBERED = 65_536
_ANSWER_BYTES = 112
# Sets of filters whose part of one chunk is remembered; the backpressure plugin allows so many subscribers by default.
CUTS = 8


class Judged(NamedTuple):
    """A range with `events` events of which `passed` may pass: `kept`, which covers the whole range."""

    first: int
    last: int
    events: int
    passed: int
    kept: Chunk | None


class Sieve(Protocol):
    """Filters that must all agree on an event."""

    def judge(self, chunk: Chunk) -> Judged:
        """Ask for each event.

        Raises:
            MalformedBatch: the events are not encoded, or not numbered, as the contract says.
        """

    def judge_some(self, chunk: Chunk) -> Judged | None:
        """As `judge`, but ask for a few items only; None while there are more: call it again after a turn of others."""


class ItemSieve:
    """A sieve of a session's events, which are judged by their items; an event of an unknown item does not pass.

    Subscribers whose filters are equal share one, so that an event is judged once for all.
    """

    def __init__(self, filters: Sequence[EventFilter], items: ItemBook) -> None:
        self.filters = tuple(filters)
        self._items = items
        standing = [f for f in self.filters if isinstance(f, StandingFilter)]
        # Whether answers may be remembered, and shared.
        self.is_standing = len(standing) == len(self.filters)
        self._standing = standing if self.is_standing else []
        self._revisions: tuple[int, ...] = ()
        # By item and kind (see `identity_of`).
        self._answers: dict[int, bool] = {}
        # Items and kinds that were met and not asked for yet: a chunk may bring thousands at once.
        self._unasked: list[int] = []
        # What a chunk knows this by: a chunk that is kept for others keeps no filters that nobody has any more.
        self._reference = ref(self)

    @property
    def memory_bytes(self) -> int:
        """About how much memory the answers take that are remembered."""
        return (len(self._answers) + len(self._unasked)) * _ANSWER_BYTES

    def judge(self, chunk: Chunk) -> Judged:
        """See `Sieve`."""
        while (judged := self.judge_some(chunk)) is None:
            pass
        return judged

    def judge_some(self, chunk: Chunk) -> Judged | None:
        """See `Sieve`: at most `NAMES_AT_ONCE` standing answers are asked for, each may compare many patterns."""
        if not self.is_standing:
            events = opened(chunk)
            return _cut(chunk, events, list(map(self._asked, events.keys)))
        revisions = tuple(f.revision for f in self._standing)
        if revisions != self._revisions:
            self._answers.clear()
            self._unasked.clear()
            self._revisions = revisions
        if self._unasked:
            self._ask_some()
            if self._unasked:
                return None
        known = chunk.cuts.get(self._reference)
        if known is not None and known[0] == revisions:
            _, passed, kept = known
            return Judged(chunk.first, chunk.last, chunk.events, passed, chunk if passed == chunk.events else kept)
        events = opened(chunk)
        answers = self._remembered(events.keys)
        if self._unasked:
            return None
        judged = _cut(chunk, events, answers)
        if len(chunk.cuts) >= CUTS:
            del chunk.cuts[next(iter(chunk.cuts))]
        # Not the chunk itself, which would then be freed by the collector only.
        chunk.cuts[self._reference] = revisions, judged.passed, None if judged.kept is chunk else judged.kept
        return judged

    def shows(self, item_serial: int, kind: int) -> bool:
        """Return whether events of an item and kind may pass."""
        item = self._items.get(item_serial)
        return item is not None and all(f.keep(item, kind) for f in self.filters)

    def _asked(self, key: int) -> bool:
        return self.shows(*identity_of(key))

    def _remembered(self, keys: Sequence[int]) -> Sequence[bool | None]:
        """Return the answers for a chunk's events; some are None while `_unasked` has their keys."""
        answers = list(map(self._answers.get, keys))
        if None in answers:
            new = set(keys) - self._answers.keys()
            if len(self._answers) + len(new) > _REMEMBERED:
                self._answers.clear()
                new = set(keys)
            self._unasked = list(new)
            self._ask_some()
            answers = list(map(self._answers.get, keys))
        return answers

    def _ask_some(self) -> None:
        for key in self._unasked[-NAMES_AT_ONCE:]:
            self._answers[key] = self._asked(key)
        del self._unasked[-NAMES_AT_ONCE:]


class FeedSieve:
    """A sieve of a plugin's feed; each record is asked for."""

    def __init__(self, filters: Sequence[FeedFilter]) -> None:
        self._filters = tuple(filters)

    def judge(self, chunk: Chunk) -> Judged:
        """See `Sieve`."""
        events = opened(chunk)
        identities = map(identity_of, events.keys)
        answers = [
            all(f.keep(about, fourth_field(body, 0, len(body)), kind) for f in self._filters)
            for (about, kind), body in zip(identities, events.bodies, strict=True)
        ]
        return _cut(chunk, events, answers)

    def judge_some(self, chunk: Chunk) -> Judged | None:
        """See `Sieve`: a feed's filters know their answers."""
        return self.judge(chunk)


def _cut(chunk: Chunk, events: Opened, answers: Sequence[bool | None]) -> Judged:
    passed = answers.count(True)
    if passed == len(events.keys):
        return Judged(chunk.first, chunk.last, passed, passed, chunk)
    kept = kept_of(chunk.first, chunk.last, compress(events.bodies, answers), passed) if passed else None
    return Judged(chunk.first, chunk.last, len(answers), passed, kept)
