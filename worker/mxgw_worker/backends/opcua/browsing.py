"""Browse requests: all children of nodes, or whether they have any. A list is complete, or it is an error.

A server may answer in pages. Between two pages it keeps a continuation point, and it has few of them: it answers
`BadNoContinuationPoints` when it has none left, and it drops older ones of a session when the session browses on
(`BadContinuationPointInvalid`). So one answer is read to its end before the next request is sent, and a node whose
pages broke off is browsed again from its first page, alone.

Source: OPC 10000-4, 5.8.2 (Browse), 5.8.3 (BrowseNext) and 7.9 (ContinuationPoint).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from asyncua import ua

from .batches import Refused, in_batches
from .link import Link

HIERARCHICAL = ua.NodeId(33, 0)

_codes = ua.StatusCodes
_PAGE_REFERENCES = 1000
# Bounds on what a server may answer for one node: references, and pages in a row without any.
_MAX_REFERENCES = 1_000_000
_MAX_EMPTY_PAGES = 100
# The pauses before a node whose pages broke off is browsed again. Other sessions can hold the server's continuation
# points in the meantime.
_PAUSES_S = (0.0, 0.1, 0.3, 1.0)
_BROKE_OFF = frozenset({_codes.BadNoContinuationPoints, _codes.BadContinuationPointInvalid})
_FIELDS = ua.BrowseResultMask.NodeClass | ua.BrowseResultMask.BrowseName | ua.BrowseResultMask.TypeDefinition


async def browse(link: Link, parents: Sequence[ua.NodeId], node_classes: int) -> list[list[Any] | int]:
    """Return all children of each parent as ReferenceDescriptions (NodeId, NodeClass, BrowseName, TypeDefinition), or
    the StatusCode that says why there is no complete list.

    Raises:
        ConnectionError, TimeoutError, ua.UaError: the requests themselves failed.
    """
    at_once = link.limits.continuation_points or max(1, len(parents))
    results: list[list[Any] | int] = []
    for start in range(0, len(parents), at_once):
        results += await _whole(link, parents[start : start + at_once], node_classes, _PAGE_REFERENCES)
    for index, parent in enumerate(parents):
        for pause_s in _PAUSES_S:
            if not _broke_off(results[index]):
                break
            await asyncio.sleep(pause_s)
            # A server that can send everything at once needs no continuation point for it.
            (results[index],) = await _whole(link, [parent], node_classes, 0)
    return results


async def have_children(link: Link, parents: Sequence[ua.NodeId], node_classes: int) -> list[bool]:
    """Return for each parent whether it has children; False when the server does not tell.

    Raises:
        ConnectionError, TimeoutError, ua.UaError: the requests themselves failed.
    """

    async def send(some: Sequence[ua.NodeId]) -> Sequence[bool | int]:
        async with link.browsing:
            answers = await link.session.browse(_parameters(some, node_classes, 1, ua.BrowseResultMask.None_))
            points = [answer.ContinuationPoint for answer in answers if answer.ContinuationPoint]
            await in_batches(link, "browse", points, _next(link, release=True))
        return [bool(answer.References) or int(answer.StatusCode.value) for answer in answers]

    answers = await in_batches(link, "browse", parents, send)
    # Without a continuation point left, the server could not send the first child, because there are more of them.
    return [answer is True or answer == _codes.BadNoContinuationPoints for answer in answers]


async def _whole(
    link: Link, parents: Sequence[ua.NodeId], node_classes: int, page_references: int
) -> list[list[Any] | int]:
    async def send(some: Sequence[ua.NodeId]) -> Sequence[list[Any] | int]:
        async with link.browsing:
            answers = await link.session.browse(_parameters(some, node_classes, page_references, _FIELDS))
            return await _read_on(link, answers)

    answers = await in_batches(link, "browse", parents, send)
    return [answer.code if isinstance(answer, Refused) else answer for answer in answers]


async def _read_on(link: Link, answers: Sequence[Any]) -> list[list[Any] | int]:
    """Return the references of each answer with those of its further pages, or the StatusCode of its failure."""
    results = [_references(answer) for answer in answers]
    points = {place: answer.ContinuationPoint for place, answer in enumerate(answers) if answer.ContinuationPoint}
    empty_pages = dict.fromkeys(points, 0)
    while points:
        pages: list[Any] = await in_batches(link, "browse", list(points.values()), _next(link, release=False))
        for place, page in zip(list(points), pages, strict=True):
            so_far, more = results[place], _references(page)
            del points[place]
            if isinstance(so_far, int):
                continue
            if isinstance(more, int):
                results[place] = more
                continue
            so_far += more
            empty_pages[place] = 0 if more else empty_pages[place] + 1
            point = page.ContinuationPoint
            if point and (len(so_far) > _MAX_REFERENCES or empty_pages[place] > _MAX_EMPTY_PAGES):
                results[place] = int(_codes.BadResponseTooLarge)
                await _next(link, release=True)([point])
            elif point:
                points[place] = point
    return results


def _broke_off(result: list[Any] | int) -> bool:
    return isinstance(result, int) and result in _BROKE_OFF


def _references(answer: Any) -> list[Any] | int:
    if isinstance(answer, Refused):
        return answer.code
    return list(answer.References or ()) if answer.StatusCode.is_good() else int(answer.StatusCode.value)


def _next(link: Link, *, release: bool) -> Any:
    async def send(points: Sequence[bytes]) -> Sequence[Any]:
        parameters = ua.BrowseNextParameters()
        parameters.ReleaseContinuationPoints = release
        parameters.ContinuationPoints = list(points)
        pages: Sequence[Any] = await link.session.browse_next(parameters)
        # A server may answer a release without results.
        return pages if len(pages) == len(points) or not release else points

    return send


def _parameters(
    parents: Sequence[ua.NodeId], node_classes: int, page_references: int, fields: ua.BrowseResultMask
) -> ua.BrowseParameters:
    parameters = ua.BrowseParameters()
    parameters.View = ua.ViewDescription()
    parameters.RequestedMaxReferencesPerNode = page_references
    parameters.NodesToBrowse = [_description(parent, node_classes, fields) for parent in parents]
    return parameters


def _description(parent: ua.NodeId, node_classes: int, fields: ua.BrowseResultMask) -> ua.BrowseDescription:
    description = ua.BrowseDescription()
    description.NodeId = parent
    description.BrowseDirection = ua.BrowseDirection.Forward
    description.ReferenceTypeId = HIERARCHICAL
    description.IncludeSubtypes = True
    description.NodeClassMask = node_classes
    description.ResultMask = fields
    return description
