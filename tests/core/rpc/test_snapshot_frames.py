"""The frames of a snapshot: bytes as the worker sent them, opened for whoever may not see everything."""

from __future__ import annotations

from itertools import pairwise

import pytest
from support.distributing import Items
from support.events import EPOCH, EveryItem, serial_of

from mxgw.v1 import events_pb2 as e
from mxgw.v1.event_service_pb2 import StreamEventsResponse
from mxgw.v1.values_pb2 import MxValue
from mxgw_core.api.slices import NAMES_AT_ONCE
from mxgw_core.api.types import ItemRecord
from mxgw_core.events.filters import ItemFilters
from mxgw_core.events.item_book import ItemBook
from mxgw_core.rpc.snapshots import SnapshotMessages

LIMIT = 400


def page(*handles: int) -> bytes:
    items = [
        e.SnapshotItem(
            server_handle=1,
            item_handle=h,
            sequence=h,
            value=e.DataChange(value=MxValue(string="x" * 50)),
            item_serial=serial_of(1, h),
        )
        for h in handles
    ]
    return e.Snapshot(items=items).SerializeToString()


def parsed(frames: list[bytes]) -> list[list[int]]:
    """Return the handles in each frame but the last, which ends the snapshot; all are of one position."""
    messages = [StreamEventsResponse.FromString(frame) for frame in frames if frame]
    position = e.Position(epoch=EPOCH, sequence=77)

    assert messages[-1].snapshot_end.position == position
    assert all(message.snapshot.position == position for message in messages[:-1])

    return [[item.item_handle for item in message.snapshot.items] for message in messages[:-1]]


def frames_of(pages: list[bytes], *filters: Items, limit: int = LIMIT) -> list[bytes]:
    item_filters = ItemFilters(filters, EveryItem()) if filters else None
    return list(SnapshotMessages(EPOCH, 77, pages, item_filters).frames(limit))


def test_a_page_is_a_frame_as_it_came() -> None:
    pages = [page(1, 2, 3), page(4)]
    frames = frames_of(pages)

    assert parsed(frames) == [[1, 2, 3], [4]]
    assert frames[0].endswith(pages[0])


@pytest.mark.parametrize("filters", [(), (Items(range(100)),)], ids=["free", "filtered"])
def test_a_page_larger_than_the_limit_becomes_several_frames_and_an_item_is_never_cut(
    filters: tuple[Items, ...],
) -> None:
    frames = frames_of([page(*range(1, 12))], *filters)

    assert [handle for part in parsed(frames) for handle in part] == list(range(1, 12))
    assert len(frames) > 2
    assert all(len(frame) < LIMIT + 50 for frame in frames)
    assert len(frames_of([page(1, 2)], *filters, limit=1)) == 3


def test_only_what_all_filters_let_pass_is_shown_and_a_page_of_others_is_an_empty_frame() -> None:
    pages = [page(1, 2, 3), page(4), page(5, 6)]
    frames = frames_of(pages, Items([1, 3, 5, 6]), Items([2, 3, 5, 6]))

    assert frames[1] == b""
    assert parsed(frames) == [[3], [5, 6]]


def test_an_item_that_is_not_known_is_not_shown_to_a_reader_with_a_filter() -> None:
    item_filters = ItemFilters([Items([1, 2])], ItemBook(10))

    assert parsed(list(SnapshotMessages(EPOCH, 77, [page(1, 2)], item_filters).frames(LIMIT))) == []


def test_a_session_without_values_has_an_end_only() -> None:
    assert parsed(frames_of([])) == []


def test_a_filter_is_asked_for_a_few_items_between_two_frames() -> None:
    class Counting:
        asked = 0

        def keep(self, item: ItemRecord, kind: int) -> bool:
            self.asked += 1
            return item.item_handle % 2 == 0

    counting = Counting()
    item_filters = ItemFilters([counting], EveryItem())
    asked = [0]
    frames = []
    for frame in SnapshotMessages(EPOCH, 77, [page(*range(1, 101))], item_filters).frames(1 << 20):
        frames.append(frame)
        asked.append(counting.asked)

    assert max(after - before for before, after in pairwise(asked)) <= NAMES_AT_ONCE
    assert parsed(frames) == [list(range(2, 101, 2))]
