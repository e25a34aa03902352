"""The results of calls, as frozen data classes. They stay valid after the connection is closed."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from mxgw.convert import PyValue, duration_to_seconds
from mxgw.v1 import commands_pb2, events_pb2, gateway_service_pb2, session_service_pb2
from mxgw_client.enums import (
    AdviseKind,
    BrowseNodeKind,
    CloseReason,
    DataType,
    Quality,
    SessionState,
    SourceHealth,
    WorkerState,
)
from mxgw_client.errors import MxAccessError
from mxgw_client.metadata import (
    ItemMetadata,
    ItemOptions,
    data_type_from_message,
    metadata_from_message,
    options_from_message,
    security_from_message,
)
from mxgw_client.position import Position
from mxgw_client.values import Status, moment, statuses_from_messages, value_of


@dataclass(frozen=True, slots=True)
class Item:
    """An added item. Pass it to all methods for an item.

    After RemoveItem, MXAccess can give the `handle` to another item. The `serial` is never used for another item of the
    session, and each event of the item has it as `item_serial`.
    """

    handle: int
    reference: str
    server_handle: int
    context: str = ""
    serial: int = 0


@dataclass(frozen=True, slots=True)
class ItemOutcome:
    """The result of a bulk call for one item.

    `hresult` is not 0 when MXAccess failed. `reason` is not empty when the gateway or the worker refused the item or
    could not process it.
    """

    reference: str
    item_handle: int
    hresult: int
    message: str
    reason: str
    statuses: tuple[Status, ...]

    @property
    def ok(self) -> bool:
        """True when the call succeeded for this item and no status is a failure."""
        return self.hresult == 0 and not self.reason and all(status.ok for status in self.statuses)

    def raise_if_failed(self) -> None:
        """Raise an error when `ok` is False.

        Raises:
            MxAccessError: the call failed for this item.
        """
        if not self.ok:
            name = self.reference or f"item {self.item_handle}"
            raise MxAccessError(name, self.hresult, self.message or self.reason, self.statuses, self.reason)


@dataclass(frozen=True, slots=True)
class SubscribeOutcome(ItemOutcome):
    """The result of `subscribe_bulk` for one reference. `item` is None when the reference was refused."""

    item: Item | None


@dataclass(frozen=True, slots=True)
class WriteResult:
    """A write that MXAccess accepted.

    The WriteComplete event of the write has the same `write_id`. `completed` is True when the call waited for the
    completion and the completion came. `statuses` are then the statuses of the completion.
    """

    item_handle: int
    write_id: int
    completed: bool
    statuses: tuple[Status, ...]


@dataclass(frozen=True, slots=True)
class WriteOutcome(ItemOutcome):
    """The result of `write_bulk` for one item. `write_id` and `completed` mean the same as in `WriteResult`."""

    write_id: int
    completed: bool


@dataclass(frozen=True, slots=True)
class MetadataOutcome(ItemOutcome):
    """The result of `item_metadata` for one reference. `metadata` is None when the call failed for it."""

    metadata: ItemMetadata | None


@dataclass(frozen=True, slots=True)
class Reading(ItemOutcome):
    """The value of one item, as a read returned it.

    `source_time` is the time of the value by the clock of the source, in UTC; None when the source sent no time.
    `raw_source_time` is the time as text, if the source sent a text. `was_cached` is True when the session had an
    advised item with this reference and the value is that of its last data change.
    """

    value: PyValue
    quality: Quality
    raw_quality: int
    source_time: datetime | None
    raw_source_time: str
    was_cached: bool

    @property
    def is_good(self) -> bool:
        """True when the value can be used: the read succeeded, and the quality is good."""
        return self.ok and self.quality is Quality.GOOD


def reading_from_message(reference: str, message: commands_pb2.BulkItemResult) -> Reading:
    """Return the result of `read_bulk` for one item.

    The `statuses` of the Reading are the statuses of the call; if there are none, the statuses of the value.
    """
    change: events_pb2.DataChange = message.value
    return Reading(
        reference=reference,
        item_handle=message.item_handle,
        hresult=message.hresult,
        message=message.message,
        reason=message.reason,
        statuses=statuses_from_messages(message.statuses) or statuses_from_messages(change.statuses),
        value=value_of(change.value),
        quality=Quality(change.quality),
        raw_quality=change.raw_quality,
        source_time=moment(change.source_time) if change.HasField("source_time") else None,
        raw_source_time=change.raw_source_time,
        was_cached=message.was_cached,
    )


@dataclass(frozen=True, slots=True)
class BrowseNode:
    """A node of the backend's address space.

    `reference` is the reference to add as an item; it is empty when the node has no value. `browse(path)` returns the
    children of the node. `metadata` is None unless it was asked for, and the backend knows any.
    """

    name: str
    path: str
    reference: str
    kind: BrowseNodeKind
    data_type: DataType | None
    is_array: bool
    writeable: bool
    security_classification: str
    has_children: bool
    description: str
    metadata: ItemMetadata | None = None


def node_from_message(message: commands_pb2.BrowseNode) -> BrowseNode:
    """Convert the protobuf message of a node. `data_type` is None when it is not set, or unknown to this release."""
    return BrowseNode(
        message.name,
        message.path,
        message.reference,
        BrowseNodeKind(message.kind),
        data_type_from_message(message.data_type),
        message.is_array,
        message.writeable,
        security_from_message(message.security_classification),
        message.has_children,
        message.description,
        metadata_from_message(message.metadata) if message.HasField("metadata") else None,
    )


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """The state of a session at the gateway. All times are in UTC."""

    session_id: str
    state: SessionState
    close_reason: CloseReason
    close_detail: str
    client_name: str
    owner: str
    tag: str
    backend: str
    opened_at: datetime
    lease_s: float
    lease_expires_at: datetime
    head: Position
    oldest_sequence: int
    subscribers: int
    pending_commands: int
    worker_pid: int
    worker_state: WorkerState
    source_health: SourceHealth
    # The resident memory of the worker process; 0 when its operating system does not report it.
    worker_rss_bytes: int = 0
    # At the present rate of events, the event log holds the events of this many seconds; None when it is not known.
    horizon_s: float | None = None
    # The time at which the last subscriber left; None while there is a subscriber, and when there never was one.
    detached_at: datetime | None = None


def session_from_message(message: session_service_pb2.Session) -> SessionInfo:
    """Convert the protobuf message of a session."""
    return SessionInfo(
        session_id=message.session_id,
        state=SessionState(message.state),
        close_reason=CloseReason(message.close_reason),
        close_detail=message.close_detail,
        client_name=message.client_name,
        owner=message.owner,
        tag=message.tag,
        backend=message.backend,
        opened_at=moment(message.opened_at),
        lease_s=duration_to_seconds(message.lease),
        lease_expires_at=moment(message.lease_expires_at),
        head=Position(message.epoch, message.head_sequence),
        oldest_sequence=message.oldest_sequence,
        subscribers=message.subscribers,
        pending_commands=message.pending_commands,
        worker_pid=message.worker_pid,
        worker_state=WorkerState(message.worker_state),
        source_health=SourceHealth(message.source_health),
        worker_rss_bytes=message.worker_rss_bytes,
        horizon_s=duration_to_seconds(message.horizon) if message.HasField("horizon") else None,
        detached_at=moment(message.detached_at) if message.HasField("detached_at") else None,
    )


@dataclass(frozen=True, slots=True)
class ItemState:
    """One item of a session. `last_value` is None when the call did not ask for values, or the item has none yet.

    `options` are those that the item was added with; None when there were none.
    """

    item: Item
    buffered: bool
    advise: AdviseKind
    suspended: bool
    last_sequence: int
    last_value: PyValue
    last_quality: Quality
    writes_in_flight: int
    options: ItemOptions | None = None


@dataclass(frozen=True, slots=True)
class StateOfSession:
    """The MXAccess state of a session, as it was at `position`: its registrations and items.

    `registrations` maps each server handle to the client name that was registered.
    """

    position: Position
    registrations: dict[int, str]
    items: tuple[ItemState, ...]


def item_state_from_message(message: session_service_pb2.ItemState) -> ItemState:
    """Convert the protobuf message of an item."""
    return ItemState(
        Item(
            message.item_handle,
            message.item_definition,
            message.server_handle,
            message.item_context,
            message.item_serial,
        ),
        message.buffered,
        AdviseKind(message.advise),
        message.suspended,
        message.last_sequence,
        value_of(message.last_value.value),
        Quality(message.last_value.quality),
        message.writes_in_flight,
        options_from_message(message.options) if message.HasField("options") else None,
    )


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """The worker process of a session. `silence_s` is the number of seconds since its last message to the gateway."""

    pid: int
    state: WorkerState
    backend: str
    started_at: datetime
    head: Position
    outbox_events: int
    outbox_bytes: int
    events_lost: int
    rss_bytes: int
    source_health: SourceHealth
    source_detail: str
    items: int
    silence_s: float


def worker_from_message(message: session_service_pb2.GetWorkerInfoResponse) -> WorkerInfo:
    """Convert the protobuf message of a worker."""
    return WorkerInfo(
        message.pid,
        WorkerState(message.state),
        message.backend,
        moment(message.started_at),
        Position(message.epoch, message.head_sequence),
        message.outbox_events,
        message.outbox_bytes,
        message.events_lost,
        message.rss_bytes,
        SourceHealth(message.source_health),
        message.source_detail,
        message.items,
        duration_to_seconds(message.silence),
    )


@dataclass(frozen=True, slots=True)
class GatewayInfo:
    """The version, plugins and backends of a gateway.

    `identity` is the identity that the gateway has found for the caller. `plugins` maps the name of each plugin to
    "loaded", "failed" or "available". `raw` is the protobuf message with all fields.
    """

    version: str
    contract: str
    instance_id: str
    started_at: datetime
    plugins: dict[str, str]
    backends: tuple[str, ...]
    default_backend: str
    open_sessions: int
    draining: bool
    identity: str
    raw: gateway_service_pb2.GetGatewayInfoResponse = field(repr=False)


def gateway_from_message(message: gateway_service_pb2.GetGatewayInfoResponse) -> GatewayInfo:
    """Convert the protobuf message of a gateway."""
    states = gateway_service_pb2.PluginState
    return GatewayInfo(
        message.version,
        message.contract,
        message.instance_id,
        moment(message.started_at),
        {p.name: states.Name(p.state).removeprefix("PLUGIN_STATE_").lower() for p in message.plugins},
        tuple(message.backends),
        message.default_backend,
        message.open_sessions,
        message.draining,
        message.identity,
        message,
    )


@dataclass(frozen=True, slots=True)
class Pong:
    """The result of a ping.

    `round_trip_s` is the time from the request to the answer. `worker_round_trip_s` is the time that the worker took to
    answer the gateway; None when only the gateway was pinged. `gateway_time` is the clock of the gateway, in UTC.
    """

    round_trip_s: float
    worker_round_trip_s: float | None
    gateway_time: datetime
