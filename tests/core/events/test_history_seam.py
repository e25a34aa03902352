"""Older events come from a history store, and newer ones from the log. No event comes twice or is silently lost."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from support.events import EPOCH, Clock, batch, event, serial_of, told
from support.seams import failed_to_say, read_from

from mxgw.v1 import events_pb2 as e
from mxgw_core.api.errors import HistoryUnavailable
from mxgw_core.api.events import HistoryPage
from mxgw_core.api.types import ItemRecord, Position
from mxgw_core.events.history import BrokenPromises, Store, find_older, reach_of
from mxgw_core.events.log import EventLog
from mxgw_core.events.pieces import Gap
from mxgw_core.events.start import decide
from mxgw_core.events.stored_items import StoredItems
from mxgw_core.events.subscriber import Output

pytestmark = pytest.mark.asyncio


class Pages:
    """A history store that returns these pages. With `error` it raises the error after the last page."""

    def __init__(
        self, *pages: tuple[int, int], span: tuple[int, int] | None = (1, 9), error: Exception | None = None
    ) -> None:
        self.pages = pages
        self.held = span
        self.error = error
        self.asked: list[tuple[bytes, int, int]] = []

    async def span(self, epoch: bytes) -> tuple[int, int] | None:
        if self.error is not None:
            raise self.error
        return self.held

    async def read(self, epoch: bytes, after: int, until: int) -> AsyncIterator[HistoryPage]:
        self.asked.append((epoch, after, until))
        for first, last in self.pages:
            yield HistoryPage(first, last, batch(range(first, last + 1)))
        if self.error is not None:
            raise self.error


def asked(pages: Pages) -> Store:
    return Store(pages, "a test", page_s=60, last_page_s=60)


async def _read(store: Pages, after: int, until: int) -> Sequence[object]:
    pieces = read_from(asked(store), after, until, is_whole=False)
    items: list[Output] = [piece async for piece in pieces if piece is not None]
    for item in items:
        if hasattr(item, "reason"):
            assert item.reason == e.GAP_REASON_RING_EVICTED
    return told(items)


async def test_a_store_that_has_everything_leaves_no_gap() -> None:
    store = Pages((4, 6), (7, 9))

    assert await _read(store, 3, 9) == [4, 5, 6, 7, 8, 9]
    assert store.asked == [(EPOCH, 3, 9)]


async def test_an_empty_store_is_one_gap() -> None:
    assert await _read(Pages(), 3, 9) == [(4, 9)]


async def test_holes_before_between_and_behind_the_pages_are_gaps() -> None:
    assert await _read(Pages((5, 5), (8, 8)), 3, 9) == [(4, 4), 5, (6, 7), 8, (9, 9)]


@pytest.mark.parametrize(
    "page", [pytest.param((5, 7), id="overlaps"), pytest.param((1, 2), id="is older"), pytest.param((4, 6), id="again")]
)
async def test_a_page_that_repeats_is_not_delivered_and_the_rest_is_a_gap(page: tuple[int, int]) -> None:
    assert await _read(Pages((4, 6), page, (7, 9)), 3, 9) == [4, 5, 6, (7, 9)]


async def test_a_page_beyond_what_was_asked_for_would_be_a_duplicate() -> None:
    assert await _read(Pages((4, 6), (7, 12)), 3, 9) == [4, 5, 6, (7, 9)]


async def test_a_page_that_ends_before_it_begins_is_not_delivered() -> None:
    assert await _read(Pages((6, 4)), 3, 9) == [(4, 9)]


async def test_a_store_that_fails_amid_reading_is_a_gap_from_there() -> None:
    assert await _read(Pages((4, 6), error=OSError("the disk is gone")), 3, 9) == [4, 5, 6, (7, 9)]


async def test_a_page_whose_events_are_others_than_it_says_is_not_delivered() -> None:
    class Liar(Pages):
        async def read(self, epoch: bytes, after: int, until: int) -> AsyncIterator[HistoryPage]:
            yield HistoryPage(4, 5, batch([4, 5]))
            yield HistoryPage(6, 8, batch([6, 8]))

    assert await _read(Liar(), 3, 9) == [4, 5, (6, 9)]


@pytest.mark.parametrize(
    "store",
    [
        pytest.param(Pages((5, 9)), id="begins later"),
        pytest.param(Pages((4, 6), (8, 9)), id="has a hole"),
        pytest.param(Pages((4, 6)), id="ends early"),
        pytest.param(Pages((4, 6), (4, 6), (7, 9)), id="repeats"),
        pytest.param(Pages((4, 6), error=OSError("the disk is gone")), id="fails"),
    ],
)
async def test_what_a_store_promised_and_does_not_give_ends_the_stream_behind_what_it_gave(store: Pages) -> None:
    given: list[Output] = []

    async def read() -> None:
        async for piece in read_from(asked(store), 3, 9, is_whole=True):
            if piece is not None:
                given.append(piece)  # noqa: PERF401 - what came before it fails counts

    with pytest.raises(HistoryUnavailable) as raised:
        await read()
    delivered = told(given)

    assert delivered in ([], [4, 5, 6])
    assert raised.value.metadata == {"last_sequence": str(3 + len(delivered))}
    assert raised.value.retry_after_s


async def test_a_store_that_keeps_its_promise_ends_nothing() -> None:
    pieces = read_from(asked(Pages((4, 6), (7, 9))), 3, 9, is_whole=True)

    assert told([piece async for piece in pieces if piece is not None]) == [4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize(
    ("span", "after", "reach"),
    [
        ((4, 9), 3, 9),
        ((1, 9), 3, 9),
        ((4, 4), 3, 4),
        ((1, 5), 0, 5),
        # This store begins later than the position. It is used, but it promises nothing.
        ((5, 9), 3, 3),
        ((1, 3), 3, None),
        (None, 0, None),
    ],
)
async def test_a_store_promises_what_goes_on_without_a_hole_behind_a_position(
    span: tuple[int, int] | None, after: int, reach: int | None
) -> None:
    assert await reach_of(asked(Pages(span=span)), EPOCH, after) == reach


async def test_a_store_that_fails_has_nothing() -> None:
    assert await failed_to_say(asked(Pages(error=OSError("x"))))
    assert await failed_to_say(asked(Pages(span=(1, 2, 3))))  # type: ignore[arg-type]


async def test_what_was_promised_and_not_given_is_promised_to_nobody_until_it_was_given() -> None:
    doubts = BrokenPromises()

    assert doubts.reach(3, 9) == 9

    doubts.broken(6)
    doubts.broken(5)

    assert [doubts.reach(after, 9) for after in (3, 6, 7)] == [6, 6, 9]
    assert doubts.reach(3, 5) == 5

    doubts.given(4, 6)
    doubts.given(8, 9)

    assert doubts.reach(3, 9) == 6

    doubts.given(5, 7)

    assert doubts.reach(3, 9) == 9


async def test_who_comes_back_to_a_store_that_repeats_what_it_cannot_keep_has_the_gap() -> None:
    store, log, doubts = Pages((4, 6), span=(1, 9)), EventLog(Clock()), BrokenPromises()
    log.start_after(9)

    async def resume(after: int) -> tuple[bool, Sequence[object]]:
        """Resume after a position. Return `recovered` and everything that follows."""
        older = await find_older(lambda: asked(store), log, EPOCH, Position(EPOCH, after), doubts)
        assert older is not None
        place = decide(log, EPOCH, Position(EPOCH, after), older.reach)
        assert place.gap is not None
        pieces = older.in_place_of(place.gap, EPOCH, is_whole=place.recovered)
        return place.recovered, told([piece async for piece in pieces if piece is not None])

    with pytest.raises(HistoryUnavailable):
        await resume(3)
    store.pages = ()

    assert await resume(6) == (False, [(7, 9)])

    store.pages = ((4, 6), (7, 9))

    assert await resume(3) == (False, [4, 5, 6, 7, 8, 9])
    assert await resume(3) == (True, [4, 5, 6, 7, 8, 9])


class Book:
    """The items that the session knows."""

    def get(self, serial: int) -> ItemRecord | None:
        return record(1) if serial == record(1).serial else None


def record(item_handle: int) -> ItemRecord:
    return ItemRecord(serial_of(1, item_handle), 1, item_handle, f"Tank{item_handle}.PV")


def page(first: int, last: int, item_handle: int, *items: ItemRecord) -> HistoryPage:
    return HistoryPage(first, last, batch(range(first, last + 1), item_handle=item_handle), items)


class OfItems(Pages):
    """A history store whose events are about several items."""

    async def read(self, epoch: bytes, after: int, until: int) -> AsyncIterator[HistoryPage]:
        events = [event(4, 1), event(5, 2), event(6, 3), event(7, 3), event(8, 2)]
        yield HistoryPage(4, 8, e.EventBatch(events=events).SerializeToString(), [record(2)])
        yield page(9, 9, 3, record(3))


async def test_for_a_reader_with_filters_an_event_of_an_unknown_item_is_an_exact_gap(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pieces = read_from(asked(OfItems()), 3, 9, is_whole=False, items=StoredItems(Book()))

    assert told([piece async for piece in pieces]) == [4, 5, (6, 7), 8, 9]
    assert caplog.messages == [
        "the history store of a test gave event 6 without the record of its item: callers with an event filter get a "
        "gap"
    ]


async def test_an_event_of_an_unknown_item_breaks_a_promise_to_readers_with_filters() -> None:
    given: list[Output] = []

    async def read() -> None:
        async for piece in read_from(asked(OfItems()), 3, 9, is_whole=True, items=StoredItems(Book())):
            given.append(piece)  # noqa: PERF401 - what came before it fails counts

    with pytest.raises(HistoryUnavailable) as raised:
        await read()

    assert (told(given), raised.value.metadata) == ([4, 5], {"last_sequence": "5"})


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"events", "gave a value of type bytes instead of a HistoryPage"),
        (
            HistoryPage("4", 6, b""),  # type: ignore[arg-type]
            "gave a page whose first_sequence is of type str: it must be an int",
        ),
        (HistoryPage(4, True, b""), "gave a page whose last_sequence is of type bool: it must be an int"),
        (HistoryPage(3, 6, batch(range(3, 7))), "gave events 3 to 6 after 3, until 9"),
        (HistoryPage(4, 12, batch(range(4, 13))), "gave events 4 to 12 after 3, until 9"),
        (
            HistoryPage(4, 6, [event(4)]),  # type: ignore[arg-type]
            "gave a page whose events are of type list: they must be bytes, an encoded EventBatch",
        ),
        (
            HistoryPage(4, 6, batch(range(4, 7)), {1: record(1)}),  # type: ignore[arg-type]
            "gave a page whose items are of type dict: they must be a sequence of ItemRecord",
        ),
        (
            HistoryPage(4, 6, batch(range(4, 7)), [record(1), "Tank1.PV=4711"]),  # type: ignore[list-item]
            "gave a page with an item of type str: it must be an ItemRecord",
        ),
        (HistoryPage(4, 6, b"xyz"), "gave events 4 to 6 as bytes that are no encoded EventBatch"),
        (HistoryPage(4, 6, batch([4, 6])), "gave a page of the events 4 to 6 that has others"),
    ],
)
async def test_a_wrong_page_is_a_gap_and_the_log_names_the_store_and_what_is_wrong(
    answer: HistoryPage, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Wrong(Pages):
        async def read(self, epoch: bytes, after: int, until: int) -> AsyncIterator[HistoryPage]:
            yield answer

    assert await _read(Wrong(), 3, 9) == [(4, 9)]
    assert caplog.messages == [f"the history store of a test {words}"]


@pytest.mark.parametrize(
    ("span", "words"),
    [
        ((1, 2, 3), "a tuple of int, int, int"),
        ((0, 4), "(0, 4)"),
        ((5, 4), "(5, 4)"),
        (("1", 9), "a tuple of str, int"),
        (7, "a value of type int"),
        ([1, 9], "a value of type list"),
        ((True, 9), "a tuple of bool, int"),
        ((), "a tuple of nothing"),
    ],
)
async def test_a_wrong_span_is_none_and_named(span: Any, words: str, caplog: pytest.LogCaptureFixture) -> None:
    assert await failed_to_say(asked(Pages(span=span)))
    assert caplog.messages == [
        f"the history store of a test answered span with {words}: it must be None, or the first and the last sequence "
        "of a run of events"
    ]


async def test_a_store_that_does_not_keep_its_promise_is_named_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(HistoryUnavailable):
        _ = [piece async for piece in read_from(asked(Pages((4, 5))), 3, 9, is_whole=True)]

    assert caplog.messages == ["the history store of a test said that it has the events 4 to 9, and gave none behind 5"]


class PlainSpan(Pages):
    def span(self, epoch: bytes) -> tuple[int, int]:  # type: ignore[override]
        return 4, 9


class ReadWithoutYield(Pages):
    async def read(self, epoch: bytes, after: int, until: int) -> list[HistoryPage]:  # type: ignore[override]
        return []


async def test_methods_of_the_wrong_kind_are_named_with_the_kind_that_is_needed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert await failed_to_say(asked(PlainSpan()))
    assert await _read(ReadWithoutYield(), 3, 9) == [(4, 9)]
    assert caplog.messages == [
        "the history store of a test returned a value of type tuple from span: span must be async",
        "the history store of a test returned a value of type coroutine from read: read must be an async generator, "
        "with `yield`",
    ]


NOT_STORED = "these events are older than the log holds, and the history store does not have them"
STORE_FAILED = "these events are older than the log holds, and the history store failed: the gateway's log says how"


@pytest.mark.parametrize(
    ("pages", "gap"),
    [
        pytest.param(Pages((4, 5)), (6, 9, NOT_STORED), id="has less"),
        pytest.param(Pages((4, 5), error=OSError("x")), (6, 9, STORE_FAILED), id="read fails"),
    ],
)
async def test_a_gap_says_whether_the_store_failed_or_does_not_have_the_events(
    pages: Pages, gap: tuple[int, int, str]
) -> None:
    found = [piece async for piece in read_from(asked(pages), 3, 9, is_whole=False) if isinstance(piece, Gap)]

    assert [(piece.first, piece.last, piece.detail) for piece in found] == [gap]


async def test_the_gap_of_a_store_that_does_not_say_what_it_has_says_that_the_store_failed() -> None:
    log = EventLog(Clock())
    log.start_after(9)
    pages = Pages((4, 9), error=OSError("x"))
    older = await find_older(lambda: asked(pages), log, EPOCH, Position(EPOCH, 3), BrokenPromises())
    assert older is not None
    place = decide(log, EPOCH, Position(EPOCH, 3), older.reach)
    assert place.gap is not None
    found = [piece async for piece in older.in_place_of(place.gap, EPOCH, is_whole=place.recovered)]

    assert not place.recovered
    assert not pages.asked
    assert [(p.first, p.last, p.detail) for p in found if isinstance(p, Gap)] == [(4, 9, STORE_FAILED)]
