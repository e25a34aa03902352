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
    """Gets the changes of attributes. The emitter implements this protocol, and makes events of the changes."""

    def changed(self, item: Item) -> None:
        """Handle a possible change of the value or the quality of this item's attribute."""


class Attribute:
    """One attribute of an object. `value` is a tuple for an array. `time_ns` is the time of the last change of value or
    quality (ns since 1970, UTC).
    """

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
        # False for an attribute that only the object itself sets (MxAttributeCategory Calculated, SystemSetsOnly,
        # Constant).
        self.writeable = writeable
        self.low = low
        self.high = high
        self.names = names
        # True when a write is answered with "accepted, still pending" (docs/reference/mxaccess.md#statuses). An object
        # that is off scan answers like this.
        self.answers_pending = False
        # True when a write to this attribute acknowledges an alarm. For this a user needs a special permission.
        self.acknowledges = False
        # True for the simulator's own controls, which stay reachable while the platform is down.
        self.immune = False
        self.vet: Callable[[Value], Detail | None] | None = None
        self.written: Callable[[Value], None] | None = None
        self.on_change: Callable[[int], None] | None = None
        self.watchers: dict[Item, ChangeListener] = {}
        self._encoded: MxValue | None = None

    @property
    def reference(self) -> str:
        """The reference that AddItem takes for this attribute."""
        return f"{self.object_name}.{self.name}{'[]' if self.is_array else ''}"

    def attach(self, item: Item, listener: ChangeListener) -> None:
        """Report the present value to `listener` at once, and every later change."""
        self.watchers[item] = listener
        listener.changed(item)

    def detach(self, item: Item) -> None:
        """Stop reporting to this item. Nothing happens when the item is not attached."""
        self.watchers.pop(item, None)

    def set(self, value: Value, time_ns: int, quality: int = GOOD) -> None:
        """Set the value and the quality. Nothing happens when both are unchanged."""
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
        """Return the value that a reference with this index means: one element, or the whole value.

        Raises:
            Refused: the array has no such element (detail 1003). The array can have become shorter since the item was
                bound.
        """
        if index is None or index == WHOLE_ARRAY:
            return self.value
        assert isinstance(self.value, tuple)  # The galaxy binds an index only to an array.
        if index > len(self.value):
            raise Refused(Detail.INDEX_OUT_OF_RANGE)
        return self.value[index - 1]

    def encoded(self, index: int | None) -> MxValue:
        """Return the value of `at(index)` as a message. The caller must not change the message.

        Raises:
            Refused: as `at`.
        """
        if index:
            return encode(self.at(index), self.data_type)
        if self._encoded is None:
            self._encoded = encode(self.value, self.data_type)
        return self._encoded

    def accept(self, index: int | None, value: PyValue) -> Value:
        """Return the value that the attribute would get by a write of `value` through a reference with this index.
        Nothing is changed.

        A write of a whole array also sets the length of the array (docs/reference/mxaccess.md#references).

        Raises:
            Refused: the value does not fit the attribute.
        """
        result: Value
        if index:
            element = coerce(value, self.data_type, self.names)
            self._check_range(element)
            self.at(index)
            assert isinstance(self.value, tuple)  # `at` has checked that the value is an array.
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
        assert isinstance(value, int | float)  # Only numbers have limits.
        if not (self.low is None or value >= self.low) or not (self.high is None or value <= self.high):
            raise Refused(Detail.DATA_OUT_OF_RANGE)


T = TypeVar("T")


class Handles(Generic[T]):
    """Gives out handles. The next handle is always the smallest free number from 1, so a released handle is soon used
    again.

    Source: docs/reference/mxaccess.md#handles.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._used: dict[int, T] = {}
        self._free: list[int] = []

    def put(self, thing: T) -> int:
        """Give `thing` a handle, and return the handle."""
        handle = heappop(self._free) if self._free else len(self._used) + 1
        self._used[handle] = thing
        return handle

    def get(self, handle: int) -> T:
        """Return the object that has this handle.

        Raises:
            MxError: no object has this handle (E_INVALIDARG).
        """
        try:
            return self._used[handle]
        except KeyError:
            raise MxError(E_INVALIDARG, f"{self._what} handle {handle} is not in use") from None

    def pop(self, handle: int) -> T:
        """Return the object that has this handle, and free the handle.

        Raises:
            MxError: as `get`.
        """
        thing = self.get(handle)
        del self._used[handle]
        heappush(self._free, handle)
        return thing

    def all(self) -> list[T]:
        """Return all objects that have a handle, oldest first."""
        return list(self._used.values())


class Server:
    """The result of one Register call: its items, and the interval of its buffered items."""

    def __init__(self, handle: int, client_name: str, buffered_interval_s: float) -> None:
        self.handle = handle
        self.client_name = client_name
        self.items: Handles[Item] = Handles("item")
        self.buffered_interval_s = buffered_interval_s
        # The timer of the next report of buffered items. It runs while at least one buffered item is advised.
        self.buffer_timer: Timer | None = None


class Item:
    """The result of one AddItem call, with its state. Items are compared and hashed by identity."""

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
        # Samples (value, quality, time) that were not sent yet. None for an item that is not buffered.
        self.samples: list[tuple[Scalar | tuple[Scalar, ...], int, int]] | None = [] if buffered else None
        self.advised = False
        self.supervisory = False
        self.suspended = False
        # How often UnAdvise or RemoveItem was called for this item. A timer call for the item is ignored when this
        # number has changed since the timer was set.
        self.generation = 0
        # The attribute and the index that the reference means. Both are None until the reference is resolved. Until
        # then the item has no type, and writes to it are refused.
        self.attribute: Attribute | None = None
        self.index: int | None = None
        # The value and quality, or the failure, that was reported last. None means that the next one must be reported
        # in any case.
        self.last: tuple[Value, int] | Detail | None = None
        # `base` and `count` are used only by the profile `load`. `base` is the number of the item times 2**32, and
        # `count` is the number of values since Advise.
        self.base = 0.0
        self.count = 0
