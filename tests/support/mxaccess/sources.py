"""The sources that behave as MXAccess does, one interface for all of them: the doubles, and MXAccess itself.

Tests name the object `Bench_001`. In a Galaxy this is the scratch object, whose values are put back after each test.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

import pytest

from mxgw.convert import PyValue, to_value
from mxgw_worker.backends.base import Backend, MxError
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
GALAXY = "galaxy"
# The tag name of the object that tests may write to in a Galaxy.
SCRATCH_VARIABLE = "MXGWTEST_SCRATCH"
_BENCH = "Bench_001"
# Attributes of the scratch object that cannot be put back, because they cannot be written so.
_FIXED = ("Constant", "ViewOnly", "SecuredWrite", "VerifiedWrite")


class Source:
    """A started backend with one registered client."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.sink = RecordingSink()
        self.backend: Backend = _MAKERS[name]()
        self.server = 0
        self._scratch = os.environ.get(SCRATCH_VARIABLE, "") if name == GALAXY else _BENCH
        # Key: item handle of an attribute of the scratch object. Value: its value before the test wrote to it.
        self._before: dict[int, Recorded] = {}

    async def start(self) -> None:
        await self.backend.start(self.sink)
        self.server = await self.backend.register("test")

    async def stop(self) -> None:
        """Put back what was written in a Galaxy, and stop."""
        for item, before in self._before.items() if self.name == GALAXY else ():
            self.sink.take()
            with suppress(MxError):  # the test has failed before the item could be written again
                await self.written(item, before.value)
        await self.backend.stop()

    def reference(self, reference: str) -> str:
        """Return what the reference of a test is in this source."""
        tag_name, dot, attribute = reference.partition(".")
        if tag_name.lower() != _BENCH.lower():
            return reference
        return f"{self._scratch if tag_name == _BENCH else self._scratch.swapcase()}{dot}{attribute}"

    async def added(self, reference: str) -> int:
        if self.name == GALAXY and reference.startswith("Sim."):
            pytest.skip("a Galaxy has no switches that make it misbehave")
        return await self.backend.add_item(self.server, self.reference(reference))

    async def advised(self, reference: str) -> int:
        """Add and advise an item, wait for its first value, and forget the events until then."""
        item = await self.added(reference)
        await self.backend.advise(self.server, item)
        first = await self.value(item)
        if self.name == GALAXY and not first.success:
            pytest.skip(f"{self.reference(reference)} fails with detail {first.detail}: the scratch object lacks it")
        if not reference.endswith(_FIXED):
            self._before[item] = first
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
    if name == GALAXY and (sys.platform != "win32" or sys.maxsize > 2**32 or SCRATCH_VARIABLE not in os.environ):
        return (
            f"needs MXAccess, a 32-bit Windows Python, and an object to write to, named by {SCRATCH_VARIABLE}:"
            " docs/development.md, Tests on MXAccess itself"
        )
    if name == "com double" and com_double.VARIABLE not in os.environ:
        return "the double of the COM object runs in Windows: python scripts/windows/run_tests.py tests/worker/mxaccess"
    return ""


def _sim() -> Backend:
    return SimBackend(_SIM)


def _python_double() -> Backend:
    return DoubledBackend(_OPTIONS, _SIM).backend


def _galaxy() -> Backend:
    return MxAccessBackend({})


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
    GALAXY: _galaxy,
}
