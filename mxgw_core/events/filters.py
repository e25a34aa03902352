"""Filters drop the events that a reader must not see. They come between the reader's unread events and its stream.

Filters decide by item and kind. A chunk is taken apart without a Python loop over its events: the protobuf library cuts
the chunk into records, and slices read the first bytes of all records together. This takes a quarter of the time of a
loop, which would take half a microsecond per event.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Sequence
from itertools import compress
from operator import itemgetter
from typing import NamedTuple, Protocol, cast
from weakref import ref

from google.protobuf.message import DecodeError

from mxgw.worker.v1.worker_pb2 import EventRecords
from mxgw_core.api.events import EventFilter, StandingFilter
from mxgw_core.api.feeds import FeedFilter
from mxgw_core.api.slices import NAMES_AT_ONCE
from mxgw_core.api.types import ItemRecord
from mxgw_core.events.encoding import SERIALS_END, MalformedBatch, event_head, fourth_field, record_bounds
from mxgw_core.events.pieces import Chunk, chunk_of
from mxgw_core.plugins.calls import CallFailed, running
from mxgw_core.plugins.objects import PluginFilter, check_answers, denial

# How many answers of filters are remembered, one for each item and kind, and how many bytes of memory an answer uses.
_REMEMBERED = 65_536
_ANSWER_BYTES = 112
# A chunk remembers what this many different sets of filters let pass: one for each subscriber that a session can have
# by default.
CUTS = 8


class Passed(NamedTuple):
    """The result of filtering a range: `passed` of its `events` events have passed the filters.

    `kept` is the chunk of the whole range with only the events that passed; None when no event passed.
    """

    first: int
    last: int
    events: int
    passed: int
    kept: Chunk | None


class Filters(Protocol):
    """The filters of one reader. An event passes only when every filter keeps it."""

    def feed(self, chunk: Chunk) -> Passed | None:
        """Return what passes of a chunk, or None when the filters must be asked about more items.

        Each call asks about a few items only. After None the caller lets other tasks run, and then calls again with the
        same chunk.

        Raises:
            MalformedBatch: the events are not encoded, or not numbered, as the contract says.
        """


class KnownItems(Protocol):
    """The items by which filters decide."""

    def get(self, serial: int) -> ItemRecord | None:
        """Return the item with this serial; None when it is unknown."""


class ItemFilters:
    """The filters of a session's events, which decide by item; an event of an unknown item does not pass.

    Subscribers with equal filters share one object, so that the filters are asked only once for all these subscribers.
    """

    def __init__(self, filters: Sequence[EventFilter], items: KnownItems) -> None:
        self.filters = tuple(filters)
        self._items = items
        standing = [f for f in self.filters if isinstance(f, StandingFilter)]
        # Whether all filters are standing filters (`StandingFilter`), whose answers can be remembered and shared.
        self.is_standing = len(standing) == len(self.filters)
        self._standing = standing if self.is_standing else []
        self._revisions: tuple[int, ...] = ()
        # Key: item serial and kind in one number (see `identity_of`). Value: whether events of this item and kind pass.
        self._answers: dict[int, bool] = {}
        # Keys for which the filters have not been asked yet. There can be thousands, because one chunk can have events
        # of thousands of new items.
        self._unasked: list[int] = []
        # Chunks refer to this object weakly. Otherwise a chunk in the log would keep filters that nobody uses any more.
        self._reference = ref(self)

    @property
    def memory_bytes(self) -> int:
        """About how many bytes of memory the remembered answers use."""
        return (len(self._answers) + len(self._unasked)) * _ANSWER_BYTES

    def feed(self, chunk: Chunk) -> Passed | None:
        """See `Filters`. A call asks standing filters (`StandingFilter`) about a few new items only.

        An answer can take long, because a filter perhaps compares an item with many patterns.

        Filters that are not standing are asked about all events of the chunk in one call.
        """
        if not self.is_standing:
            events = opened(chunk)
            return _cut(chunk, events, self._ask(events.keys))
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
            return Passed(chunk.first, chunk.last, chunk.events, passed, chunk if passed == chunk.events else kept)
        events = opened(chunk)
        answers = self._remembered(events.keys)
        if self._unasked:
            return None
        cut = _cut(chunk, events, answers)
        if len(chunk.cuts) >= CUTS:
            del chunk.cuts[next(iter(chunk.cuts))]
        # The chunk must not refer to itself, because then only the garbage collector could free it.
        chunk.cuts[self._reference] = revisions, cut.passed, None if cut.kept is chunk else cut.kept
        return cut

    def shown(self, item_serials: Iterable[int], kind: int) -> list[bool]:
        """Return for each of some items whether its events of this kind pass.

        Raises:
            GatewayError: a filter failed, or has raised this on purpose.
        """
        return self._ask([kind << 56 | serial for serial in item_serials])

    def _ask(self, keys: Sequence[int]) -> list[bool]:
        """Return for each key whether its events pass.

        The filters are asked one after another, each about all events that are left. So each filter is timed and
        checked once for all these events.

        Raises:
            GatewayError: a filter failed, or has raised this on purpose.
        """
        asked = [(self._items.get(serial), kind) for serial, kind in map(identity_of, keys)]
        answers = [item is not None for item, _ in asked]
        for event_filter in self.filters:
            answers = _answers_of(event_filter, answers, asked)
        return answers

    def _remembered(self, keys: Sequence[int]) -> Sequence[bool | None]:
        """Return the answers for a chunk's events; None for each event whose key is still in `_unasked`."""
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
        some = self._unasked[-NAMES_AT_ONCE:]
        self._answers.update(zip(some, self._ask(some), strict=True))
        del self._unasked[-NAMES_AT_ONCE:]


