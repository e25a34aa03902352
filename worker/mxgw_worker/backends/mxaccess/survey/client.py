"""A client of MXAccess' object for the survey: calls are timed and bounded, only the scratch object is written."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

from mxgw.convert import PyValue, to_value
from mxgw.v1.values_pb2 import MxValue
from mxgw_worker.backends.base import MxError
from mxgw_worker.backends.mxaccess.apartment import Apartment
from mxgw_worker.backends.mxaccess.com import Com, Pump
from mxgw_worker.backends.mxaccess.errors import shown
from mxgw_worker.backends.mxaccess.survey.recording import (
    DATA_CHANGE,
    OPERATION_COMPLETE,
    WRITE_COMPLETE,
    Recorder,
    Seen,
)
from mxgw_worker.backends.mxaccess.variant_layout import Status

CLIENT_NAME = "mxgw doctor"


class Hung(Exception):
    """A call of the object has not returned in time. Nothing but the end of the process ends it."""

    def __init__(self, call: str, seconds: float) -> None:
        super().__init__(f"MXAccess has not returned from {call} for {seconds:.0f} s")
        self.call = call


class NotSeen(Exception):
    """A step cannot be made here. The text says why."""


class ObservedCom(Com, Protocol):
    """A COM object that describes itself."""

    def description(self) -> dict[str, object]:
        """Return what the object says of its interfaces and methods."""


@dataclass(frozen=True, slots=True)
class Request:
    """What the survey is asked for.

    Attributes:
        scratch: The tag name of the only object that is written; "" for none.
        tags: References that are only read.
        patience_s: For so long an event that should come is waited for.
        quiet_s: For so long is looked whether an event comes that should not.
        call_limit_s: A call that takes longer counts as hung.
    """

    scratch: str = ""
    tags: Sequence[str] = ()
    patience_s: float = 30.0
    quiet_s: float = 2.0
    call_limit_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Called:
    """How a call ended: its result, or the HRESULT of its failure, what the object said of it, and what mxgw says."""

    method: str
    seconds: float
    result: Any = None
    hresult: int | None = None
    own_words: str = ""
    sentence: str = ""

    def facts(self) -> dict[str, object]:
        """Return the call for the file."""
        facts: dict[str, object] = {"call": self.method, "seconds": round(self.seconds, 4)}
        if self.hresult is None:
            return facts if self.result is None else {**facts, "result": self.result}
        return {**facts, "hresult": shown(self.hresult), "text": self.own_words, "mxgw_says": self.sentence}

    @property
    def outcome(self) -> str:
        """The outcome in a few words."""
        if self.hresult is None:
            return "succeeds" if self.result is None else f"returns {self.result}"
        return f"fails with {shown(self.hresult)}" + (f" ({self.own_words})" if self.own_words else "")


@dataclass(slots=True)
class Item:
    """An item. `start` is the number of the first event that can be its own, `began` when that was."""

    reference: str
    handle: int
    start: int = 0
    began: float = field(default_factory=time.perf_counter)


class Client:
    """The object, one registration with it, and its events."""

    def __init__(self, connect: Callable[[Recorder], Com], pump: Pump, request: Request) -> None:
        self.request = request
        self.recorder = Recorder()
        self.server = 0
        self._connect = connect
        self._apartment = Apartment(pump, "mxaccess")
        self._com: Com | None = None

    # Its life.

    async def start(self) -> Called:
        """Make the object, and return how long that took.

        Raises:
            BackendUnavailable: it cannot be made.
            OSError: there is no apartment for it.
        """
        began = time.perf_counter()
        async with self._bounded():
            self._com = await self._apartment.start(lambda: self._connect(self.recorder), "the object's creation")
        return Called("CoCreateInstance", time.perf_counter() - began)

    async def register(self) -> Called:
        """Register, and keep the server handle when there is one."""
        called = await self.call("Register", self.com.register, CLIENT_NAME)
        if called.hresult is None:
            self.server = called.result
        return called

    async def end(self, timeout_s: float = 3.0) -> None:
        """Unregister and release the object. What takes longer is left to the end of the process."""
        if self._com is not None:
            com, server, self._com = self._com, self.server, None

            def release() -> None:
                try:
                    if server:
                        com.unregister(server)
                except MxError:
                    pass
                finally:
                    com.release()

            self._apartment.call("its release", release)
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._apartment.end()

    @property
    def com(self) -> Com:
        """The object.

        Raises:
            NotSeen: it could not be made.
        """
        if self._com is None:
            raise NotSeen("there is no object")
        return self._com

    async def description(self) -> dict[str, object]:
        """Return what the object says of itself; only its version where it is no COM object."""
        facts: dict[str, object] = {"version": self.com.version}
        if hasattr(self.com, "description"):
            observed = cast("ObservedCom", self.com)
            async with self._bounded():
                facts |= await self._apartment.call("its description", observed.description)
        return facts

    # Calls.

    async def call(self, method: str, function: Callable[..., Any], *arguments: object) -> Called:
        """Make a call of the object.

        Raises:
            Hung: it has not returned in time.
        """
        words = len(self.recorder.words)
        began = time.perf_counter()

        def timed() -> tuple[float, Any]:
            start = time.perf_counter()
            result = function(*arguments)
            return time.perf_counter() - start, result

        try:
            async with self._bounded():
                seconds, result = await self._apartment.call(method, timed)
        except MxError as error:
            said = [text for _, _, text in self.recorder.words[words:]]
            return Called(
                method, time.perf_counter() - began, None, error.hresult, said[-1] if said else "", error.message
            )
        return Called(method, seconds, result)

    @asynccontextmanager
    async def _bounded(self) -> AsyncIterator[None]:
        """Raise Hung when the block has not ended within the limit of a call."""
        try:
            async with asyncio.timeout(self.request.call_limit_s):
                yield
        except TimeoutError:
            self.check_busy(0)
            raise

    def check_busy(self, longest_s: float) -> None:
        """Do nothing when the object is not in a call, or has not been in one for so long.

        Raises:
            Hung: it has.
        """
        busy = self._apartment.busy
        if busy is not None and (seconds := time.perf_counter() - busy.since) > longest_s:
            raise Hung(busy.what, seconds)

    async def add(self, reference: str, method: str = "AddItem", context: str = "") -> tuple[Called, Item]:
        """Add an item. Its handle is 0 when that fails."""
        com, start = self.com, len(self.recorder.events)
        match method:
            case "AddItem":
                called = await self.call(method, com.add_item, self.server, reference)
            case "AddItem2":
                called = await self.call(method, com.add_item2, self.server, reference, context)
            case _:
                called = await self.call(method, com.add_buffered_item, self.server, reference, context)
        return called, Item(reference, called.result or 0, start)

    async def advise(self, item: Item, *, supervisory: bool = False) -> Called:
        """Advise an item. Its events count from here on."""
        item.start, item.began = len(self.recorder.events), time.perf_counter()
        method = "AdviseSupervisory" if supervisory else "Advise"
        function = self.com.advise_supervisory if supervisory else self.com.advise
        return await self.call(method, function, self.server, item.handle)

    async def advised(self, reference: str) -> tuple[Item, Seen]:
        """Add and advise an item, and wait for its first value.

        Raises:
            NotSeen: it has none; the text says why.
        """
        called, item = await self.add(reference)
        if called.hresult is None:
            called = await self.advise(item)
        if called.hresult is not None:
            raise NotSeen(f"{called.method} of {reference} {called.outcome}")
        first = await self.value(item)
        if first is None:
            await self.remove(item)
            raise NotSeen(f"{reference} has reported nothing for {self.request.patience_s:g} s")
        if is_failure(first):
            await self.remove(item)
            raise NotSeen(f"{reference} fails with {status_text(first)}")
        return item, first

    async def remove(self, item: Item) -> Sequence[Called]:
        """Un-advise and remove an item."""
        com = self.com
        return (
            await self.call("UnAdvise", com.un_advise, self.server, item.handle),
            await self.call("RemoveItem", com.remove_item, self.server, item.handle),
        )

    async def write(self, item: Item, value: PyValue | MxValue, time_ns: int | None = None) -> Called:
        """Write to an attribute of the scratch object; with a time that is not None, by Write2.

        Raises:
            PermissionError: the item is of another object.
        """
        scratch = self.request.scratch
        if not scratch or not item.reference.lower().startswith(f"{scratch.lower()}."):
            raise PermissionError(f"{item.reference} is not of the scratch object, and is not written")
        message = value if isinstance(value, MxValue) else to_value(value)
        com = self.com
        if time_ns is None:
            return await self.call("Write", com.write, self.server, item.handle, message, 0)
        return await self.call("Write2", com.write2, self.server, item.handle, message, time_ns, 0)

    # Events.

    def count(self) -> int:
        """Return the number of events so far."""
        return len(self.recorder.events)

    def of(self, item: Item, start: int | None = None) -> Sequence[Seen]:
        """Return the events of an item, since it was advised or from number `start` on."""
        events = self.recorder.events[item.start if start is None else start :]
        return [seen for seen in events if (seen.server, seen.item) == (self.server, item.handle)]

    async def event(self, item: Item, kind: str, start: int | None = None) -> Seen | None:
        """Return the first event of this kind, or None when none comes in time."""
        return await self._first(item, lambda seen: seen.kind == kind, start)

    async def value(self, item: Item, start: int | None = None) -> Seen | None:
        """Return the first data change that is not pending, or None when none comes in time."""
        return await self._first(item, lambda seen: seen.kind == DATA_CHANGE and not seen.is_pending, start)

    async def completion(self, item: Item, start: int) -> Seen | None:
        """Return the completion of a write that was made when there were `start` events; None when there is none."""
        return await self.event(item, WRITE_COMPLETE, start)

    async def operation(self, item: Item, start: int) -> Seen | None:
        """Return the completion of a suspend or activate, as above."""
        return await self.event(item, OPERATION_COMPLETE, start)

    async def _first(self, item: Item, wanted: Callable[[Seen], bool], start: int | None) -> Seen | None:
        key = (self.server, item.handle)
        seen = await self.recorder.first(
            lambda seen: (seen.server, seen.item) == key and wanted(seen),
            self.request.patience_s,
            item.start if start is None else start,
        )
        if seen is None:
            self.check_busy(self.request.patience_s / 2)
        return seen

    async def quiet(self) -> None:
        """Wait for as long as is looked for events that should not come."""
        await asyncio.sleep(self.request.quiet_s)


def is_failure(seen: Seen) -> bool:
    """Return whether the event reports a failure."""
    return any(success == 0 for success, _, _, _ in seen.statuses) or bool(seen.problem)


def status_text(seen: Seen) -> str:
    """Return the statuses of an event in a few words."""
    if seen.problem:
        return seen.problem
    return "; ".join(map(_status_text, seen.statuses)) or "no status"


def _status_text(status: Status) -> str:
    success, category, detected_by, detail = status
    if success and not category and not detail:
        return "ok"
    return f"success {success}, category {category}, detected by {detected_by}, detail {detail}"
