"""Attributes of simulated objects, the items that watch them, and the handles of servers and items."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from typing import Generic, Protocol, TypeVar

from mxgw.convert import PyValue
from mxgw.v1.values_pb2 import MxValue
from mxgw_worker.backends.base import E_INVALIDARG, MxError
from mxgw_worker.backends.sim.coerce import Scalar, Value, coerce, coerce_array, encode
from mxgw_worker.backends.sim.references import WHOLE_ARRAY
from mxgw_worker.backends.sim.status import GOOD, DataType, Detail, Refused, Security
from mxgw_worker.backends.sim.timers import Timer


class ChangeListener(Protocol):
    """Is called when an attribute changes. The emitter implements it, and makes events of changes."""

    def changed(self, item: Item) -> None:
        """The attribute of this advised item may have changed."""


class Attribute:
    """One attribute. `value` is a tuple for arrays; `time_ns` is when value or quality last changed (UTC)."""

    __slots__ = (
        "_encoded",
        "acknowledges",
        "answers_pending",
        "data_type",
        "description",
        "high",
        "immune",
        "is_array",
        "low",
        "name",
        "names",
        "object_name",
        "on_change",
        "quality",
        "security",
        "time_ns",
        "value",
        "vet",
        "watchers",
        "writeable",
        "written",
    )

    def __init__(
        self,
        name: str,
        data_type: DataType,
        value: Value,
        description: str = "",
        *,
        security: Security = Security.VIEW_ONLY,
        writeable: bool = False,
        low: float | None = None,
        high: float | None = None,
        names: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.object_name = ""
        self.data_type = data_type
        self.is_array = isinstance(value, tuple)
        self.value = value
        self.quality = GOOD
        self.time_ns = 0
        self.description = description
        self.security = security
        # False for what the object alone sets (MxAttributeCategory Calculated, SystemSetsOnly, Constant).
        self.writeable = writeable
        self.low = low
        self.high = high
        self.names = names
        # True when a write is answered "accepted, still pending" (docs/reference/mxaccess.md#statuses), as by an object
        # that is off scan.
        self.answers_pending = False
        # True when writing it acknowledges an alarm, which is a privilege of its own.
        self.acknowledges = False
        # True for what stays reachable while the platform is down: the simulator's own controls.
        self.immune = False
        self.vet: Callable[[Value], Detail | None] | None = None
        self.written: Callable[[Value], None] | None = None
        self.on_change: Callable[[int], None] | None = None
        self.watchers: dict[Item, ChangeListener] = {}
        self._encoded: MxValue | None = None

    @property
    def reference(self) -> str:
        """The reference of the attribute, for AddItem."""
        return f"{self.object_name}.{self.name}{'[]' if self.is_array else ''}"

    def attach(self, item: Item, listener: ChangeListener) -> None:
        """Report every later change to `listener`, and the present value at once."""
        self.watchers[item] = listener
        listener.changed(item)

    def detach(self, item: Item) -> None:
        """Report nothing more to this item; harmless when it is not attached."""
        self.watchers.pop(item, None)

    def set(self, value: Value, time_ns: int, quality: int = GOOD) -> None:
        """Take a new value; nothing happens when neither value nor quality differ."""
        if value == self.value and quality == self.quality:
            return
        self.value = value
        self.quality = quality
        self.time_ns = time_ns
        self._encoded = None
        if self.on_change is not None:
            self.on_change(time_ns)
        for item, listener in tuple(self.watchers.items()):
            listener.changed(item)

    def at(self, index: int | None) -> Value:
        """Return what a reference with this index shows.

        Raises:
            Refused: the array has no such element (1003); it may have been resized since the item was bound.
        """
        if index is None or index == WHOLE_ARRAY:
            return self.value
        assert isinstance(self.value, tuple)  # the galaxy binds an index to arrays only
        if index > len(self.value):
            raise Refused(Detail.INDEX_OUT_OF_RANGE)
        return self.value[index - 1]

    def encoded(self, index: int | None) -> MxValue:
        """Return the message of `at(index)`; the caller must not change it.

        Raises:
            Refused: as `at`.
        """
        if index:
            return encode(self.at(index), self.data_type)
        if self._encoded is None:
            self._encoded = encode(self.value, self.data_type)
        return self._encoded

    def accept(self, index: int | None, value: PyValue) -> Value:
        """Return the attribute's value after writing `value` through a reference with this index, changing nothing.

        Writing a whole array changes its length to that of the new value (docs/reference/mxaccess.md#references).

        Raises:
            Refused: the value does not fit the attribute.
        """
        result: Value
        if index:
            element = coerce(value, self.data_type, self.names)
            self._check_range(element)
            self.at(index)
            assert isinstance(self.value, tuple)  # `at` has looked
            result = (*self.value[: index - 1], element, *self.value[index:])
        elif self.is_array:
            result = coerce_array(value, self.data_type, self.names)
            for element in result:
                self._check_range(element)
        else:
            result = coerce(value, self.data_type, self.names)
            self._check_range(result)
        if self.vet is not None and (detail := self.vet(result)) is not None:
            raise Refused(detail)
        return result

    def _check_range(self, value: Value) -> None:
        if self.low is None and self.high is None:
            return
        assert isinstance(value, int | float)  # only numbers have limits
        if not (self.low is None or value >= self.low) or not (self.high is None or value <= self.high):
            raise Refused(Detail.DATA_OUT_OF_RANGE)


T = TypeVar("T")


class Handles(Generic[T]):
    """Hands out the smallest free number from 1: a handle comes back soon after its release.

    Source: docs/reference/mxaccess.md#handles.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._used: dict[int, T] = {}
        self._free: list[int] = []

    def put(self, thing: T) -> int:
        """Return the handle `thing` now has."""
        handle = heappop(self._free) if self._free else len(self._used) + 1
        self._used[handle] = thing
        return handle

    def get(self, handle: int) -> T:
        """Return what the handle stands for.

        Raises:
            MxError: it stands for nothing (E_INVALIDARG).
        """
        try:
            return self._used[handle]
        except KeyError:
            raise MxError(E_INVALIDARG, f"{self._what} handle {handle} is not in use") from None

    def pop(self, handle: int) -> T:
        """Return what the handle stood for, and free it.

        Raises:
            MxError: as `get`.
        """
        thing = self.get(handle)
        del self._used[handle]
        heappush(self._free, handle)
        return thing

    def all(self) -> list[T]:
        """Return everything that has a handle, oldest first."""
        return list(self._used.values())


class Server:
    """One Register call: its items, and how often its buffered items report."""

    def __init__(self, handle: int, client_name: str, buffered_interval_s: float) -> None:
        self.handle = handle
        self.client_name = client_name
        self.items: Handles[Item] = Handles("item")
        self.buffered_interval_s = buffered_interval_s
        # Runs while the server has buffered items on advise; the emitter renews it and lets it end.
        self.buffer_timer: Timer | None = None


class Item:
    """One AddItem call and all that is known of it. Compared and hashed by identity."""

    __slots__ = (
        "advised",
        "attribute",
        "base",
        "context",
        "count",
        "definition",
        "generation",
        "handle",
        "index",
        "last",
        "samples",
        "server",
        "supervisory",
        "suspended",
    )

    def __init__(self, server: Server, definition: str, context: str = "", *, buffered: bool = False) -> None:
        self.server = server
        self.handle = 0
        self.definition = definition
        self.context = context
        # Samples not sent yet; None for an item that is not buffered.
        self.samples: list[tuple[Scalar | tuple[Scalar, ...], int, int]] | None = [] if buffered else None
        self.advised = False
        self.supervisory = False
        self.suspended = False
        # Counts UnAdvise and RemoveItem: calls that were scheduled under an older number are ignored.
        self.generation = 0
        # Known once the reference is resolved; until then there is no type, and writes are refused.
        self.attribute: Attribute | None = None
        self.index: int | None = None
        # The value or failure that was reported last; None when the next one must be reported whatever it is.
        self.last: tuple[Value, int] | Detail | None = None
        # Used by the `load` profile alone: its number there, as values carry it, and the values since Advise.
        self.base = 0.0
        self.count = 0
