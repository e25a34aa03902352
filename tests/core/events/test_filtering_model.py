"""Random blocks, filters and places: what filtered readers are given is what a loop over all events lets pass."""

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
from mxgw_core.api.events import EventFilter, StandingAnswer
from mxgw_core.api.types import Position
from mxgw_core.events.items import Progress
from mxgw_core.events.log import Chunk, LogGap
from mxgw_core.events.subscriber import Subscriber

# Server and item handle; two of one byte and some that need more.
ITEMS = ((1, 1), (1, 2), (2, 1), (127, -3), (128, 1), (0, 2), (2**31 - 1, 2**31 - 1))


@dataclass
class Book:
    """What may be seen of each item from which sequence on; what is not in it nobody may see."""

    revision: int = 0
    entries: dict[tuple[int, int], list[tuple[int, bool | None]]] = field(default_factory=dict)

    def write(self, item: tuple[int, int], after: int, answer: bool | None) -> None:
        self.revision += 1
        entries = self.entries.setdefault(item, [])
        entries.append((max([after, *(known for known, _ in entries)]), answer))


@dataclass(frozen=True)
class Standing:
    """A filter that can say from where on its answer holds; equal to those of the same book and kinds."""

    book_number: int
    kinds: frozenset[int]
    book: Book = field(compare=False)

    @property
    def revision(self) -> int:
        return self.book.revision

    def keep(self, server_handle: int, item_handle: int, kind: int, sequence: int) -> bool | None:
        if kind not in self.kinds:
            return False
        answer: bool | None = False
        for after, known in self.book.entries.get((server_handle, item_handle), ()):
            if sequence > after:
                answer = known
        return answer

    def standing(self, server_handle: int, item_handle: int, kind: int) -> StandingAnswer | None:
        entries = self.book.entries.get((server_handle, item_handle))
        if kind not in self.kinds or not entries:
            return StandingAnswer(False)
        after, answer = entries[-1]
        return None if answer is None else StandingAnswer(answer, after)


@dataclass
class OneByOne:
    """The same without a memory: it must be asked for every event."""

    behind: Standing

    def keep(self, server_handle: int, item_handle: int, kind: int, sequence: int) -> bool | None:
        return self.behind.keep(server_handle, item_handle, kind, sequence)


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
        self.books = [Book(), Book()]
        self.appended: dict[int, e.Event] = {}
        self.gaps: set[int] = set()
        self.readers: list[Reader] = []

    # what happens

    @rule(events=st.integers(1, 60), seed=st.integers(0, 1 << 30), is_plain=st.booleans())
    def a_block_comes(self, events: int, seed: int, is_plain: bool) -> None:
        """Plain: values of items with short handles."""
        chance = Random(seed)
        first = self.pump.head + 1
        block = []
        for sequence in range(first, first + events):
            server_handle, item_handle = chance.choice(ITEMS[:3] if is_plain else ITEMS)
            kind = 1 if is_plain else chance.randint(1, 4)
            value = MxValue(string="x" * chance.choice((0, 5, 70, 150, 300)))
            block.append(
                e.Event(
                    sequence=sequence,
                    item_handle=item_handle,
                    kind=e.EventKind.ValueType(kind),
                    server_handle=server_handle,
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

    @rule(
        book=st.integers(0, 1),
        item=st.sampled_from(ITEMS),
        back=st.integers(-2, 30),
        answer=st.sampled_from([True, True, True, False, False, None]),
    )
    def rights_change(self, book: int, item: tuple[int, int], back: int, answer: bool | None) -> None:
        self.books[book].write(item, max(0, self.pump.head - back), answer)
        self.pump.distributor.wake()

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

    # what must come of it

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
        while (item := reader.subscriber.take(limit_bytes)) is not None or reader.subscriber.is_judging:
            match item:
                case None:
                    continue
                case Chunk():
                    seen += frame_of(item).events.events
                case LogGap(first, last):
                    lost |= set(range(first, last + 1))
                case _:
                    assert isinstance(item, Progress)
        expected, at = self._naive(reader)

        assert seen == expected
        assert lost == {sequence for sequence in self.gaps if reader.at < sequence <= at}
        assert reader.subscriber.delivered == at

        reader.at = at

    def _naive(self, reader: Reader) -> tuple[list[e.Event], int]:
        """Return what a reader may see now, and the place before what cannot be judged yet."""
        passed: list[e.Event] = []
        for sequence in range(reader.at + 1, self.pump.head + 1):
            event = self.appended.get(sequence)
            if event is None:
                continue
            of = event.server_handle, event.item_handle, event.kind, sequence
            answers = [f.keep(*of) for f in reader.filters]
            if all(answers):
                passed.append(event)
            elif False not in answers:
                return passed, sequence - 1
        return passed, self.pump.head


Filtered.TestCase.settings = settings(
    max_examples=100, stateful_step_count=20, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
test_filtered_readers_are_given_what_a_loop_over_all_events_lets_pass = Filtered.TestCase
