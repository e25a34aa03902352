"""The item records of a worker are checked for contradictions before they are used, and their memory is limited."""

from __future__ import annotations

from typing import Any

import pytest

from mxgw.v1 import commands_pb2 as c
from mxgw.worker.v1 import worker_pb2 as w
from mxgw_core.events import item_book
from mxgw_core.events.item_book import BadRecords, ItemBook


def added(serial: int, handle: int, reference: str = "Tank_001.Level", **fields: Any) -> w.ItemRecord:
    return w.ItemRecord(item_serial=serial, server_handle=1, item_handle=handle, item_definition=reference, **fields)


def ended(serial: int, handle: int, last_sequence: int = 0) -> w.ItemRecord:
    return w.ItemRecord(
        item_serial=serial, server_handle=1, item_handle=handle, ended=True, last_sequence=last_sequence
    )


def book_of(*records: w.ItemRecord, limit_items: int = 100) -> ItemBook:
    book = ItemBook(limit_items)
    book.take(w.ItemRecords(records=records))
    return book


def test_a_handle_stands_for_the_item_that_has_it_now_and_serials_stay() -> None:
    book = book_of(added(1, 5, "A.PV"), ended(1, 5, 10), added(2, 5, "B.PV"))
    current = book.current(1, 5)

    assert current is not None
    assert (current.serial, current.item_definition) == (2, "B.PV")
    assert [item and item.item_definition for item in (book.get(1), book.get(2), book.get(3))] == ["A.PV", "B.PV", None]


def test_the_end_of_an_item_frees_its_handle_only_if_it_has_it() -> None:
    book = book_of(added(1, 5), added(2, 6), ended(1, 5))

    assert book.current(1, 5) is None
    assert book.current(1, 6) is book.get(2)
    assert book.current(2, 6) is None


def test_the_items_that_a_command_uses_come_in_the_order_of_its_inputs() -> None:
    book = book_of(added(1, 5), added(2, 6))
    writes = [c.BulkWrite(item_handle=handle) for handle in (6, 7, 5)]
    used = book.used_by(c.MxCommand(write_bulk=c.WriteBulkCommand(server_handle=1, writes=writes)))

    assert [item.serial if item else 0 for item in used] == [2, 0, 1]
    assert len(book.used_by(c.MxCommand(add_item=c.AddItemCommand(server_handle=1)))) == 0


def test_what_a_worker_that_is_taken_over_has_is_known_and_so_is_what_ended_before() -> None:
    book = book_of(added(3, 5, ended=True, last_sequence=9), added(8, 5))

    assert book.current(1, 5) is book.get(8)
    assert book.get(3) is not None


@pytest.mark.parametrize(
    "records",
    [
        pytest.param([added(0, 1)], id="serial 0"),
        pytest.param([added(1 << 56, 1)], id="serial too large"),
        pytest.param([added(2, 1), added(2, 2)], id="a serial twice"),
        pytest.param([added(2, 1), added(1, 2)], id="an older serial anew"),
        pytest.param([added(1, 1), added(2, 1)], id="two items of one handle"),
        pytest.param([added(1, 1), ended(1, 1), ended(1, 1)], id="an end twice"),
        pytest.param([added(1, 1), ended(1, 1), added(1, 1)], id="an item after its end"),
        pytest.param([added(1, 1), ended(1, 2)], id="an end under another handle"),
        pytest.param([added(5, 1), ended(3, 3)], id="an end of what was never told"),
    ],
)
def test_what_cannot_be_true_is_an_error(records: list[w.ItemRecord]) -> None:
    with pytest.raises(BadRecords):
        book_of(*records)


def test_more_items_than_a_worker_may_have_are_an_error() -> None:
    book = book_of(*(added(n, n) for n in range(1, 11)), limit_items=10)
    with pytest.raises(BadRecords):
        book.take(w.ItemRecords(records=[added(11, 11)]))


def test_longer_references_than_a_worker_can_have_are_an_error() -> None:
    book = ItemBook(100, limit_bytes=1000)
    book.take(w.ItemRecords(records=[added(1, 1, "x" * 500), added(2, 2, "x" * 400, item_context="y" * 100)]))
    with pytest.raises(BadRecords):
        book.take(w.ItemRecords(records=[added(3, 3, "x")]))


def test_the_references_of_items_that_ended_count_no_more() -> None:
    book = ItemBook(100, limit_bytes=1000)
    for serial in range(1, 50):
        book.take(w.ItemRecords(records=[added(serial, 1, "x" * 1000), ended(serial, 1)]))
    book.take(w.ItemRecords(records=[added(50, 1, "\N{GREEK SMALL LETTER ALPHA}" * 500)]))
    with pytest.raises(BadRecords):
        book.take(w.ItemRecords(records=[added(51, 2, "x")]))


def test_what_a_record_counts_never_changes_whatever_is_done_with_its_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of bytes that is counted for a record does not change while the record exists.

    Python stores the UTF-8 form of a text when it is first needed, and `sys.getsizeof` counts that form from then on.
    """
    monkeypatch.setattr(item_book, "ENDED_BYTES", 0)
    book = book_of(added(1, 1, "\N{GREEK SMALL LETTER ALPHA}" * 1000))
    item = book.get(1)

    assert item is not None

    c.ItemReference(item_definition=item.item_definition)
    book.take(w.ItemRecords(records=[ended(1, 1)]))

    assert book.size_bytes == 0


def test_equal_contexts_are_one_text() -> None:
    book = book_of(*(added(n, n, item_context="Galaxy.Area_1.Tank_001") for n in (1, 2)))
    one, two = book.get(1), book.get(2)

    assert one is not None
    assert two is not None
    assert one.item_context is two.item_context


def test_ended_items_are_bounded_in_bytes_and_the_latest_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_book, "ENDED_BYTES", 50_000)
    book = book_of(added(1, 1, "Live.PV"))
    least = book.size_bytes
    for serial in range(2, 2000):
        book.take(w.ItemRecords(records=[added(serial, 2, "x" * 100), ended(serial, 2)]))

        assert book.size_bytes <= least + 50_000
    assert [serial for serial in range(1, 2000) if book.get(serial)] == [1, *range(2000 - len(book) + 1, 2000)]
    assert len(book) > 50
    # What has begun since an item is found without a look at the others, also at those that were forgotten.
    known = [1, *range(2000 - len(book) + 1, 2000)]
    assert [record.serial for record in book.begun_after(0, 5)] == known[:5]
    assert [record.serial for record in book.begun_after(known[9], 10_000)] == known[10:]
    assert book.begun_after(1999, 5) == ()
    assert len(book._serials) <= 2 * len(book) + item_book._SERIALS_TOO_MANY


def test_the_bytes_it_names_come_and_go_with_the_items(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_book, "ENDED_BYTES", 0)
    book = book_of(*(added(n, n) for n in range(1, 50)))

    assert book.size_bytes > 49 * 100

    book.take(w.ItemRecords(records=[ended(n, n) for n in range(1, 50)]))

    assert (book.size_bytes, len(book)) == (0, 0)
