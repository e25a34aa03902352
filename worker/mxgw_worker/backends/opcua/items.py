"""An item, made by AddItem, and its state."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from asyncua import ua

from mxgw.v1.values_pb2 import MxValue

from .coerce import NodeType


@dataclass(frozen=True, slots=True)
class WriteJob:
    """One accepted write; `time_ns` is the caller's source time, None for the server's own."""

    value: MxValue
    time_ns: int | None = None


@dataclass(slots=True, eq=False)
class Item:
    """Owned by its registration. Compared by identity: handles are unique per server handle only."""

    server_handle: int
    handle: int
    definition: str
    context: str
    buffered: bool = False
    removed: bool = False
    advised: bool = False
    suspended: bool = False
    # The node of the reference; None until it is resolved, and again after a new session.
    node_id: ua.NodeId | None = None
    # The type that written values are converted to; None until it is read.
    node_type: NodeType | None = None
    # The monitored item: our handle in notifications, and the server's handle (None until it exists).
    client_handle: int = 0
    monitored_id: int | None = None
    # StatusCode of the failure that was reported last; 0 while the item works.
    failure: int = 0
    # The last DataValue, which is reported again after an outage that lost no values.
    last: Any = None
    # True from the report of an outage to the next value.
    stale: bool = False
    # Buffered values that were not sent yet.
    buffer: list[Any] = field(default_factory=list)
    # Writes waiting behind the one in flight.
    writes: deque[WriteJob] = field(default_factory=deque)
    writing: bool = False
