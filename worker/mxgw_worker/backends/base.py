"""The `Backend` protocol, which connects a worker to a source, and the `EventSink`, which receives the events of a
backend.

`Backend` mirrors the 18 methods of LMXProxyServer, and `EventSink` mirrors its 4 events
(docs/reference/mxaccess.md#methods, #events). The worker adds bulk calls, reads, the cache of last values, the pairing
of write completions and the numbering of events. These are therefore the same for every backend.

All methods run in the worker's event loop, and `EventSink` must be called only there. A backend with a thread of its
own (COM needs one) passes its results to the event loop with `loop.call_soon_threadsafe`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from mxgw.v1.alarms_pb2 import Alarm
from mxgw.v1.commands_pb2 import BrowseNode, ItemMetadata, ItemOptions, ItemReference
from mxgw.v1.events_pb2 import GapReason, SourceHealth
from mxgw.v1.values_pb2 import MxStatus, MxValue

# HRESULTs that MXAccess clients know, as signed 32-bit numbers. Source: winerror.h.
S_OK = 0
E_FAIL = -2147467259  # unsigned: 0x80004005
E_NOTIMPL = -2147467263  # unsigned: 0x80004001
E_ACCESSDENIED = -2147024891  # unsigned: 0x80070005
E_INVALIDARG = -2147024809  # unsigned: 0x80070057


class MxError(Exception):
    """A method failed as a COM call fails, with an HRESULT. The client gets an ordinary reply, never a gRPC error."""

    def __init__(self, hresult: int, message: str) -> None:
        super().__init__(message)
        self.hresult = hresult
        self.message = message


class BackendUnavailable(Exception):
    """The backend cannot start, because its options are wrong or its source refuses it. The text says how to fix the
    problem.
    """


@dataclass(frozen=True, slots=True)
class BackendInfo:
    """Describes the backend for people: its kind, its version, and where its data comes from (without credentials)."""

    kind: str
    version: str
    source: str


class EventSink(Protocol):
    """Receives a backend's events, in the order in which they happened. No call blocks or raises."""

    def data_change(
        self,
        server_handle: int,
        item_handle: int,
        value: MxValue,
        quality: int,
        source_time_ns: int | None,
        statuses: Sequence[MxStatus],
        raw_source_time: str = "",
    ) -> None:
        """Report an OnDataChange. `quality` is the raw number. `source_time_ns` is in nanoseconds since 1970 (UTC);
        None means unknown.

        The sink encodes `value` and `statuses` before it returns, so the caller is allowed to reuse these messages.
        """

    def write_complete(self, server_handle: int, item_handle: int, statuses: Sequence[MxStatus]) -> None:
        """Report an OnWriteComplete. It belongs to the oldest write of this item that has no completion yet."""

    def operation_complete(self, server_handle: int, item_handle: int, statuses: Sequence[MxStatus]) -> None:
        """Report an OperationComplete."""

    def buffered_data_change(
        self,
        server_handle: int,
        item_handle: int,
        data_type: int,
        value: MxValue,
        qualities: Sequence[int],
        source_times_ns: Sequence[int],
        statuses: Sequence[MxStatus],
    ) -> None:
        """Report an OnBufferedDataChange. The elements of `value`, the qualities and the times belong together by their
        index. `data_type` is the native MxDataType number.
        """

    def source_gap(self, reason: GapReason.ValueType, detail: str, count: int = 0) -> None:
        """Report that events were lost before the worker could number them. `count` is 0 when their number is not
        known.

        The loss gets the next sequence, so that subscribers see it at its place among the events.
        """

    def source_health(self, health: SourceHealth.ValueType, detail: str) -> None:
        """Report that the source's health has changed. `detail` is a sentence for people."""

    def failed(self, detail: str) -> None:
        """Report that the backend has failed for good. The worker then ends, and its session is faulted."""


