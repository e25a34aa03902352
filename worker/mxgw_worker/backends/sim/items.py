"""Handles: servers (one per Register) and their items. Numbers are small, positive, and given out again."""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Generic, TypeVar

from mxgw_worker.backends.base import E_INVALIDARG, MxError
from mxgw_worker.backends.sim.attributes import Attribute
from mxgw_worker.backends.sim.coerce import Scalar, Value
from mxgw_worker.backends.sim.status import Detail
from mxgw_worker.backends.sim.timers import Timer

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
        # Runs while the server has buffered items on advise; the engine renews it and lets it end.
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
        # Counts UnAdvise and RemoveItem: whatever was scheduled under an older number no longer concerns anybody.
        self.generation = 0
        # Known once the reference is resolved; until then there is no type, and writes are refused.
        self.attribute: Attribute | None = None
        self.index: int | None = None
        # What the client was last told; None when it must hear of the next value whatever it is.
        self.last: tuple[Value, int] | Detail | None = None
        # Used by the `load` profile alone: its number there, as values carry it, and the values since Advise.
        self.base = 0.0
        self.count = 0
