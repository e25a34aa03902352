"""What a source says about items, and how it is asked to report them."""

from __future__ import annotations

from dataclasses import dataclass

from mxgw.convert import duration_from_seconds, duration_to_seconds
from mxgw.v1 import commands_pb2, values_pb2
from mxgw_client.enums import DataType


@dataclass(frozen=True, slots=True)
class ItemOptions:
    """How the source reports an item. None is as the backend's own options have it.

    With a deadband, a number is reported only when it differs from the last reported one by more than
    `absolute_deadband`, in the item's own unit, or by more than `percent_deadband` percent of `ItemMetadata.range`. One
    of the two can be set. `sampling_interval_s` is how often the source looks at the value, in seconds; 0 as fast as it
    can.

    MXAccess has no such options. A backend without them refuses the item (reason ITEM_OPTIONS_NOT_SUPPORTED). A source
    that cannot do what is asked for this item says so as the status of its first data change.
    """

    absolute_deadband: float | None = None
    percent_deadband: float | None = None
    sampling_interval_s: float | None = None

    def __post_init__(self) -> None:
        if self.absolute_deadband is not None and self.percent_deadband is not None:
            raise ValueError("an item has an absolute deadband or a percent deadband, not both")


@dataclass(frozen=True, slots=True)
class EngineeringUnits:
    """The unit of a value. `symbol` is for people, for example "°C". `unit_id` is the unit's number in the list of
    units that `namespace_uri` names.
    """

    symbol: str
    description: str
    namespace_uri: str
    unit_id: int


@dataclass(frozen=True, slots=True)
class ValueRange:
    """A range of values; both ends belong to it."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class ItemMetadata:
    """What the source says about an item. What it does not say is None or empty.

    `data_type` is None when MXAccess has no such type; `source_data_type` is the source's own name of the type.
    `array_dimensions` has the length of each dimension, outermost first, and 0 for one that may have any length.
    `readable` and `writeable` are for the user of the session. `range` is where the value lies in normal operation,
    `instrument_range` what the instrument can measure or set. `enumeration` has the names of an enumeration's values.
    The source looks at the value at most every `minimum_sampling_interval_s` seconds; 0 when it reports each change.
    """

    data_type: DataType | None
    source_data_type: str
    is_array: bool | None
    array_dimensions: tuple[int, ...]
    readable: bool | None
    writeable: bool | None
    security_classification: str
    display_name: str
    description: str
    engineering_units: EngineeringUnits | None
    range: ValueRange | None
    instrument_range: ValueRange | None
    enumeration: dict[int, str]
    minimum_sampling_interval_s: float | None


def options_to_message(options: ItemOptions | None) -> commands_pb2.ItemOptions | None:
    """Convert options to their protobuf message; None when there are none."""
    if options is None:
        return None
    message = commands_pb2.ItemOptions()
    if options.absolute_deadband is not None:
        message.absolute_deadband = options.absolute_deadband
    if options.percent_deadband is not None:
        message.percent_deadband = options.percent_deadband
    if options.sampling_interval_s is not None:
        message.sampling_interval.CopyFrom(duration_from_seconds(options.sampling_interval_s))
    return message


def options_from_message(message: commands_pb2.ItemOptions) -> ItemOptions:
    """Convert the protobuf message of options."""
    deadband = message.WhichOneof("deadband")
    return ItemOptions(
        message.absolute_deadband if deadband == "absolute_deadband" else None,
        message.percent_deadband if deadband == "percent_deadband" else None,
        duration_to_seconds(message.sampling_interval) if message.HasField("sampling_interval") else None,
    )


def data_type_from_message(number: values_pb2.MxDataType.ValueType) -> DataType | None:
    """Return the native data type; None when it is not set, or unknown to this release."""
    native = number - 2
    return DataType(native) if number and native in list(DataType) else None


def security_from_message(number: values_pb2.MxSecurityClassification.ValueType) -> str:
    """Return the name of a security classification; "" when it is not set, or unknown to this release."""
    security = values_pb2.MxSecurityClassification
    known = number in security.values() and number
    return security.Name(number).removeprefix("MX_SECURITY_CLASSIFICATION_") if known else ""


def metadata_from_message(message: commands_pb2.ItemMetadata) -> ItemMetadata:
    """Convert the protobuf message of metadata."""
    units, interval = message.engineering_units, message.minimum_sampling_interval
    return ItemMetadata(
        data_type_from_message(message.data_type),
        message.source_data_type,
        message.is_array if message.HasField("is_array") else None,
        tuple(message.array_dimensions),
        message.readable if message.HasField("readable") else None,
        message.writeable if message.HasField("writeable") else None,
        security_from_message(message.security_classification),
        message.display_name,
        message.description,
        EngineeringUnits(units.symbol, units.description, units.namespace_uri, units.unit_id)
        if message.HasField("engineering_units")
        else None,
        ValueRange(message.range.low, message.range.high) if message.HasField("range") else None,
        ValueRange(message.instrument_range.low, message.instrument_range.high)
        if message.HasField("instrument_range")
        else None,
        {entry.value: entry.name for entry in message.enumeration},
        duration_to_seconds(interval) if message.HasField("minimum_sampling_interval") else None,
    )
