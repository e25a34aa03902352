"""The items of this backend, and their state."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from asyncua import ua

from mxgw.v1.commands_pb2 import ItemOptions
from mxgw.v1.values_pb2 import MxValue

from .coerce import NodeType
from .link import Link


@dataclass(frozen=True, slots=True)
class WriteJob:
    """One accepted write. `time_ns` is the source time that the caller gave; None means that the server sets the
    time.
    """

    value: MxValue
    time_ns: int | None = None


@dataclass(slots=True, eq=False)
class Item:
    """An item, which AddItem made. It belongs to one registration. Items are compared by identity."""

    server_handle: int
    handle: int
    definition: str
    context: str
    buffered: bool = False
    removed: bool = False
    advised: bool = False
    suspended: bool = False
    # How the server is asked to report the item, when that is not as the backend's options have it.
    options: ItemOptions | None = None
    # The node that the reference means, and the type to which written values are converted. None until they are found.
    # They are only valid on the link on which they were found: `node_on` has to be asked first.
    node_id: ua.NodeId | None = None
    node_type: NodeType | None = None
    link: Link | None = None
    # The two handles of the monitored item: our own handle, which notifications contain, and the server's handle, which
    # is None until the monitored item exists.
    client_handle: int = 0
    monitored_id: int | None = None
    # The failure that was reported last (`status.failure_of`); 0 while the item works.
    failure: int = 0
    # The last DataValue. It is reported again after an outage in which no values were lost.
    last: Any = None
    # True from the report of an outage to the next value.
    stale: bool = False
    # Values of a buffered item that were not sent yet.
    buffer: list[Any] = field(default_factory=list)
    # Writes that wait for the end of the write in flight.
    writes: deque[WriteJob] = field(default_factory=deque)
    writing: bool = False

    def node_on(self, link: Link) -> ua.NodeId | None:
        """Return the node that was found on this link, or None. What was found on another link is forgotten, because
        the server can have numbered its namespaces differently since.
        """
        if self.link is not link:
            self.forget_node()
        return self.node_id

    def found(self, node_id: ua.NodeId, link: Link) -> None:
        """Remember the node that the reference means on this link."""
        if self.link is not link or self.node_id != node_id:
            self.node_type = None
        self.node_id, self.link = node_id, link

    def forget_node(self) -> None:
        """Find the node again at the next use."""
        self.node_id = self.node_type = self.link = None
