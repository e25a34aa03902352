"""The lasting answers of a filter are remembered per item, and readers with equal filters use them together."""

from __future__ import annotations

import gc
from dataclasses import dataclass, field
from weakref import ref

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.distributing import Items, Pump
from support.events import EveryItem, batch, event, sequences_of, serial_of

from mxgw.v1 import events_pb2 as e
from mxgw.worker.v1 import worker_pb2 as w
from mxgw_core.api.events import EventFilter
from mxgw_core.api.slices import NAMES_AT_ONCE
from mxgw_core.api.types import ItemRecord
from mxgw_core.events.encoding import MalformedBatch
from mxgw_core.events.filters import CUTS, ItemFilters, Passed, identity_of, opened
from mxgw_core.events.item_book import ItemBook
from mxgw_core.events.pieces import Chunk, chunk_of
from mxgw_core.events.start import Start

EVERYTHING = 1 << 20


@dataclass(eq=False)
class Standing:
    """A filter whose answers stay valid.

    It records the handles that it was asked about. Two filters are equal when their names are equal and not empty.
    """

    name: str = ""
    shown: set[int] = field(default_factory=set)
    revision: int = 0
    asked: list[int] = field(default_factory=list)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Standing) and other.name == self.name != ""

    def __hash__(self) -> int:
        return hash(self.name)

    def keep(self, item: ItemRecord, kind: int) -> bool:
        self.asked.append(item.item_handle)
        return item.item_handle in self.shown


def standing(*items: int, name: str = "") -> Standing:
    """Return a filter that lets the events of these items pass."""
    return Standing(name, set(items))


def filters_of(*filters: EventFilter) -> ItemFilters:
    return ItemFilters(filters, EveryItem())


def fed(filters: ItemFilters, chunk: Chunk) -> Passed:
    """Feed a chunk to the filters again and again until every item in it was asked about. Return the result."""
    while (passed := filters.feed(chunk)) is None:
        pass
    return passed


def alternating(first: int, events: int, items: int = 2) -> Chunk:
    """Return a chunk with events of several items in turn."""
    made = [event(sequence, 1 + sequence % items) for sequence in range(first, first + events)]
    return chunk_of(first, first + events - 1, e.EventBatch(events=made).SerializeToString())


def kept(filters: ItemFilters, chunk: Chunk) -> list[int]:
    passed = fed(filters, chunk).kept
    return [] if passed is None else sequences_of(passed)


@pytest.mark.parametrize("events", [3, 100], ids=["few", "many"])
def test_an_item_is_asked_for_once_whatever_comes_of_it(events: int) -> None:
    f = standing(2)
    filters = filters_of(f)
    for first in (1, 1 + events):
        assert kept(filters, alternating(first, events)) == [s for s in range(first, first + events) if s % 2]
    assert sorted(f.asked) == [1, 2]


def test_a_chunk_that_is_kept_remembers_few_sets_of_filters_and_keeps_none_that_nobody_has() -> None:
    chunk = alternating(1, 10)
    sets = [filters_of(standing(1)) for _ in range(CUTS + 3)]
    for filters in sets:
        assert kept(filters, chunk) == [2, 4, 6, 8, 10]
        assert len(chunk.cuts) <= CUTS

    gone = [ref(filters) for filters in sets]
    del filters, sets

    assert [reference() for reference in gone] == [None] * len(gone)


def test_another_revision_makes_every_answer_be_asked_for_anew() -> None:
    f = standing(1)
    filters = filters_of(f)
    chunk = alternating(1, 10)

    assert kept(filters, chunk) == [2, 4, 6, 8, 10]

    f.shown = {2}

    assert kept(filters, chunk) == [2, 4, 6, 8, 10]

    f.revision = 1

    assert kept(filters, chunk) == [1, 3, 5, 7, 9]


def test_filters_must_agree() -> None:
    chunk = alternating(1, 9, items=3)

    assert kept(filters_of(standing(1, 2), standing(2, 3)), chunk) == [1, 4, 7]
    assert kept(filters_of(standing(1), standing(2)), chunk) == []


@pytest.mark.parametrize("events", [3, 100], ids=["few", "many"])
@pytest.mark.parametrize("is_standing", [True, False])
def test_events_of_an_item_that_is_not_known_do_not_pass_and_nobody_is_asked(events: int, is_standing: bool) -> None:
    book = ItemBook(10)
    serial = serial_of(1, 2)
    book.take(w.ItemRecords(records=[w.ItemRecord(item_serial=serial, server_handle=1, item_handle=2)]))
    f = standing(1, 2)
    filters: list[EventFilter] = [f] if is_standing else [f, Items([1, 2])]

    assert kept(ItemFilters(filters, book), alternating(1, events)) == list(range(1, events + 1, 2))
    assert set(f.asked) == {2}


