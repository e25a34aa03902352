"""The `Backend` protocol, which connects a worker to a source, and the sink that takes its events.

`Backend` mirrors the 18 methods and 4 events of LMXProxyServer (docs/reference/mxaccess.md#methods, #events) and
nothing more. Bulk calls, reads, the last-value cache, the pairing of write completions and the numbering of events are
added by the worker, so they are the same for every backend.

All methods run in the worker's event loop. A backend with a thread of its own (COM needs one) returns its results by
`loop.call_soon_threadsafe`; `EventSink` must be called in the event loop only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from mxgw.v1.alarms_pb2 import Alarm
from mxgw.v1.commands_pb2 import BrowseNode
from mxgw.v1.events_pb2 import GapReason, SourceHealth
from mxgw.v1.values_pb2 import MxStatus, MxValue

# HRESULTs that MXAccess clients know, as signed 32-bit numbers. Source: winerror.h.
S_OK = 0
E_FAIL = -2147467259  # 0x80004005
E_NOTIMPL = -2147467263  # 0x80004001
E_ACCESSDENIED = -2147024891  # 0x80070005
E_INVALIDARG = -2147024809  # 0x80070057


class MxError(Exception):
    """A method failed like a COM call, with an HRESULT. It becomes an ordinary reply, never a gRPC error."""

    def __init__(self, hresult: int, message: str) -> None:
        super().__init__(message)
        self.hresult = hresult
        self.message = message


class BackendUnavailable(Exception):
    """The backend cannot start: bad options, or a source that refuses it. The text says how to fix it."""


@dataclass(frozen=True, slots=True)
class BackendInfo:
    """Names the backend for people: kind, version, and where its data comes from (without credentials)."""

    kind: str
    version: str
    source: str


class EventSink(Protocol):
    """Takes a backend's events, in the order in which they happened. No call blocks or raises."""

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
        """OnDataChange. `quality` is the raw number; `source_time_ns` counts from 1970 in UTC, None when unknown.

        The messages are encoded before the call returns, so the caller may reuse them.
        """

    def write_complete(self, server_handle: int, item_handle: int, statuses: Sequence[MxStatus]) -> None:
        """OnWriteComplete, for the oldest write of this item without a completion."""

    def operation_complete(self, server_handle: int, item_handle: int, statuses: Sequence[MxStatus]) -> None:
        """OperationComplete."""

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
        """OnBufferedDataChange: parallel arrays; `data_type` is the native MxDataType number."""

    def source_gap(self, reason: GapReason.ValueType, detail: str, count: int = 0) -> None:
        """Events were lost before the worker could number them; `count` is 0 when it cannot be known.

        The loss takes the next sequence, so that subscribers see it at its place among the events.
        """

    def source_health(self, health: SourceHealth.ValueType, detail: str) -> None:
        """The source's health changed; `detail` is a sentence for people."""

    def failed(self, detail: str) -> None:
        """The backend has failed for good; the worker ends, and its session is faulted."""


