"""What the server says about variables: type, shape, access, unit and ranges.

Units, ranges and the names of states are properties of a variable (OPC 10000-8, 5.3: AnalogItemType,
TwoStateDiscreteType, MultiStateDiscreteType and others); the names of an enumeration's values are properties of its
data type (OPC 10000-3, 5.8.3). A property counts wherever it is found, whatever type its variable has.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from asyncua import ua

from mxgw.convert import duration_from_seconds, mapped_data_type
from mxgw.v1.commands_pb2 import EngineeringUnits, EnumerationName, ItemMetadata, ItemReference, ValueRange
from mxgw_worker.backends.base import E_FAIL, E_INVALIDARG, MxError

from .browsing import browse
from .link import Link
from .references import local_node_id, locate
from .server_connection import ServerConnection
from .texts import shown
from .types import DataTypes, plain, read
from .values import DATA_TYPES

# Bounds on what is taken over from a server.
_TEXT_CHARACTERS = 1024
_NAMES = 1000
_DIMENSIONS = 32
_LONGEST_INTERVAL_MS = 1e12

_A = ua.AttributeIds
_ATTRIBUTES = (
    _A.NodeClass,
    _A.DataType,
    _A.ValueRank,
    _A.ArrayDimensions,
    _A.UserAccessLevel,
    _A.DisplayName,
    _A.Description,
    _A.MinimumSamplingInterval,
)
_READABLE, _WRITEABLE = 0b01, 0b10
_OF_VARIABLES = frozenset(
    {"EngineeringUnits", "EURange", "InstrumentRange", "EnumStrings", "EnumValues", "TrueState", "FalseState"}
)
_OF_DATA_TYPES = frozenset({"EnumStrings", "EnumValues"})
_Properties = Mapping[str, Any]


class Describer:
    """Describes items by what the server has stored about their nodes. Nothing is kept: servers can change it."""

    def __init__(self, connection: ServerConnection, types: DataTypes) -> None:
        self._connection = connection
        self._types = types

    async def describe(self, items: Sequence[ItemReference]) -> list[ItemMetadata | MxError]:
        """Return one answer per item; see `Describable`.

        Raises:
            MxError: the server did not answer.
        """
        try:
            return await self._describe(items)
        except (ua.UaError, OSError, TimeoutError) as error:
            raise MxError(E_FAIL, f"the OPC UA server did not describe the items: {type(error).__name__}") from error

    async def _describe(self, items: Sequence[ItemReference]) -> list[ItemMetadata | MxError]:
        # All requests go to one connection: node ids that were found on it can name other nodes on the next one.
        link = self._connection.link
        found = await locate(link, [(item.item_definition, item.item_context) for item in items])
        nodes = list(dict.fromkeys(node for node in found if isinstance(node, ua.NodeId)))
        rows = dict(zip(nodes, await read(link, nodes, _ATTRIBUTES), strict=True))
        variables = [node for node in nodes if plain(rows[node][0]) == ua.NodeClass.Variable]
        types = list(dict.fromkeys(t for node in variables if isinstance(t := plain(rows[node][1]), ua.NodeId)))
        built_in = await self._types.built_in(link, types)
        names = {t: plain(row[0]) for t, row in zip(types, await read(link, types, (_A.BrowseName,)), strict=True)}
        # The types that every server has need no names of their values.
        own_types = [t for t in types if t.NamespaceIndex or not isinstance(t.Identifier, int) or t.Identifier > 29]
        properties = await _properties(link, variables, _OF_VARIABLES)
        properties |= await _properties(link, own_types, _OF_DATA_TYPES)
        metadata = {
            node: _metadata(
                rows[node],
                built_in.get(plain(rows[node][1]), 0),
                names.get(plain(rows[node][1])),
                properties[node],
                properties.get(plain(rows[node][1]), {}),
            )
            for node in variables
        }
        return [
            metadata[node] if node in metadata else _refusal(item, node, rows)
            for item, node in zip(items, found, strict=True)
        ]


def _refusal(item: ItemReference, node: ua.NodeId | int, rows: Mapping[ua.NodeId, Sequence[Any]]) -> MxError:
    code = node if isinstance(node, int) else rows[node][0].StatusCode.value
    why = ua.StatusCode(code).name if code else "it is no variable"
    return MxError(E_INVALIDARG, f"no item {item.item_definition!r}: {why}")


async def _properties(
    link: Link, nodes: Sequence[ua.NodeId], wanted: frozenset[str]
) -> dict[ua.NodeId, dict[str, Any]]:
    """Return the values of the wanted properties of each node, by their names."""
    values: dict[ua.NodeId, dict[str, Any]] = {node: {} for node in nodes}
    places: list[tuple[ua.NodeId, str]] = []
    ids: list[ua.NodeId] = []
    for node, children in zip(nodes, await browse(link, nodes, int(ua.NodeClass.Variable)), strict=True):
        for child in () if isinstance(children, int) else children:
            name = child.BrowseName
            node_id = local_node_id(child.NodeId, link.namespaces)
            if name.NamespaceIndex == 0 and name.Name in wanted and node_id is not None:
                places.append((node, name.Name))
                ids.append(node_id)
    for (node, name), (value,) in zip(places, await read(link, ids, (_A.Value,)), strict=True):
        values[node].setdefault(name, plain(value))
    return values


def _metadata(
    row: Sequence[Any], built_in: int, type_name: Any, properties: _Properties, type_properties: _Properties
) -> ItemMetadata:
    _, _, rank, dimensions, access, display_name, description, interval_ms = (plain(value) for value in row)
    metadata = ItemMetadata(
        source_data_type=_text(getattr(type_name, "Name", None)),
        display_name=_localized(display_name),
        description=_localized(description),
        engineering_units=_units(properties.get("EngineeringUnits")),
        range=_range(properties.get("EURange")),
        instrument_range=_range(properties.get("InstrumentRange")),
        enumeration=_names(properties) or _names(type_properties),
    )
    native = DATA_TYPES.get(built_in)
    if native is not None:
        metadata.data_type = mapped_data_type(native)
    # A rank of -2 or -3 allows both scalars and arrays.
    if isinstance(rank, int) and rank >= -1:
        metadata.is_array = rank >= 0
        metadata.array_dimensions.extend(_shape(rank, dimensions))
    if isinstance(access, int):
        metadata.readable, metadata.writeable = bool(access & _READABLE), bool(access & _WRITEABLE)
    # A negative interval means that the server does not know it.
    if isinstance(interval_ms, float) and 0 <= interval_ms < _LONGEST_INTERVAL_MS:
        metadata.minimum_sampling_interval.CopyFrom(duration_from_seconds(interval_ms / 1000))
    return metadata


def _shape(rank: int, dimensions: Any) -> list[int]:
    """Return the length of each dimension; 0 where the server does not limit it."""
    if not 0 < rank <= _DIMENSIONS:
        return []
    return list(dimensions) if isinstance(dimensions, list) and len(dimensions) == rank else [0] * rank


def _text(text: str | None) -> str:
    return shown(text)[:_TEXT_CHARACTERS]


def _localized(text: Any) -> str:
    return _text(text.Text) if isinstance(text, ua.LocalizedText) else ""


def _range(value: Any) -> ValueRange | None:
    if not isinstance(value, ua.Range) or not math.isfinite(value.Low) or not math.isfinite(value.High):
        return None
    return ValueRange(low=value.Low, high=value.High)


def _units(value: Any) -> EngineeringUnits | None:
    if not isinstance(value, ua.EUInformation):
        return None
    units = EngineeringUnits(
        symbol=_localized(value.DisplayName),
        description=_localized(value.Description),
        namespace_uri=_text(value.NamespaceUri),
        unit_id=value.UnitId,
    )
    return units if units.ByteSize() else None


def _names(properties: _Properties) -> list[EnumerationName]:
    values, texts = properties.get("EnumValues"), properties.get("EnumStrings")
    if isinstance(values, list):
        found = [(value.Value, value.DisplayName) for value in values if isinstance(value, ua.EnumValueType)]
    elif isinstance(texts, list):
        found = list(enumerate(texts))
    else:
        states = enumerate((properties.get("FalseState"), properties.get("TrueState")))
        found = [(value, text) for value, text in states if isinstance(text, ua.LocalizedText)]
    return [EnumerationName(value=value, name=_localized(text)) for value, text in found[:_NAMES]]
