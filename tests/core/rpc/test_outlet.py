"""A subscriber's stream: events written where they are appended, in order with everything else, never in silence."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from google.protobuf.message import Message
from support.clock import advance
from support.distributing import NO_LIMITS, Items, Pump
from support.events import batch
from support.overflowing import RecordingPump
from support.turns import counted_turns

from mxgw.v1.event_service_pb2 import StreamEventsResponse
from mxgw_core.api.errors import GatewayDraining, SessionEnded, SubscriberOverflow
from mxgw_core.api.events import Action, EventFilter, Lag, OverflowPolicy, QueueLimits, StreamPace
from mxgw_core.api.slices import NAMES_AT_ONCE
from mxgw_core.api.types import ItemRecord
from mxgw_core.config.models import EventSettings
from mxgw_core.events.frames import heartbeat_frame
from mxgw_core.events.overflow import overflow_error
from mxgw_core.events.pieces import Gap, Piece, chunk_of
from mxgw_core.events.subscriber import Subscriber
from mxgw_core.rpc.outlet import Outlet
from mxgw_core.rpc.writers import PeerGone, ResponseWriter

pytestmark = pytest.mark.asyncio

CLOSED = SessionEnded("the session ended", close_reason="CLIENT")


@dataclass
class Transport:
    """Writes end when a test says so; with `is_fast`, at once. Remembers each message in short."""

    is_fast: bool = False
    written: list[object] = field(default_factory=list)
    refusal: BaseException | None = None
    is_aborted: bool = False
    # Set with the first message behind StreamOpened.
    was_written: asyncio.Event = field(default_factory=asyncio.Event)
    unsent_bytes: int = 0
    on_writable: Callable[[BaseException | None], None] = lambda _: None

    async def write(self, message: Message | bytes) -> None:
        assert isinstance(message, bytes)
        self.written.append(in_short(message))

    def try_write(self, data: bytes) -> bool:
        assert not self.unsent_bytes, "one write at a time"
        if self.refusal is not None:
            raise self.refusal
        self.written.append(in_short(data))
        self.was_written.set()
        if not self.is_fast:
            self.unsent_bytes = len(data)
        return self.is_fast

    def abort(self) -> None:
        self.is_aborted = self.unsent_bytes > 0
        self.unsent_bytes = 0

    def land(self, error: BaseException | None = None) -> None:
        assert self.unsent_bytes
        self.unsent_bytes = 0
        self.on_writable(error)


class NeverOpened(Transport):
    """A client that has stopped reads nothing, not even the first message."""

    async def write(self, message: Message | bytes) -> None:
        await asyncio.Event().wait()


def in_short(data: bytes) -> object:
    """Return the sequences of events, (first, last) of a gap, and the name of any other frame."""
    if data.isascii() and data.decode().isprintable():
        return data  # made by a test
    message = StreamEventsResponse.FromString(data)
    match message.WhichOneof("frame"):
        case "events":
            return [event.sequence for event in message.events.events]
        case "gap":
            return message.gap.first_lost, message.gap.last_lost
        case name:
            return name


@dataclass
class Snapshot:
    """A snapshot of two frames, with a turn for others between them."""

    sequence: int

    def frames(self, limit_bytes: int) -> Iterator[bytes]:
        yield b"snapshot"
        yield b""
        yield b"snapshot end"


@dataclass
class Served:
    """A subscriber whose stream is being served."""

    pump: Pump
    subscriber: Subscriber
    transport: Transport
    outlet: Outlet
    running: asyncio.Task[BaseException | None]
    snapshots: asyncio.Queue[Snapshot]

    async def over(self) -> BaseException | None:
        async with asyncio.timeout(600):
            await asyncio.wait((self.running,))
        return self.running.result()

    @property
    def written(self) -> list[object]:
        """What went out behind StreamOpened."""
        assert self.transport.written[0] == "opened"
        return self.transport.written[1:]


async def turns() -> None:
    for _ in range(6):
        await asyncio.sleep(0)


class Paced:
    """A policy with a pace."""

    name = "paced"
    interval_s = 60.0

    def on_overflow(self, lag: Lag) -> Action:
        raise AssertionError(lag)


@asynccontextmanager
async def served(
    *filters: EventFilter,
    is_fast: bool = False,
    policy: OverflowPolicy | None = None,
    limits: QueueLimits = NO_LIMITS,
    paces: tuple[StreamPace, ...] = (),
    older: AsyncGenerator[Piece, None] | None = None,
    pump: Pump | None = None,
    heartbeat_s: float = 60.0,
    drain_s: float = 60.0,
) -> AsyncIterator[Served]:
    pump, transport = pump or Pump(), Transport(is_fast)
    snapshots: asyncio.Queue[Snapshot] = asyncio.Queue()
    subscription = pump.attach(filters=filters, policy=policy, limits=limits)
    outlet = Outlet(
        *(pump.distributor, subscription, transport, EventSettings(overflow_drain_s=drain_s), heartbeat_s),
        fetch=snapshots.get,
        heartbeat=lambda sequence: heartbeat_frame(b"e" * 16, sequence, sequence, 1, 1),
        paces=paces,
    )
    assert isinstance(transport, ResponseWriter)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(_caught(outlet, older), name="running")
        await turns()
        try:
            yield Served(pump, subscription, transport, outlet, running, snapshots)
        finally:
            running.cancel()


async def _caught(outlet: Outlet, older: AsyncGenerator[Piece, None] | None) -> BaseException | None:
    try:
        await outlet.run(older)
    except Exception as error:
        return error
    return None


async def test_events_are_written_in_the_step_that_appends_them() -> None:
    async with served(is_fast=True) as it:
        it.pump.events(2)
        it.pump.events(1)

        assert it.written == [[1, 2], [3]]
        assert it.subscriber.is_idle


async def test_what_gathers_while_a_write_is_under_way_is_one_message_after_it() -> None:
    async with served() as it:
        it.pump.events(1)
        it.pump.events(2)
        it.pump.events(1)

        assert it.written == [[1]]
        assert not it.subscriber.is_idle

        it.transport.land()

        assert it.written == [[1], [2, 3, 4]]

        it.transport.land()

        assert it.subscriber.is_idle


async def test_a_control_frame_comes_before_events_that_are_not_written_yet() -> None:
    async with served() as it:
        it.pump.events(1)
        it.pump.events(1)
        it.subscriber.send(b"control")
        it.transport.land()
        it.transport.land()

        assert it.written == [[1], b"control", [2]]


async def test_a_gap_stays_in_its_place_and_needs_no_task_either() -> None:
    async with served(is_fast=True) as it:
        it.pump.events(1)
        it.pump.gap()
        it.pump.events(1)

        assert it.written == [[1], (2, 2), [3]]


async def test_the_end_comes_after_the_events_before_it() -> None:
    async with served() as it:
        it.pump.events(1)
        it.pump.events(1)
        it.subscriber.finish(GatewayDraining("over"))
        it.transport.land()
        it.transport.land()

        assert isinstance(await it.over(), GatewayDraining)
        assert it.written == [[1], [2]]


@pytest.mark.parametrize("late", [False, True])
async def test_a_write_that_fails_ends_the_stream_and_nothing_is_written_any_more(late: bool) -> None:
    async with served() as it:
        if late:
            it.pump.events(1)
            it.transport.land(ValueError("gone"))
        else:
            it.transport.refusal = ValueError("gone")
            it.pump.events(1)
        it.pump.events(1)

        assert isinstance(await it.over(), ValueError)
        assert it.written == ([[1]] if late else [])


async def test_a_filter_that_fails_ends_its_stream_and_is_not_the_workers_failure() -> None:
    class Failing:
        def keep(self, item: ItemRecord, kind: int) -> bool:
            raise ValueError("broken")

    async with served(Failing()) as it:
        it.pump.events(1)

        assert isinstance(await it.over(), ValueError)


async def test_a_filter_that_brings_new_events_writes_none_of_them_out_of_order() -> None:
    pump = Pump()

    class Brings:
        is_done = False

        def keep(self, item: ItemRecord, kind: int) -> bool:
            if not self.is_done:
                self.is_done = True
                pump.events(1)
            return True

    async with served(Brings(), is_fast=True, pump=pump) as it:
        pump.events(1)

        assert it.written == [[1], [2]]
        assert not it.running.done()


async def test_a_snapshot_that_brings_new_events_is_followed_by_them() -> None:
    pump = Pump()

    class Brings(Snapshot):
        def frames(self, limit_bytes: int) -> Iterator[bytes]:
            pump.events(1)
            yield from super().frames(limit_bytes)

    async with served(is_fast=True, pump=pump) as it:
        it.subscriber.want_snapshot()
        await turns()
        it.snapshots.put_nowait(Brings(0))
        for _ in range(4):
            await turns()

        assert it.written == [b"snapshot", b"snapshot end", [1]]


async def test_a_cancelled_stream_gives_up_the_write_under_way() -> None:
    async with served() as it:
        it.pump.events(1)
        it.running.cancel()
        await asyncio.wait((it.running,))

        assert it.transport.is_aborted

        it.pump.events(1)

        assert it.written == [[1]]


@pytest.mark.parametrize("is_fast", [True, False])
async def test_only_a_reader_whose_write_is_under_way_is_checked_however_large_a_burst_is(is_fast: bool) -> None:
    limits = QueueLimits(events=2, bytes=0, seconds=0.0)
    async with served(is_fast=is_fast, limits=limits) as it:
        it.pump.events(5)
        it.pump.events(5)

        assert (it.subscriber.end_error is None) == is_fast
        assert it.written == ([[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]] if is_fast else [[1, 2, 3, 4, 5]])


# what has to wait


@dataclass(eq=False)
class Standing(Items):
    """A filter whose answers stand until its revision changes."""

    revision: int = 0
    __hash__ = object.__hash__


async def test_a_reader_lets_others_have_their_turn_while_its_filter_is_asked_for_many_items() -> None:
    async with served(Standing({1, 2}), is_fast=True) as it:
        records = b"".join(batch([s], item_handle=s) for s in range(1, 101))
        async with counted_turns() as counted:
            it.pump.distributor.append(1, 100, records)
            it.pump.distributor.flush()
            async with asyncio.timeout(60):
                await it.transport.was_written.wait()
            taken = counted.taken

        assert it.written == [[1, 2]]
        assert taken >= (100 - 1) // NAMES_AT_ONCE


async def test_an_idle_paced_stream_sleeps_and_the_first_events_go_out_at_once() -> None:
    async with served(is_fast=True, policy=Paced()) as it:
        it.pump.events(1)

        assert it.written == [[1]]


async def test_a_paced_stream_is_woken_by_its_time_and_writes_the_last_values() -> None:
    pump = RecordingPump()
    pump.clock.now = asyncio.get_running_loop().time()
    async with served(is_fast=True, policy=Paced(), pump=pump) as it:
        pump.happen(1)
        pumped = 0

        def pump_outlet() -> None:
            nonlocal pumped
            pumped += 1
            it.outlet.pump()

        it.subscriber.on_work = pump_outlet
        for _ in range(20):
            pump.happen(1)
            await asyncio.sleep(0)

        assert it.written == [[1]]
        assert pumped == 1, "only the first of the events that wait sets a timer"

        pump.clock.now += 60
        advance(60)
        await turns()

        assert it.written == [[1], (2, 20), [21]]


async def test_plugins_hold_events_back_and_count_what_goes_out_before_it_does() -> None:
    class Pace:
        held_s = 0.0

        def __init__(self) -> None:
            self.seen: list[int] = []

        def wait_s(self) -> float:
            return self.held_s

        def sent(self, events: int) -> None:
            self.seen.append(events)

    pace = Pace()
    async with served(is_fast=True, paces=(pace,)) as it:
        it.pump.events(2)

        assert (it.written, pace.seen) == ([[1, 2]], [2])

        pace.held_s = 0.2
        it.pump.events(1)
        advance(0.2)
        await turns()

        assert it.written == [[1, 2]]

        pace.held_s = 0.0
        advance(0.2)
        await turns()

        assert (it.written, pace.seen) == ([[1, 2], [3]], [2, 1])

        pace.held_s = 100.0
        it.pump.events(1)
        it.subscriber.finish(CLOSED)  # what is left is not held back

        assert it.written[-1] == [4]


async def test_a_snapshot_is_fetched_while_nothing_is_written_and_stands_in_its_place() -> None:
    async with served(is_fast=True) as it:
        it.subscriber.want_snapshot()
        it.pump.events(3)
        await turns()

        assert it.written == []

        it.snapshots.put_nowait(Snapshot(2))
        for _ in range(4):
            await turns()

        assert it.written == [[1, 2], b"snapshot", b"snapshot end", [3]]


async def test_pages_of_a_history_store_come_first_and_one_after_another() -> None:
    asked: list[int] = []

    async def older() -> AsyncGenerator[Piece, None]:
        for first in (1, 3):
            asked.append(first)
            yield chunk_of(first, first + 1, batch([first, first + 1]))
        yield Gap(5, 6, 1)

    pump = Pump()
    pump.events(6)
    async with served(older=older(), pump=pump) as it:
        pump.events(1)

        assert (it.written, asked) == ([[1, 2]], [1])

        it.transport.land()
        await turns()
        it.transport.land()
        await turns()

        assert (it.written, asked) == ([[1, 2], [3, 4], (5, 6)], [1, 3])

        it.transport.land()
        await turns()

        assert it.written[-1] == [7]


async def test_older_events_of_a_stream_that_ends_have_the_time_of_one_message_all_together() -> None:
    pages = asyncio.Queue[int]()

    async def older() -> AsyncGenerator[Piece, None]:
        while True:
            first = await pages.get()
            yield chunk_of(first, first, batch([first]))

    pump = Pump()
    pump.events(9)
    async with served(is_fast=True, older=older(), pump=pump, drain_s=5.0) as it:
        it.subscriber.finish(overflow_error(it.subscriber, 9, 9))
        for first in (1, 2):
            advance(2)
            pages.put_nowait(first)
            await turns()

        assert not it.running.done()

        advance(1)
        await turns()

        assert it.running.done()

        cut = it.running.result()

        assert isinstance(cut, SubscriberOverflow)
        assert (it.written, cut.metadata["lost_from"]) == ([[1], [2]], "3")


async def test_a_page_that_cannot_be_written_ends_the_stream_before_the_next_page_is_asked_for() -> None:
    asked: list[int] = []

    async def older() -> AsyncGenerator[Piece, None]:
        for first in (1, 2):
            asked.append(first)
            yield chunk_of(first, first, batch([first]))

    gone = PeerGone()
    async with served(older=older()) as it:
        it.transport.land(gone)

        assert await it.over() is gone
        assert asked == [1]


async def test_the_next_page_is_asked_for_while_a_pace_holds_events_back() -> None:
    asked: list[int] = []

    class Pace:
        held_s = 0.0

        def wait_s(self) -> float:
            return self.held_s

        def sent(self, events: int) -> None:
            self.held_s = 1.0

    async def older() -> AsyncGenerator[Piece, None]:
        for first in (1, 2):
            asked.append(first)
            yield chunk_of(first, first, batch([first]))

    async with served(older=older(), paces=(Pace(),)) as it:
        it.transport.land()
        await turns()

        assert (it.written, asked) == ([[1]], [1, 2])


# silence, and a reader that stalls


async def test_a_heartbeat_comes_after_silence_only(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.monotonic()
    monkeypatch.setattr("mxgw_core.rpc.outlet.time.perf_counter", lambda: now)

    async def passed(seconds: float) -> None:
        nonlocal now
        now += seconds
        advance(seconds)
        await turns()

    async with served(is_fast=True, heartbeat_s=10.0) as it:
        await passed(6)
        it.pump.events(1)
        await passed(6)

        assert it.written == [[1]]

        await passed(6)

        assert it.written == [[1], "heartbeat"]

        await passed(10)

        assert it.written == [[1], "heartbeat", "heartbeat"]


async def test_heartbeats_come_while_a_history_store_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.monotonic()
    monkeypatch.setattr("mxgw_core.rpc.outlet.time.perf_counter", lambda: now)

    async def older() -> AsyncGenerator[Piece, None]:
        await asyncio.Event().wait()
        yield Gap(1, 1, 1)

    async with served(is_fast=True, heartbeat_s=10.0, older=older()) as it:
        it.pump.events(1)
        now += 10
        advance(10)
        await turns()

        assert it.written == ["heartbeat"]


async def test_heartbeats_and_control_frames_are_sent_while_a_snapshot_is_fetched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = time.monotonic()
    monkeypatch.setattr("mxgw_core.rpc.outlet.time.perf_counter", lambda: now)

    async with served(is_fast=True, heartbeat_s=10.0) as it:
        it.subscriber.want_snapshot()
        await turns()
        it.pump.events(1)
        now += 10
        advance(10)
        await turns()

        assert it.written == ["heartbeat"]

        it.subscriber.send(b"control")

        assert it.written == ["heartbeat", b"control"]

        it.snapshots.put_nowait(Snapshot(1))
        for _ in range(4):
            await turns()

        assert it.written == ["heartbeat", b"control", [1], b"snapshot", b"snapshot end"]


async def test_a_reader_that_does_not_take_the_first_message_is_cut_once_its_stream_ends() -> None:
    pump, transport = Pump(), NeverOpened()
    subscriber = pump.attach()
    settings = EventSettings(overflow_drain_s=5.0)
    outlet = Outlet(
        *(pump.distributor, subscriber, transport, settings, 60.0),
        fetch=asyncio.Queue[Snapshot]().get,
        heartbeat=lambda _: b"",
    )
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(_caught(outlet, None), name="running")
        await turns()
        subscriber.finish(CLOSED)
        advance(5)
        await turns()

        assert running.done()

    assert running.result() is CLOSED


async def test_a_stalled_reader_is_cut_a_while_after_its_stream_ended_and_told_what_was_written() -> None:
    async with served(drain_s=5.0) as it:
        it.pump.events(1)
        it.transport.land()
        it.pump.events(1)
        it.pump.events(1)
        error = overflow_error(it.subscriber, 2, 3)
        it.subscriber.finish(error)
        advance(4)
        await turns()
        it.transport.land()  # one more message went, so its time begins anew
        advance(4)
        await turns()

        assert not it.running.done()

        advance(1)
        cut = await it.over()

        assert isinstance(cut, SubscriberOverflow)
        assert cut.metadata["lost_from"] == "3"
        assert "nothing was read for 5 s" in cut.message
        assert it.transport.is_aborted
        assert it.written == [[1], [2], [3]]


async def test_a_stalled_reader_of_a_session_that_closed_is_told_that() -> None:
    async with served(drain_s=5.0) as it:
        it.pump.events(1)
        it.subscriber.finish(CLOSED)
        advance(5)

        assert await it.over() is CLOSED


async def test_nothing_of_a_stream_is_left_once_it_is_over() -> None:
    async with served(is_fast=True) as it:
        it.pump.events(1)
        it.subscriber.finish(CLOSED)
        await it.over()

        assert it.subscriber.on_work is it.subscriber.on_end is None
        assert not it.subscriber.is_idle
