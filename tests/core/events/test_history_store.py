"""A history store that hangs or is cancelled counts as one that failed, and does not disturb other streams."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence

import pytest
from support.events import EPOCH, Clock, batch, told
from support.seams import failed_to_say, read_from
from support.waiting import until

from mxgw_core.api.events import HistoryPage
from mxgw_core.api.types import Position
from mxgw_core.events.history import BrokenPromises, Store, StoreFailed, find_older
from mxgw_core.events.log import EventLog

pytestmark = pytest.mark.asyncio

# Long enough for a wait that takes several turns of the event loop.
SHORT_S = 0.6
NEVER_S = 600.0


class Faulty:
    """A store that returns events 4 to 6 and then fails in the way that `fault` says.

    It hangs, or it hangs even after it was cancelled, or it raises CancelledError itself.
    """

    def __init__(self, fault: str) -> None:
        self.fault = fault
        self.may_end = asyncio.Event()
        self.closed = 0
        self.asked = 0

    async def span(self, epoch: bytes) -> tuple[int, int] | None:
        self.asked += 1
        await self._fail()
        return None

    async def read(self, epoch: bytes, after: int, until: int) -> AsyncIterator[HistoryPage]:
        try:
            yield HistoryPage(4, 6, batch(range(4, 7)))
            await self._fail()
        finally:
            self.closed += 1

    async def _fail(self) -> None:
        if self.fault == "cancelled":
            raise asyncio.CancelledError
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            if self.fault == "hangs":
                raise
            # The first cancellation is ignored here. The second one comes from the event loop at the end of the test.
            await self.may_end.wait()


def _store(history: Faulty, page_s: float = SHORT_S, left: set[asyncio.Task[object]] | None = None) -> Store:
    return Store(history, "plugin faulty", page_s, SHORT_S, set() if left is None else left)


async def _given(store: Store, *, is_ending: bool = False) -> Sequence[object]:
    pieces = read_from(store, 3, 9, is_whole=False, is_ending=lambda: is_ending)
    return told([piece async for piece in pieces])


@pytest.mark.parametrize("fault", ["hangs", "ignores that it is cancelled", "cancelled"])
async def test_a_store_that_stops_midway_is_a_gap_from_there_and_named_in_the_log(
    fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    history = Faulty(fault)
    with caplog.at_level(logging.WARNING):
        given = await _given(_store(history))

    assert given == [4, 5, 6, (7, 9)]
    assert [record.getMessage() for record in caplog.records] == [
        "the history store of plugin faulty was cancelled, and not by the gateway"
        if fault == "cancelled"
        else "the history store of plugin faulty gave no page within 0.6 s"
    ]
    history.may_end.set()
    await until(lambda: history.closed == 1)


@pytest.mark.parametrize("fault", ["hangs", "ignores that it is cancelled", "cancelled"])
async def test_a_store_that_does_not_say_what_it_has_has_nothing(fault: str) -> None:
    history = Faulty(fault)

    assert await failed_to_say(_store(history))

    history.may_end.set()


async def test_a_store_gets_little_time_once_the_stream_of_its_reader_ends() -> None:
    given = await _given(_store(Faulty("hangs"), page_s=NEVER_S), is_ending=True)

    assert given == [4, 5, 6, (7, 9)]


@pytest.mark.parametrize("asks", ["span", "read"])
async def test_a_cancelled_stream_cancels_its_store_and_stays_cancelled(asks: str) -> None:
    history = Faulty("hangs")
    store = _store(history, page_s=NEVER_S)
    reading = asyncio.Event()

    async def stream() -> None:
        if asks == "span":
            reading.set()
            await store.span(EPOCH)
        async for _ in read_from(store, 3, 9, is_whole=False):
            reading.set()

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(stream())
        await reading.wait()
        await asyncio.sleep(0)
        task.cancel()
    others = asyncio.all_tasks() - {asyncio.current_task()}

    assert task.cancelled()
    assert not others
    assert history.closed == (asks == "read")


async def test_a_store_whose_last_call_ignores_that_it_is_cancelled_is_not_asked_before_it_has_ended(
    caplog: pytest.LogCaptureFixture,
) -> None:
    history, log, doubts = Faulty("ignores that it is cancelled"), EventLog(Clock()), BrokenPromises()
    log.start_after(9)

    async def search(has_failed: bool = True) -> None:
        store = _store(history, left=doubts.left)
        older = await find_older(lambda: store, log, EPOCH, Position(EPOCH, 3), doubts)

        assert (older is not None and older.has_failed) is has_failed

    await search()
    await search()

    assert history.asked == 1
    assert caplog.messages[-1] == "the history store of plugin faulty was not asked: an earlier call has not ended"

    history.may_end.set()
    await until(lambda: not doubts.left)
    await search(has_failed=False)

    assert history.asked == 2


async def test_a_page_is_asked_for_once_the_one_before_was_taken() -> None:
    class Counting:
        pages = 0

        async def span(self, epoch: bytes) -> tuple[int, int] | None:
            return None

        async def read(self, epoch: bytes, after: int, until: int) -> AsyncIterator[HistoryPage]:
            for sequence in range(after + 1, until + 1):
                self.pages += 1
                yield HistoryPage(sequence, sequence, batch([sequence]))

    history = Counting()
    pages = Store(history, "a test", NEVER_S, NEVER_S).read(EPOCH, 3, 9, lambda: False)
    asked = [(page.first_sequence, history.pages) async for page in pages if page is not None]

    assert asked == [(sequence, sequence - 3) for sequence in range(4, 10)]


async def test_what_a_store_raises_is_raised() -> None:
    class Broken(Faulty):
        async def _fail(self) -> None:
            raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        await _store(Broken("")).span(EPOCH)
    with pytest.raises(StoreFailed):
        await _store(Faulty("cancelled")).span(EPOCH)
