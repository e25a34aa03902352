"""Finds the built-in type of a node's values from the data type that the node declares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from asyncua import ua

from .batches import Refused, in_batches
from .coerce import NodeType
from .link import Link
from .references import plain_node_id

_HAS_SUBTYPE = ua.NodeId(45, 0)
_ENUMERATION = 29
# Ids of the abstract types BaseDataType, Number, Integer and UInteger. Only a value shows the concrete type.
_ABSTRACT = frozenset({24, 26, 27, 28})
_LAST_BUILT_IN = 25
_MAX_DEPTH = 16


class DataTypes:
    """Looks up types in the server's type tree, and keeps the results until the next connection: a restarted server can
    have other types under the same ids.
    """

    def __init__(self) -> None:
        self._link: Link | None = None
        self._built_in: dict[ua.NodeId, int] = {}

    async def node_types(self, link: Link, node_ids: Sequence[ua.NodeId]) -> list[NodeType | int]:
        """Return the type of each node, or the StatusCode that says why it cannot be found.

        Raises:
            ConnectionError, TimeoutError, ua.UaError: the requests themselves failed.
        """
        attributes = (ua.AttributeIds.DataType, ua.AttributeIds.ValueRank, ua.AttributeIds.Value)
        rows = await read(link, node_ids, attributes)
        declared = [plain(data_type) for data_type, _, _ in rows]
        built_in = await self.built_in(link, [d for d in declared if isinstance(d, ua.NodeId)])
        answers: list[NodeType | int] = []
        for (data_type, rank, value), declaration in zip(rows, declared, strict=True):
            if not isinstance(declaration, ua.NodeId):
                code = data_type.StatusCode.value if data_type.StatusCode is not None else 0
                answers.append(code or int(ua.StatusCodes.BadAttributeIdInvalid))
                continue
            declared_rank = plain(rank)
            answers.append(
                NodeType(_kind(value, built_in[declaration]), declared_rank if isinstance(declared_rank, int) else -1)
            )
        return answers

    async def built_in(self, link: Link, data_types: Sequence[ua.NodeId]) -> dict[ua.NodeId, int]:
        """Return, for each data type, the number of the built-in type from which it is derived. The number is 0 when
        the type is abstract or not known. An enumeration counts as Int32.

        Raises:
            ConnectionError, TimeoutError, ua.UaError: the requests themselves failed.
        """
        if self._link is not link:
            self._link, self._built_in = link, {}
        known = self._built_in
        for data_type in dict.fromkeys(data_types):
            if data_type not in known:
                known[data_type] = await _climb(link, data_type)
        return {data_type: known[data_type] for data_type in data_types}


async def _climb(link: Link, data_type: ua.NodeId) -> int:
    for _ in range(_MAX_DEPTH):
        number = data_type.Identifier
        if data_type.NamespaceIndex == 0 and isinstance(number, int):
            if number == _ENUMERATION:
                return int(ua.VariantType.Int32)
            if number <= _LAST_BUILT_IN or number in _ABSTRACT:
                return 0 if number in _ABSTRACT else number
        parameters = ua.BrowseParameters()
        parameters.View = ua.ViewDescription()
        description = ua.BrowseDescription()
        description.NodeId = data_type
        description.BrowseDirection = ua.BrowseDirection.Inverse
        description.ReferenceTypeId = _HAS_SUBTYPE
        description.IncludeSubtypes = True
        description.ResultMask = ua.BrowseResultMask.None_
        parameters.NodesToBrowse = [description]
        answers = await link.session.browse(parameters)
        if not answers or not answers[0].References:
            return 0
        data_type = plain_node_id(answers[0].References[0].NodeId)
    return 0


async def read(link: Link, node_ids: Sequence[ua.NodeId], attributes: Sequence[ua.AttributeIds]) -> list[list[Any]]:
    """Return one row per node, with one DataValue per attribute. As few requests are sent as the server allows.

    Raises:
        ConnectionError, TimeoutError, ua.UaError: a request failed.
    """

    async def send(some: Sequence[ua.ReadValueId]) -> Sequence[Any]:
        parameters = ua.ReadParameters()
        parameters.TimestampsToReturn = ua.TimestampsToReturn.Neither
        parameters.NodesToRead = list(some)
        answers: Sequence[Any] = await link.session.read(parameters)
        return answers

    wanted = [ua.ReadValueId(NodeId=node_id, AttributeId=attribute) for node_id in node_ids for attribute in attributes]
    answers = [
        ua.DataValue(StatusCode=ua.StatusCode(answer.code)) if isinstance(answer, Refused) else answer
        for answer in await in_batches(link, "read", wanted, send)
    ]
    width = len(attributes)
    return [answers[place * width : (place + 1) * width] for place in range(len(node_ids))]


def plain(value: Any) -> Any:
    """Return the value of a good DataValue; None when the DataValue is not good."""
    if value.StatusCode is not None and not value.StatusCode.is_good():
        return None
    return value.Value.Value if value.Value is not None else None


def _kind(value: Any, built_in: int) -> ua.VariantType | None:
    """Return the built-in type for writing: the declared type, or the type of the present value when the declared type
    is abstract. None when neither is known.
    """
    if built_in:
        return ua.VariantType(built_in)
    kind = value.Value.VariantType if value.Value is not None else None
    return kind if isinstance(kind, ua.VariantType) and kind != ua.VariantType.Null else None
