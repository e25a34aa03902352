"""Parses item references (node ids and browse paths), and resolves many of them to node ids at once.

    ns=2;s=Line1.Speed        nsu=http://example.org/plant;i=1001        i=2258
    /Objects/2:Line1/2:Speed  /Objects/Line1/Speed                       Line1/Speed

A path that starts with `/` starts at the Root folder. Any other path starts at the item context, or at the Objects
folder when there is no context. `2:` is the namespace index of a browse name; a name without an index can be in any
namespace. In a name, `&` makes the next character an ordinary one (`&/`, `&:`, `&&`), as in OPC UA's relative paths.

All paths are sent to TranslateBrowsePathsToNodeIds in bulk. In this request a name without a namespace index has index
0, as in OPC UA. A path with such a name that is not found is then searched level by level, and each parent is browsed
once for all items below it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from asyncua import ua

from .server_connection import ServerConnection

ROOT = ua.NodeId(84, 0)
OBJECTS = ua.NodeId(85, 0)

_NODE_ID = re.compile(r"^(?:svr=\d+;)?(?:ns=\d+;|nsu=[^;]+;)?[isgb]=", re.ASCII)
_INDEX = re.compile(r"^(\d{1,5}):", re.ASCII)
_PART = re.compile(r"(?:[^/&]|&.)+", re.DOTALL)
_PATH = re.compile(r"(?:[^/&]|&.)+(?:/(?:[^/&]|&.)+)*", re.DOTALL)
MAX_DEPTH = 64


class BadReference(ValueError):
    """The text is neither a node id nor a browse path, or it names a namespace that the server does not have."""


@dataclass(frozen=True, slots=True)
class Segment:
    """One browse name. When `index` is None, the name can be in any namespace."""

    index: int | None
    name: str


@dataclass(frozen=True, slots=True)
class Reference:
    """A node to start at, and the path from there. An empty path means the node itself."""

    start: ua.NodeId
    path: tuple[Segment, ...] = ()


def parse(definition: str, context: str, namespaces: Sequence[str]) -> Reference:
    """Return what `definition` means below `context`. `namespaces` is the server's list of namespaces.

    Raises:
        BadReference: `definition` or `context` is no valid reference.
    """
    definition = definition.strip()
    if is_node_id(definition):
        return Reference(_node_id(definition, namespaces))
    if definition.startswith("/"):
        return Reference(ROOT, _segments(definition[1:]))
    below = parse(context, "", namespaces) if context.strip() else Reference(OBJECTS)
    return Reference(below.start, below.path + _segments(definition))


def is_node_id(text: str) -> bool:
    """Return True when `text` is read as a node id, and not as a path."""
    return _NODE_ID.match(text) is not None


def escape(name: str) -> str:
    """Return a browse name, with its special characters escaped for a path."""
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


HIERARCHICAL = ua.NodeId(33, 0)

_T = TypeVar("_T")
_NO_MATCH = ua.StatusCodes.BadNoMatch


def chunks(entries: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    """Yield `entries` in parts of at most `size` entries."""
    for start in range(0, len(entries), size):
        yield entries[start : start + size]


async def resolve(connection: ServerConnection, references: Sequence[Reference]) -> list[ua.NodeId | int]:
    """Return one result per reference: its node id, or the StatusCode of the failure.

    Raises:
        ConnectionError, TimeoutError, ua.UaError: the requests themselves failed.
    """
    found: dict[Reference, ua.NodeId | int] = {r: r.start for r in references if not r.path}
    paths = list(dict.fromkeys(r for r in references if r.path))
    for some in chunks(paths, connection.limits.translate):
        answers = await connection.session.translate_browsepaths_to_nodeids([_browse_path(r) for r in some])
        for reference, answer in zip(some, answers, strict=True):
            found[reference] = _target(answer)
    loose = [r for r in paths if isinstance(found[r], int) and any(s.index is None for s in r.path)]
    if loose:
        found.update(await _walk(connection, loose))
    return [found[r] for r in references]


async def browse(
    connection: ServerConnection, parents: Sequence[ua.NodeId], node_classes: int, limit_per_node: int = 0
) -> list[list[Any] | int]:
    """Return the children of each parent as ReferenceDescriptions, or the StatusCode of the failure.

    When `limit_per_node` is not 0, at most this number of children is returned per parent.

    Raises:
        ConnectionError, TimeoutError, ua.UaError: the requests themselves failed.
    """
    results: list[list[Any] | int] = []
    for some in chunks(parents, connection.limits.browse):
        parameters = ua.BrowseParameters()
        parameters.View = ua.ViewDescription()
        parameters.RequestedMaxReferencesPerNode = limit_per_node
        parameters.NodesToBrowse = [_description(parent, node_classes) for parent in some]
        for answer in await connection.session.browse(parameters):
            if not answer.StatusCode.is_good():
                results.append(int(answer.StatusCode.value))
                continue
            children = list(answer.References or [])
            await _drain(connection, answer, children, release=limit_per_node > 0)
            results.append(children)
    return results


async def _drain(connection: ServerConnection, answer: Any, children: list[Any], *, release: bool) -> None:
    while answer.ContinuationPoint:
        parameters = ua.BrowseNextParameters()
        parameters.ReleaseContinuationPoints = release
        parameters.ContinuationPoints = [answer.ContinuationPoint]
        answers = await connection.session.browse_next(parameters)
        if release or not answers:
            return
        answer = answers[0]
        children.extend(answer.References or [])


def _description(parent: ua.NodeId, node_classes: int) -> ua.BrowseDescription:
    description = ua.BrowseDescription()
    description.NodeId = parent
    description.BrowseDirection = ua.BrowseDirection.Forward
    description.ReferenceTypeId = HIERARCHICAL
    description.IncludeSubtypes = True
    description.NodeClassMask = node_classes
    description.ResultMask = ua.BrowseResultMask.All
    return description


def _browse_path(reference: Reference) -> ua.BrowsePath:
    path = ua.BrowsePath()
    path.StartingNode = reference.start
    for segment in reference.path:
        element = ua.RelativePathElement()
        element.ReferenceTypeId = HIERARCHICAL
        element.IsInverse = False
        element.IncludeSubtypes = True
        element.TargetName = ua.QualifiedName(segment.name, segment.index or 0)
        path.RelativePath.Elements.append(element)
    return path


def _target(answer: Any) -> ua.NodeId | int:
    if not answer.StatusCode.is_good():
        return int(answer.StatusCode.value)
    return plain_node_id(answer.Targets[0].TargetId) if answer.Targets else int(_NO_MATCH)


def plain_node_id(node_id: ua.NodeId) -> ua.NodeId:
    """Return an expanded node id as a plain one. An id of a node on the same server has no namespace URI that could be
    lost.
    """
    if isinstance(node_id, ua.ExpandedNodeId):
        return ua.NodeId(node_id.Identifier, node_id.NamespaceIndex, node_id.NodeIdType)
    return node_id


async def _walk(connection: ServerConnection, references: Iterable[Reference]) -> dict[Reference, ua.NodeId | int]:
    found: dict[Reference, ua.NodeId | int] = {}
    places: dict[Reference, tuple[ua.NodeId, tuple[Segment, ...]]] = {r: (r.start, r.path) for r in references}
    while places:
        parents = list(dict.fromkeys(node for node, _ in places.values()))
        children = dict(zip(parents, await browse(connection, parents, 0), strict=True))
        following: dict[Reference, tuple[ua.NodeId, tuple[Segment, ...]]] = {}
        indexes = {parent: _by_name(answer) for parent, answer in children.items() if not isinstance(answer, int)}
        for reference, (node, path) in places.items():
            answer = children[node]
            if isinstance(answer, int):
                found[reference] = answer
                continue
            child = _match(indexes[node].get(path[0].name, ()), path[0])
            if child is None:
                found[reference] = int(_NO_MATCH)
            elif len(path) == 1:
                found[reference] = child
            else:
                following[reference] = (child, path[1:])
        places = following
    return found


def _by_name(children: Sequence[Any]) -> dict[str, list[Any]]:
    index: dict[str, list[Any]] = {}
    for child in children:
        index.setdefault(child.BrowseName.Name, []).append(child)
    return index


def _match(children: Sequence[Any], segment: Segment) -> ua.NodeId | None:
    for child in children:
        if segment.index is None or segment.index == child.BrowseName.NamespaceIndex:
            return plain_node_id(child.NodeId)
    return None