def _answers_of(
    event_filter: EventFilter, answers: Sequence[bool], asked: Sequence[tuple[ItemRecord | None, int]]
) -> list[bool]:
    """Return which events still pass: those with a true answer so far that this filter keeps too."""
    if not isinstance(event_filter, PluginFilter):
        return [
            so_far and event_filter.keep(cast(ItemRecord, of), kind)
            for so_far, (of, kind) in zip(answers, asked, strict=True)
        ]
    try:
        with event_filter.owner.contained("EventFilter.keep"):
            keep = event_filter.keep
            found = [
                so_far and keep(cast(ItemRecord, of), kind) for so_far, (of, kind) in zip(answers, asked, strict=True)
            ]
            check_answers(found)
    except CallFailed as error:
        raise event_filter.refusal() from error
    return found


class FeedFilters:
    """The filters of a plugin's feed. They answer quickly, so one call asks them about all records of a chunk.

    The filters belong to the plugin whose code runs when this object is made.
    """

    def __init__(self, filters: Sequence[FeedFilter]) -> None:
        self._filters = tuple(filters)
        self._owner = running.get()

    def feed(self, chunk: Chunk) -> Passed:
        """Return what passes of a chunk; see `Filters.feed`.

        Raises:
            GatewayError: a filter failed, or has raised this on purpose.
        """
        events = opened(chunk)
        if self._owner is None:
            return _cut(chunk, events, self._answers(events))
        try:
            with self._owner.contained("FeedFilter.keep"):
                answers = self._answers(events)
                check_answers(answers)
        except CallFailed as error:
            raise denial(self._owner, "the records could not be filtered") from error
        return _cut(chunk, events, answers)

    def _answers(self, events: Opened) -> list[bool]:
        answers = [True] * len(events.keys)
        records = [
            (about, fourth_field(body, 0, len(body)), kind)
            for (about, kind), body in zip(map(identity_of, events.keys), events.bodies, strict=True)
        ]
        for f in self._filters:
            answers = [so_far and f.keep(*record) for so_far, record in zip(answers, records, strict=True)]
        return answers


def _cut(chunk: Chunk, events: Opened, answers: Sequence[bool | None]) -> Passed:
    passed = answers.count(True)
    if passed == len(events.keys):
        return Passed(chunk.first, chunk.last, passed, passed, chunk)
    kept = kept_of(chunk.first, chunk.last, compress(events.bodies, answers), passed) if passed else None
    return Passed(chunk.first, chunk.last, len(answers), passed, kept)


# The rest of the module takes a chunk apart into its events.

# Every event begins with these 20 bytes: tag, 8 bytes of sequence, tag, 8 bytes of item serial (the highest byte is 0),
# tag, kind.
_HEAD_BYTES = 20
_SEQUENCE_BYTES = range(1, 9)
_KIND_AT = 19
_KEY_BYTES = (*range(10, 17), _KIND_AT)
_FIXED = ((0, b"\x09"), (9, b"\x11"), (17, b"\x00"), (18, b"\x18"))
# A chunk with fewer events is read faster in a loop, because reading all events together has a fixed cost of ten
# microseconds per chunk.
_FEW_EVENTS = 7
_head = itemgetter(slice(0, _HEAD_BYTES))