def test_a_reused_handle_is_judged_by_the_item_of_each_event() -> None:
    book = ItemBook(10)
    old, new = (w.ItemRecord(item_serial=n, server_handle=1, item_handle=5, item_definition=f"{n}") for n in (7, 9))
    ended = w.ItemRecord()
    ended.MergeFrom(old)
    ended.ended, ended.last_sequence = True, 20
    book.take(w.ItemRecords(records=[old, ended, new]))

    class Named:
        revision = 0

        def keep(self, item: ItemRecord, kind: int) -> bool:
            return item.item_definition == "9"

    made = [e.Event(sequence=s, item_serial=7 if s <= 20 else 9, item_handle=5, kind=1) for s in range(1, 41)]
    chunk = chunk_of(1, 40, e.EventBatch(events=made).SerializeToString())

    assert kept(ItemFilters([Named()], book), chunk) == list(range(21, 41))


def test_one_that_has_to_be_asked_each_time_makes_all_be_asked_each_time() -> None:
    f = standing(1)

    assert kept(filters_of(f, Items([1])), alternating(1, 10)) == [2, 4, 6, 8, 10]
    assert len(f.asked) == 10


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mxgw_core.events.filters._REMEMBERED", 20)
    f = standing(*range(0, 1000, 2))
    filters = filters_of(f)
    for first in range(1, 900, 10):
        chunk = chunk_of(first, first + 9, b"".join(batch([s], item_handle=s) for s in range(first, first + 10)))

        assert kept(filters, chunk) == [s for s in range(first, first + 10) if s % 2 == 0]
        assert len(filters._answers) <= 20


# sharing


def test_readers_with_equal_filters_share_what_is_judged_and_the_very_message() -> None:
    pump = Pump()
    filters = [standing(1, name="key") for _ in range(3)]
    readers = [pump.attach(Start.NOW, filters=[f]) for f in filters]
    pump.events(20, item_handle=1)
    pump.events(20, item_handle=2)
    taken = [reader.take(EVERYTHING) for reader in readers]

    assert all(isinstance(chunk, Chunk) and sequences_of(chunk) == list(range(1, 21)) for chunk in taken)
    assert taken[0] is taken[1] is taken[2]
    assert sum(len(f.asked) for f in filters) == 2
    assert [(r.counts.delivered_events, r.counts.filtered_events) for r in readers] == [(20, 20)] * 3


def test_readers_with_other_filters_share_nothing() -> None:
    pump = Pump()
    one, other, odd = standing(1, name="one"), standing(2, name="other"), Items([2])
    readers = [pump.attach(Start.NOW, filters=[f]) for f in (one, other, odd)]
    pump.events(20, item_handle=1)
    pump.events(20, item_handle=2)
    taken = [sequences_of(chunk) for reader in readers if isinstance(chunk := reader.take(EVERYTHING), Chunk)]

    assert taken == [list(range(1, 21)), list(range(21, 41)), list(range(21, 41))]


def test_where_everything_passes_the_message_is_that_of_readers_without_a_filter() -> None:
    pump = Pump()
    limited, free = pump.attach(Start.NOW, filters=[standing(1)]), pump.attach(Start.NOW)
    pump.events(20, item_handle=1)

    assert limited.take(EVERYTHING) is free.take(EVERYTHING)


def test_a_judged_message_is_freed_with_its_last_reference() -> None:
    filters = filters_of(standing(1))
    gc.collect()
    gc.disable()
    try:
        before = sum(type(o) is Chunk for o in gc.get_objects())
        for items in (1, 2, 3):
            chunk = alternating(1, 10, items)
            fed(filters, chunk)
        del chunk

        assert sum(type(o) is Chunk for o in gc.get_objects()) == before
    finally:
        gc.enable()


# the events in a chunk


@given(st.integers(1, 2**56 - 1), st.integers(1, 127))
def test_item_serial_and_kind_are_told_apart(item_serial: int, kind: int) -> None:
    made = e.Event(sequence=7, item_serial=item_serial, item_handle=-2, server_handle=300)
    made.worker_time.seconds = 1_700_000_000
    body = made.SerializeToString()
    body = body[:18] + bytes([0x18, kind]) + body[18:]
    for events in (1, 100):
        data = b"".join(
            b"\x0a" + bytes([len(body)]) + body[:1] + s.to_bytes(8, "little") + body[9:] for s in range(7, 7 + events)
        )
        here = opened(chunk_of(7, 6 + events, data))

        assert [identity_of(key) for key in here.keys] == [(item_serial, kind)] * events
        assert list(here.sequences) == list(range(7, 7 + events))


