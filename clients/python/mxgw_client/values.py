"""MXAccess values and statuses as Python values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp

from mxgw.convert import PyValue, from_value, timestamp_to_datetime
from mxgw.v1 import values_pb2
from mxgw_client.enums import StatusCategory

# Kinds of values whose protobuf field already is the Python value.
PLAIN_KINDS = frozenset({"boolean", "integer", "float", "double", "string", "long", "opaque"})


@dataclass(frozen=True, slots=True)
class Status:
    """One MXSTATUS_PROXY.

    `success` is the native number: 0 means failure, every other number does not. `detail` and `detected_by` are native
    numbers too; `detail_name` is the contract's name for the detail, empty when it has none.
    """

    success: int
    category: StatusCategory
    detail: int
    detail_name: str
    detected_by: int

    @property
    def ok(self) -> bool:
        """Whether this is no failure. (The category PENDING is no failure either.)"""
        return self.success != 0

    def __str__(self) -> str:
        return f"{'ok' if self.ok else 'failed'}, {self.category.name}, {self.detail_name or 'detail'} {self.detail}"


def status_from_message(message: values_pb2.MxStatus) -> Status:
    """Return the status in a message; an unknown detail has an empty name and its native number."""
    name = ""
    if message.detail in values_pb2.MxStatusDetail.values() and message.detail:
        name = values_pb2.MxStatusDetail.Name(message.detail).removeprefix("MX_STATUS_DETAIL_")
    return Status(message.success, StatusCategory(message.category), message.raw_detail, name, message.raw_detected_by)


def statuses_from_messages(messages: Iterable[values_pb2.MxStatus]) -> tuple[Status, ...]:
    """Return the statuses in order."""
    return tuple(map(status_from_message, messages))


def value_of(message: values_pb2.MxValue) -> PyValue:
    """Return the Python value, like `mxgw.convert.from_value`, but faster for the usual scalars."""
    kind = message.WhichOneof("kind")
    if kind in PLAIN_KINDS:
        value: PyValue = getattr(message, kind)
        return value
    return from_value(message)


def moment(stamp: Timestamp) -> datetime:
    """Return a timestamp message as an aware datetime in UTC."""
    return timestamp_to_datetime(stamp)
