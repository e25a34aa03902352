"""A backend for MXAccess on the Python double, and a sink that keeps what it is given."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from mxgw.convert import PyValue, to_value
from mxgw_worker.backends.mxaccess.backend import MxAccessBackend
from mxgw_worker.backends.sim.testing import Recorded, RecordingSink
from support.mxaccess.python_double import DoubledBackend, PythonDouble
from support.waiting import until


class Rig:
    """One started backend with one registered client."""

    def __init__(self, options: dict[str, object], sim: dict[str, object], **knobs: Any) -> None:
        self.doubled = DoubledBackend(options, sim, **knobs)
        self.backend: MxAccessBackend = self.doubled.backend
        self.sink = RecordingSink()
        self.server = 0
        self.expected_failures = 0

    @property
    def double(self) -> PythonDouble:
        assert self.doubled.double is not None
        return self.doubled.double

    async def start(self) -> Rig:
        await self.backend.start(self.sink)
        self.server = await self.backend.register("test")
        return self

    async def advised(self, reference: str) -> int:
        """Add and advise an item, wait for its first value, and forget the events until then."""
        item = await self.backend.add_item(self.server, reference)
        await self.backend.advise(self.server, item)
        await self.value(item)
        self.sink.take()
        return item

    async def value(self, item: int) -> Recorded:
        """Wait for a data change of an item that is no longer initialising, and return it."""
        return await self.event(lambda event: event.kind == "data_change" and event.item == item and event.detail != 11)

    async def event(self, wanted: Callable[[Recorded], bool]) -> Recorded:
        """Wait for an event and return it."""
        await until(lambda: any(wanted(event) for event in self.sink.events))
        return next(event for event in self.sink.events if wanted(event))

    async def written(self, item: int, value: PyValue) -> Recorded:
        """Write, and return the completion."""
        await self.backend.write(self.server, item, to_value(value), 0)
        return await self.event(lambda event: event.kind == "write_complete" and event.item == item)


Start = Callable[..., Awaitable[Rig]]