class Opened(NamedTuple):
    """The events of a chunk, oldest first: as encoded bytes (without tag and length), with their sequences and keys."""

    bodies: Sequence[bytes]
    sequences: Sequence[int]
    # Item serial and kind of each event in one number, see `identity_of`.
    keys: Sequence[int]


def opened(chunk: Chunk) -> Opened:
    """Take a chunk apart, and return its events.

    Raises:
        MalformedBatch: the events are not encoded, or not numbered, as the contract says.
    """
    are_few = chunk.events < _FEW_EVENTS
    bodies = _cut_one_by_one(chunk) if are_few else _cut_at_once(chunk)
    if len(bodies) != chunk.events:
        raise MalformedBatch(f"a batch has {len(bodies)} events instead of {chunk.events}")
    events = (None if are_few else _of_short_heads(bodies)) or _one_by_one(bodies)
    if not _has_its_numbers(chunk, events.sequences):
        raise MalformedBatch(f"the events {chunk.first} to {chunk.last} bear other numbers")
    return events


def _cut_at_once(chunk: Chunk) -> Sequence[bytes]:
    batch = chunk.batch
    try:
        parsed = EventRecords.FromString(batch)
    except DecodeError as error:
        raise MalformedBatch("a batch is no run of event records") from error
    parsed.DiscardUnknownFields()
    if parsed.ByteSize() != len(batch):
        raise MalformedBatch("a batch has more than event records in it")
    return parsed.records[:]


def _cut_one_by_one(chunk: Chunk) -> Sequence[bytes]:
    return [chunk.frame[body:end] for _, body, end in record_bounds(chunk.frame, chunk.start)]


def _of_short_heads(bodies: Sequence[bytes]) -> Opened | None:
    """Return the events if each of them begins with the 20 bytes described at `_HEAD_BYTES`; else None."""
    heads = b"".join(map(_head, bodies))
    events = len(bodies)
    if (
        len(heads) != events * _HEAD_BYTES
        or any(heads[at::_HEAD_BYTES] != byte * events for at, byte in _FIXED)
        or not heads[_KIND_AT::_HEAD_BYTES].isascii()  # the kind must be below 0x80: then it is encoded in one byte
    ):
        return None
    return Opened(bodies, _numbers(heads, _SEQUENCE_BYTES, events), _numbers(heads, _KEY_BYTES, events))


def _numbers(heads: bytes, places: Sequence[int], events: int) -> array[int]:
    """Return one number per event.

    `heads` holds the first 20 bytes of every event, one event after another. `places` are the offsets, in these 20
    bytes, of the number's eight bytes; the lowest byte comes first.
    """
    gathered = bytearray(8 * events)
    for index, at in enumerate(places):
        gathered[index::8] = heads[at::_HEAD_BYTES]
    numbers = array("Q", bytes(gathered))
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def _one_by_one(bodies: Sequence[bytes]) -> Opened:
    heads = [event_head(body, 0) for body in bodies]
    return Opened(bodies, [head[0] for head in heads], [kind << 56 | serial for _, serial, kind in heads])


def _has_its_numbers(chunk: Chunk, sequences: Sequence[int]) -> bool:
    """Whether each event has a sequence that fits its place in the chunk. Positions and gaps depend on this."""
    if chunk.kept:
        is_within = chunk.first <= sequences[0] and sequences[-1] <= chunk.last
        return is_within and list(sequences) == sorted(set(sequences))
    expected = range(chunk.first, chunk.last + 1)
    return sequences == (array("Q", expected) if isinstance(sequences, array) else list(expected))


def identity_of(key: int) -> tuple[int, int]:
    """Return the item serial and the kind that a key combines."""
    return key & SERIALS_END - 1, key >> 56


def kept_of(first: int, last: int, bodies: Iterable[bytes], events: int) -> Chunk:
    """Return the chunk of the range `first` to `last` that has only the `events` events in `bodies` (see `Opened`)."""
    return chunk_of(first, last, EventRecords(records=bodies).SerializeToString(), events)
