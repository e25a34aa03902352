"""The sources that behave as MXAccess does, one interface for all of them."""

from __future__ import annotations

import ctypes
import os
from collections.abc import AsyncIterator, Callable

from mxgw.convert import PyValue, to_value
from mxgw_worker.backends.base import Backend
from mxgw_worker.backends.mxaccess import MxAccessBackend
from mxgw_worker.backends.sim import SimBackend
from mxgw_worker.backends.sim.testing import Recorded, RecordingSink
from support.mxaccess import com_double
from support.mxaccess.python_double import DoubledBackend
from support.waiting import until

# The delays of the simulator, and of the double in Python, which is made of it.
_SIM = {"resolve_delay_s": 0.02, "completion_delay_s": 0.001, "recovery_delay_s": 0.01, "controls": True}
_COM = {"RESOLVE_MS": "20", "COMPLETE_MS": "1", "RECOVER_MS": "10"}
# Of the backend for MXAccess.
_OPTIONS: dict[str, object] = {"alarm_areas": ["Area_001"]}
NAMES = ("sim", "python double", "com double")


class Source:
    """A started backend with one registered client."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.sink = RecordingSink()
        self.backend: Backend = _MAKERS[name]()
        self.server = 0

    async def start(self) -> None:
        await self.backend.start(self.sink)
        self.server = await self.backend.register("test")

    async def added(self, reference: str) -> int:
        return await self.backend.add_item(self.server, reference)

    async def advised(self, reference: str) -> int:
        """Add and advise an item, wait for its first value, and forget the events until then."""
        item = await self.added(reference)
        await self.backend.advise(self.server, item)
        await self.value(item)
        self.sink.take()
        return item

    def of(self, item: int) -> list[Recorded]:
        return [event for event in self.sink.events if event.item == item]

    async def event(self, wanted: Callable[[Recorded], bool]) -> Recorded:
        """Wait for an event, and return the first one."""
        await until(lambda: any(wanted(event) for event in self.sink.events))
        return next(event for event in self.sink.events if wanted(event))

    async def value(self, item: int) -> Recorded:
        """Wait for a data change of the item that is not initialising."""
        return await self.event(
            lambda event: event.kind == "data_change" and event.item == item and event.category != 1
        )

    async def completion(self, item: int) -> Recorded:
        return await self.event(lambda event: event.kind == "write_complete" and event.item == item)

    async def operation(self, item: int) -> Recorded:
        return await self.event(lambda event: event.kind == "operation_complete" and event.item == item)

    async def written(self, item: int, value: object) -> Recorded:
        """Write, and return the completion."""
        converted: PyValue = value  # type: ignore[assignment]
        await self.backend.write(self.server, item, to_value(converted), 0)
        return await self.completion(item)

    def forget_completions(self) -> None:
        self.sink.events = [event for event in self.sink.events if event.kind != "write_complete"]

    async def buffered(self, item: int) -> AsyncIterator[Recorded]:
        """Yield the buffered data changes of the item that have values."""
        while True:
            event = await self.event(lambda event: event.kind == "buffered_data_change" and event.item == item)
            self.sink.events.remove(event)
            if event.value is not None:
                yield event


def missing(name: str) -> str:
    """Return "" when this source can be used here, otherwise why not."""
    if name == "com double" and com_double.VARIABLE not in os.environ:
        return "the double of the COM object runs in Windows: python scripts/windows/run_tests.py tests/worker/mxaccess"
    return ""


def _sim() -> Backend:
    return SimBackend(_SIM)


def _python_double() -> Backend:
    return DoubledBackend(_OPTIONS, _SIM).backend


def _com_double() -> Backend:
    for name, value in _COM.items():
        os.environ[f"LMXDOUBLE_{name}"] = value
    register()
    return MxAccessBackend(_OPTIONS)


def register() -> None:
    """Register the double of the COM object in this Windows."""
    library = getattr(ctypes, "OleDLL")(os.environ[com_double.VARIABLE])  # noqa: B009  only Windows has it
    library.DllRegisterServer()


_MAKERS: dict[str, Callable[[], Backend]] = {
    "sim": _sim,
    "python double": _python_double,
    "com double": _com_double,
}