class Backend(Protocol):
    """The 18 methods of LMXProxyServer. A method reports a failure as an `MxError`; any other exception is a bug of the
    backend.

    Handles are small positive numbers. `server_handle` is the first argument, as in MXAccess.
    """

    def info(self) -> BackendInfo:
        """Describe the backend. This can be called before `start`."""

    async def start(self, sink: EventSink) -> None:
        """Get ready to serve calls. The backend can send events as soon as this is called.

        Raises:
            BackendUnavailable: the backend cannot start.
        """

    async def stop(self) -> None:
        """Unadvise and remove all items, unregister, and release the source. This takes a bounded time and never
        raises. No event follows.
        """

    async def register(self, client_name: str) -> int:
        """Register a client, and return its server handle."""

    async def unregister(self, server_handle: int) -> None:
        """Release the server handle and every item under it."""

    async def add_item(self, server_handle: int, item_definition: str) -> int:
        """Add an item, and return its handle. A name that does not exist is reported later, as the status of a data
        change.
        """

    async def add_item2(self, server_handle: int, item_definition: str, item_context: str) -> int:
        """Add an item, and return its handle. `item_context` is the object at which a relative `item_definition`
        starts.
        """

    async def remove_item(self, server_handle: int, item_handle: int) -> None:
        """Release an item. Its handle can be given out again, so no event of this item may follow after the call has
        returned.
        """

    async def advise(self, server_handle: int, item_handle: int) -> None:
        """Start data changes. A write to the item counts as a write by an operator."""

    async def advise_supervisory(self, server_handle: int, item_handle: int) -> None:
        """Start data changes. A write to the item counts as a write by the client itself."""

    async def un_advise(self, server_handle: int, item_handle: int) -> None:
        """Stop data changes."""

    async def write(self, server_handle: int, item_handle: int, value: MxValue, user_id: int) -> None:
        """Accept a write. Its result follows as a write completion. The worker never has two writes of one item in
        flight.
        """

    async def write2(
        self, server_handle: int, item_handle: int, value: MxValue, time_ns: int | None, user_id: int
    ) -> None:
        """Like `write`, with the caller's source time."""

    async def write_secured(
        self, server_handle: int, item_handle: int, current_user_id: int, verifier_user_id: int, value: MxValue
    ) -> None:
        """Accept a secured write (by one user) or a verified write (by two users)."""

    async def write_secured2(
        self,
        server_handle: int,
        item_handle: int,
        current_user_id: int,
        verifier_user_id: int,
        value: MxValue,
        time_ns: int | None,
    ) -> None:
        """Like `write_secured`, with the caller's source time."""

    async def authenticate_user(self, server_handle: int, user: str, password: str) -> int:
        """Log a user in, and return the user id; 0 when the login failed."""

    async def archestra_user_to_id(self, server_handle: int, user_guid: str) -> int:
        """Return the user id of the ArchestrA user with this GUID."""

    async def suspend(self, server_handle: int, item_handle: int) -> MxStatus:
        """Suspend an advised item; an operation completion follows."""

    async def activate(self, server_handle: int, item_handle: int) -> MxStatus:
        """Resume a suspended item."""

    async def add_buffered_item(self, server_handle: int, item_definition: str, item_context: str) -> int:
        """Add an item whose changes are reported as buffered data changes, and return its handle."""

    async def set_buffered_update_interval(self, server_handle: int, interval_ms: int) -> None:
        """Set how often buffered data changes are sent."""


@runtime_checkable
class Browsable(Protocol):
    """A backend whose address space can be listed; MXAccess itself has no such call."""

    async def browse(self, parent: str) -> Sequence[BrowseNode]:
        """Return the children of `parent`, always in the same order. "" means the root.

        Raises:
            MxError: there is no such node.
        """


@runtime_checkable
class Describable(Protocol):
    """A backend whose source describes its items: units, ranges, types. MXAccess itself has no such call."""

    async def describe_items(self, items: Sequence[ItemReference]) -> Sequence[ItemMetadata | MxError]:
        """Return one answer per reference, in the same order: what the source says about it, or why it says nothing.

        What the source does not say is not set. Texts and lists are of bounded length.

        Raises:
            MxError: the source does not answer at all.
        """


@runtime_checkable
class Tunable(Protocol):
    """A backend that can report single items with a deadband, or at a sampling interval of their own. MXAccess itself
    cannot.
    """

    async def set_item_options(self, server_handle: int, item_handle: int, options: ItemOptions) -> None:
        """Set how an item is reported. This is called at most once per item, right after it was added. The numbers have
        been checked: they are within the ranges that the contract gives.

        Raises:
            MxError: the backend cannot do what is asked, and the text says what. The item is then removed again.
        """


@dataclass(frozen=True, slots=True)
class AlarmAck:
    """The result of one acknowledgement. `hresult` is S_OK on success; otherwise `message` and `detail` say what
    failed.

    `detail` is a native MxStatusDetail, for example 1015 for an alarm that is acknowledged already; 0 when unknown.
    """

    hresult: int = S_OK
    message: str = ""
    detail: int = 0


@runtime_checkable
class AlarmSource(Protocol):
    """A backend with an alarm manager, from which the worker requests alarms. MXAccess itself has no alarm manager.

    Source: docs/reference/mxaccess.md#alarms.
    """

    async def active_alarms(self) -> Sequence[Alarm]:
        """Return all active alarms, each `alarm_id` once. An alarm is active until it is both back to normal and
        acknowledged.

        An alarm that has ended (ACK_RTN) can stay in the list for a while, so that the worker gets its last change as
        the source reports it. When an alarm disappears from the list without such a change, the worker infers that it
        has ended.

        For an unchanged alarm the same object can be returned again, which makes comparing cheap. The caller never
        changes the returned objects.

        Raises:
            MxError: the alarm manager does not answer. E_NOTIMPL: there is none, and asking again is of no use.
        """

    async def acknowledge_alarms(self, alarm_ids: Sequence[str], comment: str, operator: str) -> Sequence[AlarmAck]:
        """Acknowledge alarms, and return one result per alarm, in the same order.

        Raises:
            MxError: the alarm manager does not answer, and no alarm was acknowledged.
        """


class AlarmListener(Protocol):
    """Receives the reports of an alarm manager that reports by itself. It is called in the event loop; no call blocks
    or raises.
    """

    def changed(self, alarm: Alarm) -> None:
        """Report the new state of one alarm. An alarm in state ACK_RTN has ended."""

    def refreshed(self, alarms: Sequence[Alarm]) -> None:
        """Report all active alarms. This is called at the start, and whenever changes were perhaps missed."""

    def failed(self, detail: str) -> None:
        """Report that the alarm manager is not available. The next call of `refreshed` means that it is available
        again.
        """


@runtime_checkable
class AlarmPublisher(AlarmSource, Protocol):
    """A backend whose alarm manager reports changes by itself."""

    async def follow_alarms(self, listener: AlarmListener) -> None:
        """Start to report to `listener`, first with a call of `refreshed`. This is called once, and again only after it
        has raised.

        Raises:
            MxError: the alarm manager does not answer.
        """
