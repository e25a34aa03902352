"""References to node ids, many at once.

Exact paths go to TranslateBrowsePathsToNodeIds in bulk. A name without a namespace index is first read as OPC UA reads
it (index 0); what is not found that way is looked up level by level, each parent browsed once for all items below it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

from asyncua import ua

from .link import Link
from .references import Reference, Segment

HIERARCHICAL = ua.NodeId(33, 0)

_T = TypeVar("_T")
_NO_MATCH = ua.StatusCodes.BadNoMatch


def chunks(entries: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    """Yield `entries` in runs of at most `size`."""
    for start in range(0, len(entries), size):
        yield entries[start : start + size]


async def resolve(link: Link, references: Sequence[Reference]) -> list[ua.NodeId | int]:
    """Return a node id, or the StatusCode of the failure, for each reference.

    Raises:
        ConnectionError, TimeoutError, ua.UaError: the requests themselves failed.
    """
    found: dict[Reference, ua.NodeId | int] = {r: r.start for r in references if not r.path}
    paths = list(dict.fromkeys(r for r in references if r.path))
    for some in chunks(paths, link.limits.translate):
        answers = await link.session.translate_browsepaths_to_nodeids([_browse_path(r) for r in some])
        for reference, answer in zip(some, answers, strict=True):
            found[reference] = _target(answer)
    loose = [r for r in paths if isinstance(found[r], int) and any(s.index is None for s in r.path)]
    if loose:
        found.update(await _walk(link, loose))
    return [found[r] for r in references]


async def browse(
    link: Link, parents: Sequence[ua.NodeId], node_classes: int, limit_per_node: int = 0
) -> list[list[Any] | int]:
    """Return the children of each parent as ReferenceDescriptions, or the StatusCode of the failure.

    With `limit_per_node` the answers may be cut there.

    Raises:
        ConnectionError, TimeoutError, ua.UaError: the requests themselves failed.
    """
    results: list[list[Any] | int] = []
    for some in chunks(parents, link.limits.browse):
        parameters = ua.BrowseParameters()
        parameters.View = ua.ViewDescription()
        parameters.RequestedMaxReferencesPerNode = limit_per_node
        parameters.NodesToBrowse = [_description(parent, node_classes) for parent in some]
        for answer in await link.session.browse(parameters):
            if not answer.StatusCode.is_good():
                results.append(int(answer.StatusCode.value))
                continue
            children = list(answer.References or [])
            await _drain(link, answer, children, release=limit_per_node > 0)
            results.append(children)
    return results


async def _drain(link: Link, answer: Any, children: list[Any], *, release: bool) -> None:
    while answer.ContinuationPoint:
        parameters = ua.BrowseNextParameters()
        parameters.ReleaseContinuationPoints = release
        parameters.ContinuationPoints = [answer.ContinuationPoint]
        answers = await link.session.browse_next(parameters)
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
    """Return an expanded node id as a plain one; targets on the same server carry no namespace URI."""
    if isinstance(node_id, ua.ExpandedNodeId):
        return ua.NodeId(node_id.Identifier, node_id.NamespaceIndex, node_id.NodeIdType)
    return node_id


async def _walk(link: Link, references: Iterable[Reference]) -> dict[Reference, ua.NodeId | int]:
    found: dict[Reference, ua.NodeId | int] = {}
    places: dict[Reference, tuple[ua.NodeId, tuple[Segment, ...]]] = {r: (r.start, r.path) for r in references}
    while places:
        parents = list(dict.fromkeys(node for node, _ in places.values()))
        children = dict(zip(parents, await browse(link, parents, 0), strict=True))
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
