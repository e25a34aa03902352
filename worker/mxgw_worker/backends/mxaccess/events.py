"""Brings the events of the object from its apartment to the event loop, in their order."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import lru_cache

from mxgw.convert import status
from mxgw.v1.events_pb2 import GAP_REASON_SOURCE_OVERFLOW
from mxgw.v1.values_pb2 import MxStatus, MxValue
from mxgw_worker.backends.base import E_FAIL, EventSink, MxError
from mxgw_worker.backends.mxaccess.apartment import Apartment
from mxgw_worker.backends.mxaccess.com import Com, Statuses

Key = tuple[int, int]
# Gets item handle, value, quality and statuses, in the event loop.
Own = Callable[[int, MxValue, int, tuple[MxStatus, ...]], None]

# So many data changes can wait for the event loop; what is more is a gap. It is what an apartment passes on in about
# ten seconds: 9,000 to 11,000 events per second, measured with the double of the COM object in Wine on two busy cores.
MOST_WAITING = 100_000
# So many bytes of values can wait: large arrays fill the address space of a 32-bit process long before their number
# does. In memory a value takes several times its encoded size.
MOST_WAITING_BYTES = 64 * 1024 * 1024
# After so many events the event loop does other work first.
_EVENTS_PER_TURN = 500


class _Gap:
    """Events that were lost one after the other, for one reason."""

    def __init__(self, detail: str) -> None:
        self.detail = detail
        self.count = 1


class Events:
    """Implements `ComEvents` on the side of the apartment, and calls the sink on the side of the event loop.

    Nothing of an item is passed on after it was removed, and no data change after it was unadvised: its handle can be
    another item's already.
    """

    def __init__(
        self,
        sink: EventSink,
        apartment: Apartment,
        most_waiting: int = MOST_WAITING,
        most_waiting_bytes: int = MOST_WAITING_BYTES,
    ) -> None:
        # Of the apartment: the server handles and items that exist, and the items that are advised.
        self.servers: set[int] = set()
        self.items: set[Key] = set()
        self.advised: set[Key] = set()
        # Who receives the data changes under server handles of the backend's own.
        self.own: dict[int, Own] = {}
        self._sink = sink
        self._apartment = apartment
        self._most_waiting = most_waiting
        self._most_waiting_bytes = most_waiting_bytes
        # Each with the size of its value.
        self._waiting: deque[tuple[int, Callable[[], None]]] = deque()
        # The bytes of all values until now: each is counted by one thread only, so neither needs a lock.
        self._put_bytes = 0
        self._taken_bytes = 0
        # The gap that is the last of what waits; the next loss is counted in it when it has the same reason.
        self._gap: _Gap | None = None
        self._counting = threading.Lock()
        self._is_scheduled = False
        self._is_closed = False

    def data_change(
        self,
        server_handle: int,
        item_handle: int,
        value: MxValue,
        quality: int,
        time_ns: int | None,
        raw_time: str,
        statuses: Statuses,
    ) -> None:
        """See `ComEvents.data_change`."""
        own = self.own.get(server_handle)
        if own is not None:
            self._put(lambda: own(item_handle, value, quality, _messages(statuses)))
        elif (server_handle, item_handle) in self.advised and self._has_room():
            self._put(
                lambda: self._sink.data_change(
                    server_handle, item_handle, value, quality, time_ns, _messages(statuses), raw_time
                ),
                value.ByteSize(),
            )

    def write_complete(self, server_handle: int, item_handle: int, statuses: Statuses) -> None:
        """See `ComEvents.write_complete`."""
        if (server_handle, item_handle) in self.items:
            self._put(lambda: self._sink.write_complete(server_handle, item_handle, _messages(statuses)))

    def operation_complete(self, server_handle: int, item_handle: int, statuses: Statuses) -> None:
        """See `ComEvents.operation_complete`."""
        if (server_handle, item_handle) in self.items:
            self._put(lambda: self._sink.operation_complete(server_handle, item_handle, _messages(statuses)))

    def buffered_data_change(
        self,
        server_handle: int,
        item_handle: int,
        data_type: int,
        value: MxValue,
        qualities: Sequence[int],
        times_ns: Sequence[int],
        statuses: Statuses,
    ) -> None:
        """See `ComEvents.buffered_data_change`."""
        if (server_handle, item_handle) in self.advised and self._has_room():
            self._put(
                lambda: self._sink.buffered_data_change(
                    server_handle, item_handle, data_type, value, qualities, times_ns, _messages(statuses)
                ),
                value.ByteSize(),
            )

    def unreadable(self, event: str, reason: str) -> None:
        """See `ComEvents.unreadable`."""
        if self._has_room():
            self._lose(f"an {event} of MXAccess could not be read: {reason}")

    def own_server(self, com: Com, client_name: str, receive: Own) -> int:
        """Register with the object for the backend itself, and return the server handle. Call this in the apartment.

        Raises:
            MxError: as `Com.register`; or E_FAIL, the handle is in use.
        """
        handle = com.register(client_name)
        if handle in self.servers:
            raise MxError(E_FAIL, f"MXAccess returned the server handle {handle} a second time")
        # Before an item is advised under it.
        self.own[handle] = receive
        self.servers.add(handle)
        return handle

    async def deliver(self) -> None:
        """Pass on everything that waits now. Call this in the event loop, which does other work in between."""
        left = len(self._waiting)
        while left > 0 and self._waiting:
            for _ in range(min(left, _EVENTS_PER_TURN, len(self._waiting))):
                self._deliver_one()
            left -= _EVENTS_PER_TURN
            if left > 0:
                await asyncio.sleep(0)

    def close(self) -> None:
        """Pass nothing on any more. Call this in the event loop."""
        self._is_closed = True
        self._waiting.clear()

    def _has_room(self) -> bool:
        if len(self._waiting) >= self._most_waiting:
            self._lose(f"more than {self._most_waiting} events of MXAccess waited for this worker")
            return False
        if self._put_bytes - self._taken_bytes >= self._most_waiting_bytes:
            self._lose(f"more than {self._most_waiting_bytes} bytes of values of MXAccess waited for this worker")
            return False
        return True

    def _lose(self, detail: str) -> None:
        """Count one lost event in the gap at the end of what waits, or put a gap there."""
        with self._counting:
            gap = self._gap
            if gap is not None and gap.detail == detail:
                gap.count += 1
                return
        gap = _Gap(detail)
        self._put(lambda: self._report(gap))
        self._gap = gap

    def _put(self, event: Callable[[], None], size: int = 0) -> None:
        # What is lost after this event has a place of its own, after it.
        self._gap = None
        self._put_bytes += size
        self._waiting.append((size, event))
        if not self._is_scheduled:
            self._is_scheduled = True
            self._apartment.post(self._turn)

    def _turn(self) -> None:
        # Before the events are taken: whoever adds one now, and finds this not set, schedules the next turn.
        self._is_scheduled = False
        for _ in range(_EVENTS_PER_TURN):
            if not self._waiting:
                return
            self._deliver_one()
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _deliver_one(self) -> None:
        size, event = self._waiting.popleft()
        self._taken_bytes += size
        if not self._is_closed:
            event()

    def _report(self, gap: _Gap) -> None:
        with self._counting:
            # Whatever is lost from now on is not counted in this one any more.
            gap.detail, detail = "", gap.detail
        self._sink.source_gap(GAP_REASON_SOURCE_OVERFLOW, detail, gap.count)


@lru_cache(maxsize=256)  # nearly every status is the same
def _messages(statuses: Statuses) -> tuple[MxStatus, ...]:
    return tuple(status(*one) for one in statuses)
