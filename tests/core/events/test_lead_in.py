"""Older events from an outside store: one seam, no duplicate, no silent hole."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from support.events import EPOCH, batch, told

from mxgw.v1 import events_pb2 as e
from mxgw_core.api.events import HistoryPage
from mxgw_core.events.items import Item
from mxgw_core.events.lead_in import lead_in, unbroken_until

pytestmark = pytest.mark.asyncio


class Store:
    """Gives the pages it was made with; may fail behind the last."""

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


async def _read(store: Store, after: int, until: int) -> Sequence[object]:
    items: list[Item] = [piece async for piece in lead_in(store, EPOCH, after, until)]
    for item in items:
        if hasattr(item, "reason"):
            assert item.reason == e.GAP_REASON_RING_EVICTED
    return told(items)


async def test_a_store_that_has_everything_leaves_no_gap() -> None:
    store = Store((4, 6), (7, 9))

    assert await _read(store, 3, 9) == [4, 5, 6, 7, 8, 9]
    assert store.asked == [(EPOCH, 3, 9)]


async def test_an_empty_store_is_one_gap() -> None:
    assert await _read(Store(), 3, 9) == [(4, 9)]


async def test_holes_before_between_and_behind_the_pages_are_gaps() -> None:
    assert await _read(Store((5, 5), (8, 8)), 3, 9) == [(4, 4), 5, (6, 7), 8, (9, 9)]


@pytest.mark.parametrize(
    "page", [pytest.param((5, 7), id="overlaps"), pytest.param((1, 2), id="is older"), pytest.param((4, 6), id="again")]
)
async def test_a_page_that_repeats_is_not_delivered_and_the_rest_is_a_gap(page: tuple[int, int]) -> None:
    assert await _read(Store((4, 6), page, (7, 9)), 3, 9) == [4, 5, 6, (7, 9)]


async def test_a_page_beyond_what_was_asked_for_would_be_a_duplicate() -> None:
    assert await _read(Store((4, 6), (7, 12)), 3, 9) == [4, 5, 6, (7, 9)]


async def test_a_page_that_ends_before_it_begins_is_not_delivered() -> None:
    assert await _read(Store((6, 4)), 3, 9) == [(4, 9)]


async def test_a_store_that_fails_amid_reading_is_a_gap_from_there() -> None:
    assert await _read(Store((4, 6), error=OSError("the disk is gone")), 3, 9) == [4, 5, 6, (7, 9)]


@pytest.mark.parametrize(
    ("span", "after", "until"),
    [
        ((4, 9), 3, 9),
        ((1, 9), 3, 9),
        ((4, 4), 3, 4),
        ((1, 5), 0, 5),
        # It begins later: what it has follows a gap.
        ((5, 9), 3, 3),
        ((1, 3), 3, None),
        (None, 0, None),
    ],
)
async def test_a_store_is_complete_up_to_its_newest_when_it_has_the_very_next_event(
    span: tuple[int, int] | None, after: int, until: int | None
) -> None:
    assert await unbroken_until(Store(span=span), EPOCH, after) == until


class Partial(Store):
    """Says up to where it has no hole."""

    def __init__(self, unbroken: int, **options: Any) -> None:
        super().__init__(**options)
        self.unbroken = unbroken

    async def unbroken_until(self, epoch: bytes, after: int) -> int:
        return self.unbroken


@pytest.mark.parametrize(
    ("unbroken", "until"),
    [
        pytest.param(7, 7, id="a hole"),
        pytest.param(9, 9, id="no hole"),
        pytest.param(12, 9, id="more than its span"),
        pytest.param(1, 3, id="less than was asked for"),
    ],
)
async def test_a_store_with_holes_is_complete_up_to_the_first(unbroken: int, until: int) -> None:
    assert await unbroken_until(Partial(unbroken, span=(1, 9)), EPOCH, 3) == until


async def test_a_store_that_fails_has_nothing() -> None:
    assert await unbroken_until(Store(error=OSError("x")), EPOCH, 3) is None