class Backend(Protocol):
    """The 18 methods of LMXProxyServer. Every failure is an `MxError`; anything else is a bug of the backend.

    Handles are small positive numbers. A method takes `server_handle` first, as MXAccess does.
    """

    def info(self) -> BackendInfo:
        """Describe the backend; may be called before `start`."""

    async def start(self, sink: EventSink) -> None:
        """Get ready to serve calls; events may follow at once.

        Raises:
            BackendUnavailable: the backend cannot start.
        """

    async def stop(self) -> None:
        """Unadvise, remove, unregister, release; bounded in time and never raising. No event follows."""

    async def register(self, client_name: str) -> int:
        """Return a server handle."""

    async def unregister(self, server_handle: int) -> None:
        """Release the handle and every item under it."""

    async def add_item(self, server_handle: int, item_definition: str) -> int:
        """Return an item handle. A name that does not exist fails later, as a data change status."""

    async def add_item2(self, server_handle: int, item_definition: str, item_context: str) -> int:
        """Return an item handle; `item_context` is the object that a relative definition starts from."""

    async def remove_item(self, server_handle: int, item_handle: int) -> None:
        """Release an item. Its handle may be reused, so no event of the item may come after this returned."""

    async def advise(self, server_handle: int, item_handle: int) -> None:
        """Start data changes; writes count as an operator's."""

    async def advise_supervisory(self, server_handle: int, item_handle: int) -> None:
        """Start data changes; writes count as the client's own."""

    async def un_advise(self, server_handle: int, item_handle: int) -> None:
        """Stop data changes."""

    async def write(self, server_handle: int, item_handle: int, value: MxValue, user_id: int) -> None:
        """Accept a write; its result comes as a write completion. The worker keeps one in flight per item."""

    async def write2(
        self, server_handle: int, item_handle: int, value: MxValue, time_ns: int | None, user_id: int
    ) -> None:
        """Like `write`, with the caller's source time."""

    async def write_secured(
        self, server_handle: int, item_handle: int, current_user_id: int, verifier_user_id: int, value: MxValue
    ) -> None:
        """Accept a secured (one user) or verified (two users) write."""

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
        """Return a user id; 0 when the login failed."""

    async def archestra_user_to_id(self, server_handle: int, user_guid: str) -> int:
        """Return the user id of an ArchestrA user's GUID."""

    async def suspend(self, server_handle: int, item_handle: int) -> MxStatus:
        """Suspend an advised item; an operation completion follows."""

    async def activate(self, server_handle: int, item_handle: int) -> MxStatus:
        """Resume a suspended item."""

    async def add_buffered_item(self, server_handle: int, item_definition: str, item_context: str) -> int:
        """Return an item handle whose changes come as buffered data changes."""

    async def set_buffered_update_interval(self, server_handle: int, interval_ms: int) -> None:
        """Set how often buffered data changes are sent."""


@runtime_checkable
class Browsable(Protocol):
    """A backend whose address space can be listed; MXAccess itself has no such call."""

    async def browse(self, parent: str) -> Sequence[BrowseNode]:
        """Return the children of `parent` ("" is the root), in a stable order.

        Raises:
            MxError: there is no such node.
        """


@dataclass(frozen=True, slots=True)
class AlarmAck:
    """The result of one acknowledgement: `hresult` is S_OK, or `message` and `detail` say why it failed.

    `detail` is a native MxStatusDetail, for example 1015 for an alarm that is acknowledged already; 0 when unknown.
    """

    hresult: int = S_OK
    message: str = ""
    detail: int = 0


@runtime_checkable
class AlarmSource(Protocol):
    """A backend with an alarm manager, which has to be asked; MXAccess itself has no such thing.

    Source: docs/reference/mxaccess.md#alarms.
    """

    async def active_alarms(self) -> Sequence[Alarm]:
        """Return every alarm that is not back to normal and acknowledged, each `alarm_id` once.

        An alarm that has ended (ACK_RTN) may be listed for a while, so that its last change is known as the source
        reports it. Without that, the worker infers the end when the alarm is no longer listed.

        An unchanged alarm may be the same object as before, which makes comparing cheap; the caller changes none of
        them.

        Raises:
            MxError: the alarm manager does not answer.
        """

    async def acknowledge_alarms(self, alarm_ids: Sequence[str], comment: str, operator: str) -> Sequence[AlarmAck]:
        """Acknowledge alarms; one result each, in order.

        Raises:
            MxError: the alarm manager does not answer; nothing is acknowledged.
        """


class AlarmListener(Protocol):
    """Takes the reports of an alarm manager that reports by itself, in the event loop. No call blocks or raises."""

    def changed(self, alarm: Alarm) -> None:
        """An alarm has changed to this; in state ACK_RTN it has ended."""

    def refreshed(self, alarms: Sequence[Alarm]) -> None:
        """These are all active alarms. Called at the start, and whenever changes may have been missed."""

    def failed(self, detail: str) -> None:
        """The alarm manager is not available; the next `refreshed` means that it is again."""


@runtime_checkable
class AlarmPublisher(AlarmSource, Protocol):
    """A backend whose alarm manager reports changes by itself."""

    async def follow_alarms(self, listener: AlarmListener) -> None:
        """Start to report, with a call of `refreshed`. Called once, and again only after it raised.

        Raises:
            MxError: the alarm manager does not answer.
        """
