"""The client library of mxgw: `connect` to a gateway, open sessions, call MXAccess, follow events.

`mxgw_client.sync` has the same without `await`, for scripts and notebooks. Errors are in `mxgw_client.errors`.
"""

from mxgw_client.batch import EventBatch
from mxgw_client.bulk import BulkWrite, Subscription
from mxgw_client.enums import (
    AdviseKind,
    BrowseNodeKind,
    CloseReason,
    DataType,
    GapReason,
    OnGap,
    Quality,
    SessionState,
    SourceHealth,
    StatusCategory,
    WorkerState,
)
from mxgw_client.errors import (
    MxAccessError,
    MxgwClientError,
    PositionFileError,
    SessionEnded,
    StreamEnded,
    StreamStale,
    WriteFailed,
)
from mxgw_client.events import (
    BufferedDataChange,
    DataChange,
    Event,
    OperationComplete,
    UnknownEvent,
    WriteComplete,
)
from mxgw_client.frames import (
    ControlFrame,
    Draining,
    Gap,
    Heartbeat,
    Progress,
    Snapshot,
    SnapshotEnd,
    SnapshotItem,
    StreamCut,
    StreamOpened,
)
from mxgw_client.gateway import Gateway, connect
from mxgw_client.options import ApiKey, Flow, Tls
from mxgw_client.policy import Policy
from mxgw_client.position import Position, Start, after
from mxgw_client.position_file import StoredPosition, read_position_file
from mxgw_client.results import (
    BrowseNode,
    GatewayInfo,
    Item,
    ItemOutcome,
    ItemState,
    Pong,
    Reading,
    SessionInfo,
    StateOfSession,
    SubscribeOutcome,
    WorkerInfo,
    WriteOutcome,
    WriteResult,
)
from mxgw_client.resume import ResumePolicy
from mxgw_client.session import Session
from mxgw_client.stream import EventStream
from mxgw_client.subscribers import Counter, Subscriber, SubscriberList
from mxgw_client.values import Status

__all__ = [
    "AdviseKind",
    "ApiKey",
    "BrowseNode",
    "BrowseNodeKind",
    "BufferedDataChange",
    "BulkWrite",
    "CloseReason",
    "ControlFrame",
    "Counter",
    "DataChange",
    "DataType",
    "Draining",
    "Event",
    "EventBatch",
    "EventStream",
    "Flow",
    "Gap",
    "GapReason",
    "Gateway",
    "GatewayInfo",
    "Heartbeat",
    "Item",
    "ItemOutcome",
    "ItemState",
    "MxAccessError",
    "MxgwClientError",
    "OnGap",
    "OperationComplete",
    "Policy",
    "Pong",
    "Position",
    "PositionFileError",
    "Progress",
    "Quality",
    "Reading",
    "ResumePolicy",
    "Session",
    "SessionEnded",
    "SessionInfo",
    "SessionState",
    "Snapshot",
    "SnapshotEnd",
    "SnapshotItem",
    "SourceHealth",
    "Start",
    "StateOfSession",
    "Status",
    "StatusCategory",
    "StoredPosition",
    "StreamCut",
    "StreamEnded",
    "StreamOpened",
    "StreamStale",
    "SubscribeOutcome",
    "Subscriber",
    "SubscriberList",
    "Subscription",
    "Tls",
    "UnknownEvent",
    "WorkerInfo",
    "WorkerState",
    "WriteComplete",
    "WriteFailed",
    "WriteOutcome",
    "WriteResult",
    "after",
    "connect",
    "read_position_file",
]
