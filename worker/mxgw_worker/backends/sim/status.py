"""The native numbers of MXAccess that the simulator answers with, and the statuses built from them.

Source: docs/reference/mxaccess.md#statuses, #status-details, #data-types, #security-classifications, #qualities.
"""

from __future__ import annotations

from enum import IntEnum
from functools import cache

from mxgw.convert import ok_status, status
from mxgw.v1.values_pb2 import MxStatus

GOOD = 192
BAD_CONFIGURATION = 4
BAD_LAST_KNOWN = 20
BAD_COMMUNICATION = 24
WAITING_FOR_INITIAL_DATA = 32
UNCERTAIN_SENSOR = 80


class Detail(IntEnum):
    """The native numbers of MxStatusDetail that the simulator uses."""

    PLATFORM_COMMUNICATION_ERROR = 2
    INVALID_REFERENCE = 6
    INVALID_OBJECT_ID = 8
    RESOLVING_ATTRIBUTE = 11
    WRONG_DATA_TYPE = 13
    WRONG_NUMBER_OF_DIMENSIONS = 14
    INVALID_INDEX = 15
    UNABLE_TO_CONVERT_STRING = 19
    OVERFLOW = 20
    INVALID_ATTRIBUTE_ID = 1001
    INDEX_OUT_OF_RANGE = 1003
    DATA_OUT_OF_RANGE = 1004
    INCORRECT_DATA_TYPE = 1005
    NOT_WRITEABLE = 1007
    WRITE_ACCESS_DENIED = 1008
    ENGINE_INITIALIZING = 1011
    SECURED_WRITE = 1012
    VERIFIED_WRITE = 1013
    NO_ALARM_ACK_PRIVILEGE = 1014
    ALARM_ACKED_ALREADY = 1015
    USER_NOT_HAVING_ACCESS_RIGHTS = 1016
    VERIFIER_NOT_HAVING_VERIFY_RIGHTS = 1017


class DataType(IntEnum):
    """The native numbers of MxDataType."""

    UNKNOWN = -1
    NO_DATA = 0
    BOOLEAN = 1
    INTEGER = 2
    FLOAT = 3
    DOUBLE = 4
    STRING = 5
    TIME = 6
    ELAPSED_TIME = 7
    REFERENCE = 8
    STATUS = 9
    DATA_TYPE_ENUM = 10
    SECURITY_ENUM = 11
    QUALITY = 12
    QUALIFIED_ENUM = 13
    QUALIFIED_STRUCT = 14
    INTERNATIONALIZED_STRING = 15
    BIG_STRING = 16


class Security(IntEnum):
    """The native numbers of MxSecurityClassification."""

    FREE_ACCESS = 0
    OPERATE = 1
    SECURED_WRITE = 2
    VERIFIED_WRITE = 3
    TUNE = 4
    CONFIGURE = 5
    VIEW_ONLY = 6


class Refused(Exception):
    """A reference or a value is refused. A refusal is reported as a status, never as an HRESULT."""

    def __init__(self, detail: Detail) -> None:
        super().__init__(detail.name)
        self.detail = detail


_COMMUNICATION, _CONFIGURATION, _OPERATIONAL, _SECURITY = 3, 4, 5, 6
_REQUESTING_LMX, _RESPONDING_LMX, _REQUESTING_NMX, _RESPONDING_OBJECT = 0, 1, 2, 5

# Key: detail. Value: its category, and the component that detects it. The details are native facts. Only 1003 was seen
# with its category (Configuration); the other categories follow from the names of the details.
_ORIGINS: dict[Detail, tuple[int, int]] = {
    Detail.PLATFORM_COMMUNICATION_ERROR: (_COMMUNICATION, _REQUESTING_NMX),
    Detail.INVALID_REFERENCE: (_CONFIGURATION, _REQUESTING_LMX),
    Detail.INVALID_OBJECT_ID: (_CONFIGURATION, _RESPONDING_LMX),
    Detail.INVALID_ATTRIBUTE_ID: (_CONFIGURATION, _RESPONDING_OBJECT),
    Detail.INDEX_OUT_OF_RANGE: (_CONFIGURATION, _RESPONDING_OBJECT),
    Detail.INVALID_INDEX: (_CONFIGURATION, _REQUESTING_LMX),
    Detail.WRONG_NUMBER_OF_DIMENSIONS: (_CONFIGURATION, _REQUESTING_LMX),
    Detail.WRONG_DATA_TYPE: (_OPERATIONAL, _REQUESTING_LMX),
    Detail.UNABLE_TO_CONVERT_STRING: (_OPERATIONAL, _REQUESTING_LMX),
    Detail.OVERFLOW: (_OPERATIONAL, _REQUESTING_LMX),
    Detail.DATA_OUT_OF_RANGE: (_OPERATIONAL, _RESPONDING_OBJECT),
    Detail.INCORRECT_DATA_TYPE: (_OPERATIONAL, _RESPONDING_OBJECT),
    Detail.NOT_WRITEABLE: (_OPERATIONAL, _RESPONDING_OBJECT),
    Detail.ALARM_ACKED_ALREADY: (_OPERATIONAL, _RESPONDING_OBJECT),
    Detail.WRITE_ACCESS_DENIED: (_SECURITY, _RESPONDING_OBJECT),
    Detail.SECURED_WRITE: (_SECURITY, _RESPONDING_OBJECT),
    Detail.VERIFIED_WRITE: (_SECURITY, _RESPONDING_OBJECT),
    Detail.NO_ALARM_ACK_PRIVILEGE: (_SECURITY, _RESPONDING_OBJECT),
    Detail.USER_NOT_HAVING_ACCESS_RIGHTS: (_SECURITY, _RESPONDING_OBJECT),
    Detail.VERIFIER_NOT_HAVING_VERIFY_RIGHTS: (_SECURITY, _RESPONDING_OBJECT),
}

# Every event has exactly one status (docs/reference/mxaccess.md#statuses). All events share these messages, so they
# must never be changed.
OK: tuple[MxStatus, ...] = (ok_status(),)
PENDING: tuple[MxStatus, ...] = (status(-1, 1, _REQUESTING_LMX, 0),)


@cache
def initialising(detail: Detail) -> tuple[MxStatus, ...]:
    """Return the status of a value that has not come yet: pending, and not a failure."""
    return (status(-1, 1, _REQUESTING_LMX, detail),)


@cache
def failed(detail: Detail) -> tuple[MxStatus, ...]:
    """Return the status of a failure with this detail."""
    category, detected_by = _ORIGINS[detail]
    return (status(0, category, detected_by, detail),)
