"""Events written where they are appended: at once, in order with everything else, and never in silence."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from support.distributing import NO_LIMITS, Pump

from mxgw.v1 import events_pb2
from mxgw.v1.event_service_pb2 import StreamEventsResponse
from mxgw_core.api.errors import GatewayDraining
from mxgw_core.api.events import EventFilter, Lag, OverflowPolicy, QueueLimits, Verdict
from mxgw_core.api.types import ItemRecord
from mxgw_core.events.items import Control, End, Item
from mxgw_core.events.log import LogGap
from mxgw_core.events.subscriber import Subscriber
from mxgw_core.rpc.direct import DirectWriter
from mxgw_core.rpc.silence import Silence

pytestmark = pytest.mark.asyncio


@dataclass
class Stream:
    """A transport whose writes end when a test says so; with `is_fast`, at once."""

    is_fast: bool = False
    written: list[list[int]] = field(default_factory=list)
    ended: Callable[[BaseException | None], None] | None = None
    refusal: BaseException | None = None
    is_abandoned: bool = False

    def begin(self, data: bytes, ended: Callable[[BaseException | None], None]) -> Stream | None:
        assert self.ended is None, "one write at a time"
        if self.refusal is not None:
            raise self.refusal
        self.written.append([event.sequence for event in frame_of_bytes(data)])
        if self.is_fast:
            return None
        self.ended = ended
        return self

    def abandon(self) -> None:
        self.is_abandoned = True

    def land(self, error: BaseException | None = None) -> None:
        ended, self.ended = self.ended, None
        assert ended is not None
        ended(error)


def frame_of_bytes(data: bytes) -> list[events_pb2.Event]:
    return list(StreamEventsResponse.FromString(data).events.events)


@dataclass
class Served:
    """A subscriber whose task is in `wait`."""

    pump: Pump
    subscriber: Subscriber
    stream: Stream
    writer: DirectWriter
    waiting: asyncio.Task[BaseException | None]

    async def over(self) -> None:
        async with asyncio.timeout(60):
            await asyncio.wait((self.waiting,))

    async def turns(self) -> None:
        for _ in range(3):
            await asyncio.sleep(0)


class Paced:
    """A policy with a pace."""

    name = "paced"
    interval_s = 60.0

    def on_overflow(self, lag: Lag) -> Verdict:
        raise AssertionError(lag)


@asynccontextmanager
async def served(
    *filters: EventFilter,
    is_fast: bool = False,
    policy: OverflowPolicy | None = None,
    limits: QueueLimits = NO_LIMITS,
) -> AsyncIterator[Served]:
    pump, stream = Pump(), Stream(is_fast)
    subscriber = pump.subscribe(filters=filters, policy=policy, limits=limits).subscriber
    silence = Silence(subscriber, 60.0)
    writer = DirectWriter(subscriber, stream, silence, 1 << 20)
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(_caught(writer), name="waiting")
        await asyncio.sleep(0)
        try:
            yield Served(pump, subscriber, stream, writer, waiting)
        finally:
            waiting.cancel()
            silence.cancel()


async def _caught(writer: DirectWriter) -> BaseException | None:
    try:
        await writer.wait()
    except ValueError as error:
        return error
    return None


async def test_events_are_written_in_the_step_that_appends_them() -> None:
    async with served(is_fast=True) as it:
        it.pump.events(2)
        it.pump.events(1)

        assert it.stream.written == [[1, 2], [3]]
        assert it.writer.written == 3
        assert not it.waiting.done()


async def test_what_gathers_while_a_write_is_under_way_is_one_message_after_it() -> None:
    async with served() as it:
        it.pump.events(1)
        it.pump.events(2)
        it.pump.events(1)

        assert it.stream.written == [[1]]
        assert it.writer.written == 0
        assert not it.subscriber.is_idle

        it.stream.land()

        assert it.stream.written == [[1], [2, 3, 4]]
        assert it.writer.written == 1

        it.stream.land()

        assert it.subscriber.is_idle
        assert not it.waiting.done()


async def test_a_woken_task_goes_on_when_the_write_has_ended_and_not_before() -> None:
    async with served() as it:
        it.pump.events(1)
        it.subscriber.send(b"control")
        await it.turns()

        assert not it.waiting.done()

        it.pump.events(1)  # not written behind the back of the task
        it.stream.land()
        await it.over()

        assert it.stream.written == [[1]]
        assert isinstance(it.writer.take(), Control)


async def test_a_control_frame_that_comes_with_events_is_the_tasks_and_comes_first() -> None:
    async with served() as it:
        it.subscriber.send(b"control")
        it.pump.events(1)
        await it.over()

        assert not it.stream.written
        assert it.writer.take() == Control(b"control")


async def test_a_gap_is_left_to_the_task_and_nothing_is_written_before_it() -> None:
    async with served(is_fast=True) as it:
        it.pump.events(1)
        it.pump.gap()
        it.pump.events(1)
        await it.over()

        assert it.stream.written == [[1]]

        gap = it.writer.take()

        assert isinstance(gap, LogGap)
        assert (gap.first, gap.last) == (2, 2)


async def test_the_end_comes_after_the_events_before_it() -> None:
    async with served() as it:
        it.pump.events(1)
        it.pump.events(1)
        it.subscriber.finish(GatewayDraining("over"))
        it.stream.land()
        await it.over()
        rest: list[Item | None] = [it.writer.take(), it.writer.take()]

        assert it.stream.written == [[1]]
        assert [getattr(item, "last", 0) for item in rest] == [2, 0]
        assert isinstance(rest[1], End)


@pytest.mark.parametrize("late", [False, True])
async def test_a_write_that_fails_is_the_tasks_failure(late: bool) -> None:
    async with served() as it:
        if late:
            it.pump.events(1)
            it.stream.land(ValueError("gone"))
        else:
            it.stream.refusal = ValueError("gone")
            it.pump.events(1)
        it.pump.events(1)
        await it.over()

        assert isinstance(it.waiting.result(), ValueError)
        assert it.writer.written == 0


async def test_a_filter_that_fails_is_the_tasks_failure_and_not_the_workers() -> None:
    class Failing:
        def keep(self, item: ItemRecord, kind: int) -> bool:
            raise ValueError("broken")

    async with served(Failing()) as it:
        it.pump.events(1)
        await it.over()

        assert isinstance(it.waiting.result(), ValueError)


async def test_a_cancelled_task_gives_up_the_write_under_way() -> None:
    async with served() as it:
        it.pump.events(1)
        it.waiting.cancel()
        await it.over()

        assert it.stream.is_abandoned

        it.pump.events(1)

        assert it.stream.written == [[1]]


async def test_a_paced_reader_is_left_alone_until_its_time_has_come() -> None:
    async with served(is_fast=True, policy=Paced()) as it:
        it.pump.events(1)
        it.pump.events(1)
        await it.over()  # the task looks when it is due, and waits for that
        again = asyncio.get_running_loop().create_task(_caught(it.writer), name="again")
        await it.turns()
        it.pump.events(5)
        await it.turns()

        assert it.stream.written == [[1]]
        assert not again.done()
        again.cancel()


@pytest.mark.parametrize("is_fast", [True, False])
async def test_only_a_reader_whose_write_is_under_way_is_judged_however_large_a_burst_is(is_fast: bool) -> None:
    limits = QueueLimits(events=2, bytes=0, seconds=0.0)
    async with served(is_fast=is_fast, limits=limits) as it:
        it.pump.events(5)
        it.pump.events(5)

        assert (it.subscriber.end is None) == is_fast
        assert it.stream.written == ([[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]] if is_fast else [[1, 2, 3, 4, 5]])
