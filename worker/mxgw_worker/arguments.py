"""Checks the arguments of commands before the backend gets them. A wrong argument is answered with E_INVALIDARG, as in
a COM call.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Protocol

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from mxgw.convert import duration_to_seconds, timestamp_to_ns
from mxgw.v1.commands_pb2 import (
    AddBufferedItemCommand,
    AddItem2Command,
    AddItemCommand,
    BulkWrite,
    ItemOptions,
    ItemReference,
    Write2Command,
    WriteSecured2Command,
)
from mxgw.v1.values_pb2 import MxArray, MxValue
from mxgw_worker.backends.base import E_INVALIDARG, MxError

_NANOS = range(1_000_000_000)
# The allowed seconds of a Timestamp (years 1 to 9999) and of a Duration.
# Source: google/protobuf/timestamp.proto, duration.proto.
_TIMESTAMP_SECONDS = range(-62_135_596_800, 253_402_300_800)
_DURATION_SECONDS = range(-315_576_000_000, 315_576_000_001)
# The deepest nesting of arrays that is accepted. Values of MXAccess are not nested at all.
_MAXIMUM_DEPTH = 8


_LONGEST_SAMPLING_INTERVAL_S = 3600
# The largest number of characters of a reference, including its context. Source: an item's record must fit the smallest
# frame that can be set, 64 KiB.
REFERENCE_CHARACTERS = 8192


class HasValue(Protocol):
    """Any command that has a value to write."""

    @property
    def value(self) -> MxValue: ...


def checked_value(command: HasValue) -> MxValue:
    """Return the value to write, after a check.

    Raises:
        MxError: E_INVALIDARG, the value is missing or malformed.
    """
    _check(command.value, 0)
    return command.value


def checked_time(command: Write2Command | WriteSecured2Command | BulkWrite) -> int | None:
    """Return the source time that the caller gave, in nanoseconds since 1970 (UTC); None when the caller gave none.

    Raises:
        MxError: E_INVALIDARG, the time is out of range.
    """
    if not command.HasField("time"):
        return None
    _check_timestamp(command.time)
    return timestamp_to_ns(command.time)


def checked_interval_ms(interval_ms: int) -> int:
    """Return the update interval unchanged.

    Raises:
        MxError: E_INVALIDARG, the interval is not positive.
    """
    if interval_ms <= 0:
        raise MxError(E_INVALIDARG, f"the interval is {interval_ms} ms, it must be greater than 0")
    return interval_ms


def check_reference(definition: str, context: str) -> None:
    """Refuse an item without a name, or with too long a reference.

    Raises:
        MxError: E_INVALIDARG.
    """
    if not definition:
        raise MxError(E_INVALIDARG, "the item definition is empty")
    if len(definition) + len(context) > REFERENCE_CHARACTERS:
        raise MxError(
            E_INVALIDARG, f"the item's definition and context have more than {REFERENCE_CHARACTERS} characters"
        )


def checked_options(
    command: AddItemCommand | AddItem2Command | AddBufferedItemCommand | ItemReference,
) -> ItemOptions | None:
    """Return the options of an item to add, after a check; None when the caller gave none.

    Raises:
        MxError: E_INVALIDARG, a number is out of range. Source of the ranges: `ItemOptions` in commands.proto.
    """
    options = command.options
    if not options.ByteSize():
        return None
    absolute, percent = options.absolute_deadband, options.percent_deadband
    if not (absolute >= 0 and math.isfinite(absolute)):
        raise MxError(E_INVALIDARG, "an absolute deadband must be a number of 0 or more")
    if not 0 <= percent <= 100:
        raise MxError(E_INVALIDARG, "a percent deadband must lie between 0 and 100")
    if options.HasField("sampling_interval"):
        _check_duration(options.sampling_interval)
        if not 0 <= duration_to_seconds(options.sampling_interval) <= _LONGEST_SAMPLING_INTERVAL_S:
            raise MxError(E_INVALIDARG, "a sampling interval must lie between 0 and one hour")
    return options


def check_no_options(reference: ItemReference) -> None:
    """Check that an item which is not added has no options.

    Raises:
        MxError: E_INVALIDARG, it has.
    """
    if reference.options.ByteSize():
        raise MxError(E_INVALIDARG, "options belong to items that are added: this call adds none")


def _check(value: MxValue, depth: int) -> None:
    match value.WhichOneof("kind"):
        case None:
            raise MxError(E_INVALIDARG, "the value to write is missing")
        case "time":
            _check_timestamp(value.time)
        case "elapsed_time":
            _check_duration(value.elapsed_time)
        case "array":
            _check_array(value.array, depth)


def _check_array(array: MxArray, depth: int) -> None:
    match array.WhichOneof("elements"):
        case None:
            raise MxError(E_INVALIDARG, "the array to write has no kind of elements")
        case "times":
            for stamp in array.times.elements:
                _check_timestamp(stamp)
        case "elapsed_times":
            for duration in array.elapsed_times.elements:
                _check_duration(duration)
        case "values":
            if depth >= _MAXIMUM_DEPTH:
                raise MxError(E_INVALIDARG, f"arrays are nested deeper than {_MAXIMUM_DEPTH} levels")
            _check_all(array.values.elements, depth + 1)


def _check_all(values: Iterable[MxValue], depth: int) -> None:
    for value in values:
        _check(value, depth)


def _check_timestamp(stamp: Timestamp) -> None:
    if stamp.seconds not in _TIMESTAMP_SECONDS or stamp.nanos not in _NANOS:
        raise MxError(E_INVALIDARG, "a time is out of range: years 1 to 9999, nanos 0 to 999,999,999")


def _check_duration(duration: Duration) -> None:
    if (
        duration.seconds not in _DURATION_SECONDS
        or abs(duration.nanos) not in _NANOS
        or duration.seconds * duration.nanos < 0
    ):
        raise MxError(E_INVALIDARG, "an elapsed time is out of range, or its seconds and nanos differ in sign")
