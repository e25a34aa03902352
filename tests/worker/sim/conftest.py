"""A simulator under a clock that tests drive and a sink that keeps what it is given."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import pytest_asyncio

from mxgw.convert import PyValue, to_value
from mxgw_worker.backends.sim import SimBackend
from mxgw_worker.backends.sim.testing import ManualClock, Recorded, RecordingSink


class Rig:
    """One started simulator with one registered client."""

    def __init__(self, **options: object) -> None:
        self.clock = ManualClock()
        self.sink = RecordingSink()
        self.backend = SimBackend(options, self.clock)
        self.server = 0
        self.expected_failures: list[str] = []

    async def start(self) -> Rig:
        await self.backend.start(self.sink)
        self.server = await self.backend.register("test")
        return self

    async def advised(self, reference: str, *, supervisory: bool = False, buffered: bool = False) -> int:
        """Add and advise an item, wait for its first value, and forget the events until then."""
        item = await self.added(reference, buffered=buffered)
        await (self.backend.advise_supervisory if supervisory else self.backend.advise)(self.server, item)
        self.clock.advance(0.1)
        self.sink.take()
        return item

    async def added(self, reference: str, *, buffered: bool = False) -> int:
        if buffered:
            return await self.backend.add_buffered_item(self.server, reference, "")
        return await self.backend.add_item(self.server, reference)

    async def first_events(self, reference: str) -> list[Recorded]:
        """Advise an item and return the events of the next tenth of a second."""
        item = await self.added(reference)
        await self.backend.advise(self.server, item)
        self.clock.advance(0.1)
        return [event for event in self.sink.take("data_change") if event.item == item]

    async def value(self, reference: str) -> PyValue:
        """Return the value that a new item is first told."""
        return (await self.first_events(reference))[-1].value

    async def write(self, item: int, value: PyValue, user: int = 0, time_ns: int | None = None) -> list[Recorded]:
        """Write and return the events of the next tenth of a second that concern this item."""
        await self.backend.write2(self.server, item, to_value(value), time_ns, user)
        self.clock.advance(0.1)
        return [event for event in self.sink.take() if event.item == item]

    async def write_secured(self, item: int, value: PyValue, current: int, verifier: int = 0) -> int:
        """Write with one or two users and return the detail of the completion."""
        await self.backend.write_secured(self.server, item, current, verifier, to_value(value))
        self.clock.advance(0.1)
        (completion,) = self.sink.take("write_complete")
        return completion.detail

    async def detail(self, item: int, value: PyValue, user: int = 0) -> int:
        """Write and return the detail of the completion."""
        (completion,) = [event for event in await self.write(item, value, user) if event.kind == "write_complete"]
        return completion.detail


Start = Callable[..., Awaitable[Rig]]


@pytest_asyncio.fixture
async def start() -> AsyncIterator[Start]:
    """Starts simulators with given options, and stops them after the test. None may have failed."""
    rigs: list[Rig] = []

    async def started(**options: object) -> Rig:
        rig = Rig(**options)
        rigs.append(rig)
        return await rig.start()

    yield started
    for rig in rigs:
        await rig.backend.stop()

        assert rig.clock.pending() == 0
        assert rig.sink.failures == rig.expected_failures


@pytest.fixture
def still() -> dict[str, object]:
    """Options that keep the plant still: its first scan comes long after the test."""
    return {"update_period_s": 60.0}
