"""Random blocks, filters and places: a filtered reader must get exactly the events that a plain loop would let pass."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from support.distributing import EVERYTHING, NO_LIMITS, Pump
from support.events import EPOCH, frame_of

from mxgw.v1 import events_pb2 as e
from mxgw.v1.values_pb2 import MxValue
from mxgw.worker.v1 import worker_pb2 as w
from mxgw_core.api.events import EventFilter
from mxgw_core.api.types import ItemRecord, Position
from mxgw_core.events.item_book import ItemBook
from mxgw_core.events.pieces import Chunk, Gap
from mxgw_core.events.subscriber import Progress, Subscriber

# Serials whose encoded form has one byte, and serials that need more bytes, up to the largest serial.
ITEMS = (1, 2, 3, 255, 256, 70_000, 2**56 - 1)
# The serial of an item that the gateway does not know.
UNKNOWN = 99


@dataclass
class Book:
    """The items whose events may be seen. The revision changes whenever they change."""

    revision: int = 0
    shown: set[int] = field(default_factory=set)

    def write(self, item: int, is_shown: bool) -> None:
        self.revision += 1
        (self.shown.add if is_shown else self.shown.discard)(item)


@dataclass(frozen=True)
class Standing:
    """A filter whose answers stay valid for a revision.

    Two such filters are equal when their book and kinds are equal.
    """

    book_number: int
    kinds: frozenset[int]
    book: Book = field(compare=False)

    @property
    def revision(self) -> int:
        return self.book.revision

    def keep(self, item: ItemRecord, kind: int) -> bool:
        return kind in self.kinds and item.serial in self.book.shown


@dataclass
class OneByOne:
    """The same filter without a revision, so that it must be asked again for every event."""

    behind: Standing

    def keep(self, item: ItemRecord, kind: int) -> bool:
        return self.behind.keep(item, kind)


@dataclass
class Reader:
    """A subscriber and what the model knows of it."""

    subscriber: Subscriber
    filters: list[Standing]
    at: int


class Filtered(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.pump = Pump()
        self.pump.distributor.retain(EVERYTHING)
        items = ItemBook(len(ITEMS))
        items.take(w.ItemRecords(records=[w.ItemRecord(item_serial=s, item_handle=n) for n, s in enumerate(ITEMS)]))
        self.pump.distributor.items = items
        self.books = [Book(), Book()]
        self.appended: dict[int, e.Event] = {}
        self.gaps: set[int] = set()
        self.readers: list[Reader] = []

    # what happens

    @rule(events=st.integers(1, 60), seed=st.integers(0, 1 << 30), is_plain=st.booleans())
    def a_block_comes(self, events: int, seed: int, is_plain: bool) -> None:
        """Append a block of data changes. A plain block contains only values of items with short serials."""
        chance = Random(seed)
        first = self.pump.head + 1
        block = []
        for sequence in range(first, first + events):
            serial = chance.choice(ITEMS[:3] if is_plain else (*ITEMS, UNKNOWN))
            kind = 1 if is_plain else chance.randint(1, 4)
            value = MxValue(string="x" * chance.choice((0, 5, 70, 150, 300)))
            block.append(
                e.Event(
                    sequence=sequence,
                    item_serial=serial,
                    item_handle=chance.choice((1, -3, 0)),
                    kind=e.EventKind.ValueType(kind),
                    server_handle=chance.choice((0, 1, 128)),
                    data_change=e.DataChange(value=value),
                )
            )
        self.appended |= {event.sequence: event for event in block}
        self.pump.distributor.append(first, first + events - 1, e.EventBatch(events=block).SerializeToString())
        self.pump.distributor.flush()

    @rule(count=st.integers(1, 3))
    def a_gap_comes(self, count: int) -> None:
        self.gaps |= set(range(self.pump.head + 1, self.pump.head + count + 1))
        self.pump.gap(count)

    @rule(book=st.integers(0, 1), item=st.sampled_from((*ITEMS, UNKNOWN)), is_shown=st.booleans())
    def rights_change(self, book: int, item: int, is_shown: bool) -> None:
        self.books[book].write(item, is_shown)

    @rule(
        chosen=st.lists(
            st.tuples(st.integers(0, 1), st.sampled_from([(1,), (1, 4), (1, 2, 3, 4)])), min_size=1, max_size=2
        ),
        one_by_one=st.booleans(),
        after=st.integers(0, 200),
    )
    def somebody_attaches(self, chosen: list[tuple[int, tuple[int, ...]]], one_by_one: bool, after: int) -> None:
        filters = [Standing(number, frozenset(kinds), self.books[number]) for number, kinds in chosen]
        asked: list[EventFilter] = [OneByOne(f) if one_by_one else f for f in filters]
        after = min(after, self.pump.head)
        subscriber = self.pump.attach(Position(EPOCH, after), limits=NO_LIMITS, filters=asked)
        self.readers.append(Reader(subscriber, filters, after))

    # what a reader must get

    @precondition(lambda self: self.readers)
    @rule(which=st.integers(0, 100), limit_bytes=st.sampled_from([200, 5_000, 1 << 20]))
    def one_reads(self, which: int, limit_bytes: int) -> None:
        self._read(self.readers[which % len(self.readers)], limit_bytes)

    @precondition(lambda self: self.readers)
    @rule(limit_bytes=st.sampled_from([5_000, 1 << 20]))
    def all_read(self, limit_bytes: int) -> None:
        for reader in self.readers:
            self._read(reader, limit_bytes)

    def _read(self, reader: Reader, limit_bytes: int) -> None:
        seen: list[e.Event] = []
        lost: set[int] = set()
        while (item := reader.subscriber.take(limit_bytes)) is not None or reader.subscriber.is_asking:
            match item:
                case None:
                    continue
                case Chunk():
                    seen += frame_of(item).events.events
                case Gap(first, last):
                    lost |= set(range(first, last + 1))
                case _:
                    assert isinstance(item, Progress)
        expected, at = self._naive(reader), self.pump.head

        assert seen == expected
        assert lost == {sequence for sequence in self.gaps if reader.at < sequence <= at}
        assert reader.subscriber.delivered == at

        reader.at = at

    def _naive(self, reader: Reader) -> list[e.Event]:
        """Return all events that a reader may see and has not read, found by a loop over all events."""
        passed: list[e.Event] = []
        for sequence in range(reader.at + 1, self.pump.head + 1):
            event = self.appended.get(sequence)
            if event is None:
                continue
            item = ItemRecord(event.item_serial, 0, 0, "")
            if event.item_serial != UNKNOWN and all(f.keep(item, event.kind) for f in reader.filters):
                passed.append(event)
        return passed


Filtered.TestCase.settings = settings(
    max_examples=100, stateful_step_count=20, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
test_filtered_readers_are_given_what_a_loop_over_all_events_lets_pass = Filtered.TestCase