@pytest.mark.parametrize("events", [4, 40], ids=["few", "many"])
def test_events_that_do_not_bear_the_numbers_of_their_places_are_refused(events: int) -> None:
    whole = alternating(11, events)
    numbers = list(range(11, 11 + events))
    swapped = [numbers[1], numbers[0], *numbers[2:]]
    for wrong in ([n + 1 for n in numbers], swapped, numbers[:-1], [*numbers, 11 + events], [11] * events):
        with pytest.raises(MalformedBatch):
            opened(chunk_of(whole.first, whole.last, batch(wrong)))
    # When some sequences are missing, the others must be in order and within the range of the chunk.
    assert list(opened(chunk_of(11, 100, batch(numbers), events)).sequences) == numbers
    for wrong in (swapped, [10, *numbers[1:]], [*numbers[:-1], 101], [11] * events, numbers[:-1], [*numbers, 90]):
        with pytest.raises(MalformedBatch):
            opened(chunk_of(11, 100, batch(wrong), events))


@pytest.mark.parametrize("events", [2, 40], ids=["few", "many"])
@pytest.mark.parametrize(
    "broken",
    [
        lambda data: data[:-1],
        lambda data: b"\x12" + data[1:],
        lambda data: data[:2] + b"\x11" + data[3:],  # the event does not begin with its sequence
        lambda data: data[:11] + b"\x09" + data[12:],  # no item serial follows the sequence
        lambda data: data[:19] + b"\x01" + data[20:],  # a serial that is too large
        lambda data: data[:20] + b"\x10" + data[21:],  # no kind follows the serial
        lambda data: (
            data[:21] + b"\x81" + data[22:]
        ),  # the kind has two bytes, so that its first byte says nothing about it
        lambda data: b"\x0a\x03abc" + data[data[1] + 2 :],
        lambda data: data + b"\x12\x00",
    ],
)
def test_what_is_no_batch_of_events_is_refused(broken, events: int) -> None:
    data = broken(batch(range(1, 1 + events)))
    with pytest.raises(MalformedBatch):
        fed(filters_of(standing(1)), chunk_of(1, events, data))


# many items at once


def standing_of_many() -> Standing:
    """Return a filter that lets two items of a hundred pass."""
    return standing(1, 2)


def many_items(pump: Pump, items: int) -> Chunk:
    for item in range(1, items + 1):
        pump.events(1, item_handle=item)
    chunk = pump.distributor.log.read(0, 1 << 20)

    assert isinstance(chunk, Chunk)

    return chunk


def test_answers_for_many_new_items_are_asked_for_a_few_at_a_time() -> None:
    filter_ = standing_of_many()
    filters, chunk = filters_of(filter_), many_items(Pump(), 100)
    asked: list[int] = []
    while (passed := filters.feed(chunk)) is None:
        asked.append(len(filter_.asked) - sum(asked))
    asked.append(len(filter_.asked) - sum(asked))

    assert max(asked) <= NAMES_AT_ONCE
    assert sorted(filter_.asked) == list(range(1, 101))
    assert passed.passed == 2


def test_a_change_in_between_makes_nothing_stand_that_was_asked_before() -> None:
    filter_ = standing_of_many()
    filters, chunk = filters_of(filter_), many_items(Pump(), 100)

    assert filters.feed(chunk) is None

    filter_.shown = {3}
    filter_.revision += 1

    assert fed(filters, chunk).passed == 1


def test_a_reader_hands_nothing_over_while_its_filter_is_asked_for_many_items_and_says_so() -> None:
    pump = Pump()
    filter_ = standing_of_many()
    subscriber = pump.attach(filters=[filter_])
    many_items(pump, 100)
    times_asked = 0
    while (item := subscriber.take(1 << 20)) is None:
        assert subscriber.is_asking
        assert not subscriber.is_caught_up

        times_asked += 1

    assert isinstance(item, Chunk)
    assert sequences_of(item) == [1, 2]
    assert times_asked == (100 - 1) // NAMES_AT_ONCE
    assert subscriber.is_caught_up


def test_older_events_are_filtered_a_few_items_at_a_time_too() -> None:
    pump = Pump()
    filter_ = standing_of_many()
    subscriber = pump.attach(filters=[filter_])
    chunk = many_items(pump, 100)
    subscriber.feed(chunk)
    times_asked = 0
    while (item := subscriber.take_fed(1)) is None:
        assert subscriber.is_asking

        times_asked += 1

    assert isinstance(item, Chunk)
    assert sequences_of(item) == [1, 2]
    assert times_asked == (100 - 1) // NAMES_AT_ONCE
    assert len(filter_.asked) == 100
    assert subscriber.take_fed(1) is None
    assert not subscriber.is_asking
