"""Lists the children of a node, with everything that a client needs to choose tags and to subscribe. It sends few
requests per folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from asyncua import ua

from mxgw.convert import mapped_data_type
from mxgw.v1.commands_pb2 import (
    BROWSE_NODE_KIND_AREA,
    BROWSE_NODE_KIND_ATTRIBUTE,
    BROWSE_NODE_KIND_OBJECT,
    BrowseNode,
)
from mxgw_worker.backends.base import E_FAIL, E_INVALIDARG, MxError

from .browsing import browse, have_children
from .link import Link
from .references import escape, is_path, local_node_id, locate, plain_node_id
from .server_connection import ServerConnection
from .texts import is_text, shown
from .types import DataTypes, plain, read
from .values import DATA_TYPES

_FOLDER_TYPE = ua.NodeId(61, 0)
_CLASSES = int(ua.NodeClass.Object) | int(ua.NodeClass.Variable)
_ATTRIBUTES = (
    ua.AttributeIds.Description,
    ua.AttributeIds.DataType,
    ua.AttributeIds.ValueRank,
    ua.AttributeIds.UserAccessLevel,
)
_NO_NODE = frozenset({ua.StatusCodes.BadNodeIdUnknown, ua.StatusCodes.BadNodeIdInvalid, ua.StatusCodes.BadNoMatch})
_CURRENT_WRITE = 0b10
_PART_NODES = 1000


class Browser:
    """Lists the children of nodes. A parent is "" (the Objects folder), "/" (the Root folder), a node id or a browse
    path.
    """

    def __init__(self, connection: ServerConnection, types: DataTypes) -> None:
        self._connection = connection
        self._types = types

    async def children(self, parent: str) -> list[BrowseNode]:
        """Return the children of `parent`, in the server's order.

        Raises:
            MxError: there is no such node, or the server did not answer.
        """
        try:
            return await self._children(parent)
        except (ua.UaError, OSError, TimeoutError) as error:
            raise MxError(E_FAIL, f"the OPC UA server could not be browsed: {type(error).__name__}") from error

    async def _children(self, parent: str) -> list[BrowseNode]:
        # All requests go to one connection: node ids that were found on it can name other nodes on the next one.
        link = self._connection.link
        (node_id,) = await locate(link, [(parent, "")])
        answer = node_id if isinstance(node_id, int) else (await browse(link, [node_id], _CLASSES))[0]
        if isinstance(answer, int):
            if answer in _NO_NODE:
                raise MxError(E_INVALIDARG, f"no node {parent!r}: {ua.StatusCode(answer).name}")
            raise MxError(E_FAIL, f"the OPC UA server could not browse {parent!r}: {ua.StatusCode(answer).name}")
        children: dict[ua.NodeId, Any] = {}
        for child in answer:
            node_id = local_node_id(child.NodeId, link.namespaces)
            if node_id is not None:  # None is a node of another server, which cannot be reached through this one.
                children[node_id] = child
        nodes: list[BrowseNode] = []
        # A folder can have tens of thousands of children. What is read of them is kept for one part at a time.
        found = list(children.items())
        for start in range(0, len(found), _PART_NODES):
            nodes += await self._described(link, parent, found[start : start + _PART_NODES])
        return nodes

    async def _described(self, link: Link, parent: str, children: Sequence[tuple[ua.NodeId, Any]]) -> list[BrowseNode]:
        ids = [node_id for node_id, _ in children]
        rows = await read(link, ids, _ATTRIBUTES)
        below = await have_children(link, ids, _CLASSES)
        declared = [plain(row[1]) for row in rows]
        built_in = await self._types.built_in(link, [d for d in declared if isinstance(d, ua.NodeId)])
        base = _base_path(parent)
        return [
            self._node(base, node_id, child, row, built_in.get(data_type, 0), has_children=has_children)
            for (node_id, child), row, data_type, has_children in zip(children, rows, declared, below, strict=True)
        ]

    def _node(
        self,
        base: str | None,
        node_id: ua.NodeId,
        child: Any,
        row: Sequence[Any],
        built_in: int,
        *,
        has_children: bool,
    ) -> BrowseNode:
        description, _, rank, access = (plain(value) for value in row)
        name = child.BrowseName
        # A server can have names and ids that are no valid UTF-8. They can be shown, but nothing can refer to them.
        own_id = node_id.to_string()
        own_id = own_id if is_text(own_id) else ""
        # When the parent is named by a node id, there is no path to append to. The node id of the child is used
        # instead, and also when the child has no name that a path could contain.
        named = base is not None and name.Name and is_text(name.Name)
        node = BrowseNode(
            name=shown(name.Name),
            path=f"{base}/{name.NamespaceIndex}:{escape(name.Name)}" if named else own_id,
            has_children=has_children,
            description=shown(getattr(description, "Text", None)),
        )
        if child.NodeClass == ua.NodeClass.Variable:
            node.kind = BROWSE_NODE_KIND_ATTRIBUTE
            node.reference = own_id
            node.is_array = isinstance(rank, int) and rank >= 0
            node.writeable = isinstance(access, int) and bool(access & _CURRENT_WRITE)
            native = DATA_TYPES.get(built_in)
            if native is not None:
                node.data_type = mapped_data_type(native)
        elif plain_node_id(child.TypeDefinition) == _FOLDER_TYPE:
            node.kind = BROWSE_NODE_KIND_AREA
        else:
            node.kind = BROWSE_NODE_KIND_OBJECT
        return node


def _base_path(parent: str) -> str | None:
    """Return the path to which the names of children are appended; None when `parent` is a node id."""
    start = parent.lstrip()
    if not start:
        return "/0:Objects"
    if not is_path(parent):
        return None
    if start.startswith("/"):
        return "" if start == "/" else start
    return f"/0:Objects/{parent}"
