"""What the backend needs of MXAccess' COM object: its 18 methods and 4 events, with plain values.

`windows/lmx_proxy.py` implements it on the object itself. Everything else in this package works on any system, with
anything that behaves like this.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

from mxgw.v1.values_pb2 import MxValue
from mxgw_worker.backends.mxaccess.variant_layout import Status

Statuses: TypeAlias = tuple[Status, ...]


class ComEvents(Protocol):
    """Receives the events of the object, in the thread of its apartment. No call blocks or raises."""

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
        """Report OnDataChange. `time_ns` is in nanoseconds since 1970 (UTC), None when it is no time; `raw_time` is the
        text of the time when there is one.
        """

    def write_complete(self, server_handle: int, item_handle: int, statuses: Statuses) -> None:
        """Report OnWriteComplete."""

    def operation_complete(self, server_handle: int, item_handle: int, statuses: Statuses) -> None:
        """Report OperationComplete."""

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
        """Report OnBufferedDataChange. `data_type` is the native MxDataType number."""

    def unreadable(self, event: str, reason: str) -> None:
        """Report that an event, named as in MXAccess, could not be read, and is lost."""


class Com(Protocol):
    """MXAccess' object. Every call is made in the thread of its apartment, and can block without a limit.

    Arguments and results are those of docs/reference/mxaccess.md#methods. Times are in nanoseconds since 1970 (UTC);
    None is now. Methods raise MxError with the HRESULT of the call.
    """

    @property
    def version(self) -> int:
        """The number of the newest interface that the object has, 1 to 5. A method of a newer one gets E_NOTIMPL."""

    def register(self, client_name: str) -> int: ...
    def unregister(self, server_handle: int) -> None: ...
    def add_item(self, server_handle: int, item_definition: str) -> int: ...
    def add_item2(self, server_handle: int, item_definition: str, item_context: str) -> int: ...
    def add_buffered_item(self, server_handle: int, item_definition: str, item_context: str) -> int: ...
    def remove_item(self, server_handle: int, item_handle: int) -> None: ...
    def advise(self, server_handle: int, item_handle: int) -> None: ...
    def advise_supervisory(self, server_handle: int, item_handle: int) -> None: ...
    def un_advise(self, server_handle: int, item_handle: int) -> None: ...
    def write(self, server_handle: int, item_handle: int, value: MxValue, user_id: int) -> None: ...
    def write2(
        self, server_handle: int, item_handle: int, value: MxValue, time_ns: int | None, user_id: int
    ) -> None: ...
    def write_secured(
        self, server_handle: int, item_handle: int, current_user_id: int, verifier_user_id: int, value: MxValue
    ) -> None: ...
    def write_secured2(
        self,
        server_handle: int,
        item_handle: int,
        current_user_id: int,
        verifier_user_id: int,
        value: MxValue,
        time_ns: int | None,
    ) -> None: ...
    def authenticate_user(self, server_handle: int, user: str, password: str) -> int: ...
    def archestra_user_to_id(self, server_handle: int, user_guid: str) -> int: ...
    def suspend(self, server_handle: int, item_handle: int) -> Status: ...
    def activate(self, server_handle: int, item_handle: int) -> Status: ...
    def set_buffered_update_interval(self, server_handle: int, interval_ms: int) -> None: ...

    def release(self) -> None:
        """End the events and release the object. Nothing is called afterwards."""


class Pump(Protocol):
    """What the thread of an apartment waits with, and delivers events with. `wake` is called in any thread, the other
    methods in that of the apartment.
    """

    def enter(self) -> None:
        """Make this thread an apartment."""

    def wait(self) -> None:
        """Wait until `wake` is called, or there is something to dispatch."""

    def dispatch(self, most: int) -> bool:
        """Deliver at most so many messages, each of which can be one event or many, and none any more after a while;
        return whether more are waiting.
        """

    def wake(self) -> None:
        """End the present `wait`, or the next one."""

    def leave(self) -> None:
        """End the apartment of this thread."""


# Makes the object in the thread of its apartment. Raises BackendUnavailable when it cannot be made.
Connect: TypeAlias = Callable[[ComEvents], Com]
