"""Converts MXAccess values and statuses into Python values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp

from mxgw.convert import PyValue, from_value, timestamp_to_datetime
from mxgw.v1 import values_pb2
from mxgw_client.enums import StatusCategory

# The kinds of values whose protobuf field already has the right Python type.
PLAIN_KINDS = frozenset({"boolean", "integer", "float", "double", "string", "long", "opaque"})


@dataclass(frozen=True, slots=True)
class Status:
    """One status of MXAccess (MXSTATUS_PROXY).

    `success`, `detail` and `detected_by` are the numbers that MXAccess sent. The status is a failure when `success` is
    0. `detail_name` is the name of the detail in the contract, or empty when the contract has no name for it.
    """

    success: int
    category: StatusCategory
    detail: int
    detail_name: str
    detected_by: int

    @property
    def ok(self) -> bool:
        """True when the status is not a failure, which includes the category PENDING."""
        return self.success != 0

    def __str__(self) -> str:
        return f"{'ok' if self.ok else 'failed'}, {self.category.name}, {self.detail_name or 'detail'} {self.detail}"


def status_from_message(message: values_pb2.MxStatus) -> Status:
    """Convert the protobuf message of a status. An unknown detail keeps its number and gets an empty name."""
    name = ""
    if message.detail in values_pb2.MxStatusDetail.values() and message.detail:
        name = values_pb2.MxStatusDetail.Name(message.detail).removeprefix("MX_STATUS_DETAIL_")
    return Status(message.success, StatusCategory(message.category), message.raw_detail, name, message.raw_detected_by)


def statuses_from_messages(messages: Iterable[values_pb2.MxStatus]) -> tuple[Status, ...]:
    """Convert the protobuf messages of statuses, in their order."""
    return tuple(map(status_from_message, messages))


def value_of(message: values_pb2.MxValue) -> PyValue:
    """Return the Python value of a protobuf value: like `mxgw.convert.from_value`, but faster for scalars."""
    kind = message.WhichOneof("kind")
    if kind in PLAIN_KINDS:
        value: PyValue = getattr(message, kind)
        return value
    return from_value(message)


def moment(stamp: Timestamp) -> datetime:
    """Convert a protobuf timestamp into a datetime with the time zone UTC."""
    return timestamp_to_datetime(stamp)
