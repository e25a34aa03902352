"""Item references: node ids and browse paths, as people write them.

    ns=2;s=Line1.Speed        nsu=http://example.org/plant;i=1001        i=2258
    /Objects/2:Line1/2:Speed  /Objects/Line1/Speed                       Line1/Speed

A path that starts with `/` starts at the Root folder; any other is relative to the item context, or to the Objects
folder without one. `2:` is the namespace index of a browse name; without it any namespace will do. In a name, `&`
takes away the meaning of the character after it (`&/`, `&:`, `&&`), as in OPC UA's own relative paths.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from asyncua import ua

ROOT = ua.NodeId(84, 0)
OBJECTS = ua.NodeId(85, 0)

_NODE_ID = re.compile(r"^(?:svr=\d+;)?(?:ns=\d+;|nsu=[^;]+;)?[isgb]=", re.ASCII)
_INDEX = re.compile(r"^(\d{1,5}):", re.ASCII)
_PART = re.compile(r"(?:[^/&]|&.)+", re.DOTALL)
_PATH = re.compile(r"(?:[^/&]|&.)+(?:/(?:[^/&]|&.)+)*", re.DOTALL)
MAX_DEPTH = 64


class BadReference(ValueError):
    """The text is neither a node id nor a browse path, or names a namespace the server does not have."""


@dataclass(frozen=True, slots=True)
class Segment:
    """One browse name; `index` None: in any namespace."""

    index: int | None
    name: str


@dataclass(frozen=True, slots=True)
class Reference:
    """A starting node, and the way from there (empty: the node itself)."""

    start: ua.NodeId
    path: tuple[Segment, ...] = ()


def parse(definition: str, context: str, namespaces: Sequence[str]) -> Reference:
    """Return what `definition` means below `context`, with `namespaces` as the server lists them.

    Raises:
        BadReference: it means nothing.
    """
    definition = definition.strip()
    if is_node_id(definition):
        return Reference(_node_id(definition, namespaces))
    if definition.startswith("/"):
        return Reference(ROOT, _segments(definition[1:]))
    below = parse(context, "", namespaces) if context.strip() else Reference(OBJECTS)
    return Reference(below.start, below.path + _segments(definition))


def is_node_id(text: str) -> bool:
    """Return whether `text` is read as a node id, not as a path."""
    return _NODE_ID.match(text) is not None


def escape(name: str) -> str:
    """Return a browse name as a path's segment may hold it."""
    return re.sub(r"([&/:])", r"&\1", name)


def _node_id(text: str, namespaces: Sequence[str]) -> ua.NodeId:
    try:
        node_id = ua.NodeId.from_string(text)
    except (ValueError, ua.UaError) as error:
        raise BadReference(f"not a node id: {error}") from error
    if not isinstance(node_id, ua.ExpandedNodeId):
        return node_id
    if node_id.NamespaceUri not in namespaces:
        raise BadReference("the server has no such namespace")
    return ua.NodeId(node_id.Identifier, namespaces.index(node_id.NamespaceUri), node_id.NodeIdType)


def _segments(text: str) -> tuple[Segment, ...]:
    if not text:
        return ()
    if not _PATH.fullmatch(text):
        raise BadReference("a browse path has an empty name")
    parts = _PART.findall(text)
    if len(parts) > MAX_DEPTH:
        raise BadReference(f"a browse path has more than {MAX_DEPTH} names")
    return tuple(_segment(part) for part in parts)


def _segment(part: str) -> Segment:
    match = _INDEX.match(part)
    name = re.sub(r"&(.)", r"\1", part[match.end() :] if match else part)
    if not name:
        raise BadReference("a browse path has an empty name")
    return Segment(int(match.group(1)) if match else None, name)
