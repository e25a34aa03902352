"""Converts OPC UA StatusCodes to OPC DA qualities and to MXSTATUS_PROXY.

The raw StatusCode is always kept. Unless the code is plain Good, a second status follows the mapped status. The second
status has the same success, category and source. Its `raw_detail` is the StatusCode as a signed 32-bit number, and its
mapped detail is not set.

Source: OPC UA Part 4 section 7.39 (StatusCode), Part 8 annex A (COM mapping); native numbers in `mxgw.convert`.
"""

from __future__ import annotations

from asyncua import ua

from mxgw.convert import ok_status, status
from mxgw.v1.values_pb2 import MxStatus

GOOD = 192
BAD_COMMUNICATION = 24

# Native categories, sources and details (MxStatusCategory, MxStatusSource, MxStatusDetail).
OK, PENDING, COMMUNICATION, CONFIGURATION, OPERATIONAL, SECURITY = 0, 1, 3, 4, 5, 6
BY_US, BY_SERVER = 0, 5
TIMED_OUT, COMMUNICATION_ERROR, INVALID_REFERENCE = 1, 2, 6

_CODE_MASK = 0xFFFF0000
_SEVERITY_MASK = 0xC0000000
_INFO_IS_DATA_VALUE = 0x0400
_INFO_TYPE_MASK = 0x0C00
_OVERFLOW = 0x0080
_LIMITS_SHIFT, _LIMITS_MASK = 8, 0x3

_codes = ua.StatusCodes

_QUALITIES: dict[int, int] = {
    _codes.GoodLocalOverride: 216,
    _codes.UncertainLastUsableValue: 68,
    _codes.UncertainNoCommunicationLastUsableValue: 68,
    _codes.UncertainSensorNotAccurate: 80,
    _codes.UncertainEngineeringUnitsExceeded: 84,
    _codes.UncertainSubNormal: 88,
    _codes.BadConfigurationError: 4,
    _codes.BadNodeIdUnknown: 4,
    _codes.BadNodeIdInvalid: 4,
    _codes.BadAttributeIdInvalid: 4,
    _codes.BadNoMatch: 4,
    _codes.BadNotConnected: 8,
    _codes.BadServerNotConnected: 8,
    _codes.BadDeviceFailure: 12,
    _codes.BadSensorFailure: 16,
    _codes.BadNoCommunication: 24,
    _codes.BadCommunicationError: 24,
    _codes.BadTimeout: 24,
    _codes.BadConnectionClosed: 24,
    _codes.BadOutOfService: 28,
    _codes.BadWaitingForInitialData: 32,
}

# StatusCodes about the request or the reference. Key: StatusCode. Value: native category and native detail.
_FAILURES: dict[int, tuple[int, int]] = {
    _codes.BadNodeIdUnknown: (CONFIGURATION, INVALID_REFERENCE),
    _codes.BadNodeIdInvalid: (CONFIGURATION, INVALID_REFERENCE),
    _codes.BadNoMatch: (CONFIGURATION, INVALID_REFERENCE),
    _codes.BadBrowseNameInvalid: (CONFIGURATION, INVALID_REFERENCE),
    _codes.BadAttributeIdInvalid: (CONFIGURATION, 1001),
    _codes.BadIndexRangeInvalid: (CONFIGURATION, 1003),
    _codes.BadIndexRangeNoData: (CONFIGURATION, 1003),
    _codes.BadConfigurationError: (CONFIGURATION, 1009),
    _codes.BadNotReadable: (OPERATIONAL, 1006),
    _codes.BadNotWritable: (OPERATIONAL, 1007),
    _codes.BadWriteNotSupported: (OPERATIONAL, 1007),
    _codes.BadTypeMismatch: (OPERATIONAL, 1005),
    _codes.BadOutOfRange: (OPERATIONAL, 1004),
    _codes.BadRequestTooLarge: (OPERATIONAL, 1004),
    _codes.BadEncodingLimitsExceeded: (OPERATIONAL, 1004),
    _codes.BadUserAccessDenied: (SECURITY, 1008),
    _codes.BadSecurityModeInsufficient: (SECURITY, 1008),
    _codes.BadTimeout: (COMMUNICATION, TIMED_OUT),
    _codes.BadRequestTimeout: (COMMUNICATION, TIMED_OUT),
    _codes.BadCommunicationError: (COMMUNICATION, COMMUNICATION_ERROR),
    _codes.BadDecodingError: (COMMUNICATION, COMMUNICATION_ERROR),
    _codes.BadNoCommunication: (COMMUNICATION, COMMUNICATION_ERROR),
    _codes.BadConnectionClosed: (COMMUNICATION, COMMUNICATION_ERROR),
    _codes.BadNotConnected: (COMMUNICATION, COMMUNICATION_ERROR),
    _codes.BadServerNotConnected: (COMMUNICATION, COMMUNICATION_ERROR),
    _codes.BadShutdown: (COMMUNICATION, 5),
    _codes.BadServerHalted: (COMMUNICATION, 5),
    _codes.BadTooManyMonitoredItems: (OPERATIONAL, 26),
    _codes.BadTooManySubscriptions: (OPERATIONAL, 26),
    _codes.BadTooManyOperations: (OPERATIONAL, 26),
    _codes.BadOutOfMemory: (OPERATIONAL, 26),
    _codes.BadResourceUnavailable: (OPERATIONAL, 26),
}

# A value with one of these StatusCodes means that the item itself cannot be read. All other StatusCodes only describe
# the quality of a value.
_ITEM_FAILURES = frozenset(
    {
        _codes.BadNodeIdUnknown,
        _codes.BadNodeIdInvalid,
        _codes.BadAttributeIdInvalid,
        _codes.BadIndexRangeInvalid,
        _codes.BadIndexRangeNoData,
        _codes.BadNotReadable,
        _codes.BadUserAccessDenied,
        _codes.BadSecurityModeInsufficient,
    }
)

_NODE_GONE = frozenset({_codes.BadNodeIdUnknown, _codes.BadNodeIdInvalid})

_OK_STATUSES = (ok_status(),)


def quality_of(code: int) -> int:
    """Return the OPC DA quality of a StatusCode. The limit bits of the StatusCode are included."""
    if code == 0:
        return GOOD
    quality = _QUALITIES.get(code & _CODE_MASK)
    if quality is None:
        quality = {0: GOOD, 0x40000000: 64}.get(code & _SEVERITY_MASK, 0)
    if code & _INFO_TYPE_MASK == _INFO_IS_DATA_VALUE:
        quality |= code >> _LIMITS_SHIFT & _LIMITS_MASK
    return quality


def overflowed(code: int) -> bool:
    """Return True when the code says that the server's queue for this item has dropped values."""
    return code & (_INFO_TYPE_MASK | _OVERFLOW) == _INFO_IS_DATA_VALUE | _OVERFLOW


def failure_of(code: int) -> int:
    """Return the failure that the code stands for. All codes that say that there is no such node are one failure."""
    code &= _CODE_MASK
    return int(_codes.BadNodeIdUnknown) if code in _NODE_GONE or code == _codes.BadNoMatch else code


def node_is_gone(code: int) -> bool:
    """Return True when the code says that the server does not have the node."""
    return code & _CODE_MASK in _NODE_GONE


def value_statuses(code: int) -> tuple[MxStatus, ...]:
    """Return the statuses of a data change with this StatusCode.

    A bad code about the quality of the value is no failure: the item works, and caches must store its bad quality. A
    code is a failure when it means that the item cannot be read.
    """
    if code == 0:
        return _OK_STATUSES
    if code & _CODE_MASK in _ITEM_FAILURES:
        return failure_statuses(code)
    return _with_raw(-1, OK, BY_SERVER, 0, code)


def failure_statuses(code: int) -> tuple[MxStatus, ...]:
    """Return the statuses of an item or an operation that failed with this StatusCode."""
    category, detail = _FAILURES.get(code & _CODE_MASK, (OPERATIONAL, 1009))
    return _with_raw(0, category, BY_SERVER, detail, code)


def result_statuses(code: int) -> tuple[MxStatus, ...]:
    """Return the statuses of a finished write or mode change, which the server answered with this StatusCode."""
    if code & _SEVERITY_MASK in (0x80000000, 0xC0000000):
        return failure_statuses(code)
    if code == 0:
        return _OK_STATUSES
    pending = code & _CODE_MASK == _codes.GoodCompletesAsynchronously
    return _with_raw(-1, PENDING if pending else OK, BY_SERVER, 0, code)


def pending_status() -> MxStatus:
    """Return the status of an operation whose completion follows."""
    return status(-1, PENDING, BY_US, 0)


def local_failure(category: int, detail: int) -> tuple[MxStatus, ...]:
    """Return the statuses of a failure that this backend found itself, without asking the server."""
    return (status(0, category, BY_US, detail),)


def lost_statuses() -> tuple[MxStatus, ...]:
    """Return the statuses of the data change that reports an outage.

    `success` is true, so that every cache replaces the good quality with the bad one. After a failure, caches would
    keep the old value as a good one (docs/reference/mxaccess.md#statuses, #stale-values).
    """
    return (status(-1, COMMUNICATION, BY_US, COMMUNICATION_ERROR),)


def exception_statuses(error: Exception) -> tuple[MxStatus, ...]:
    """Return the statuses of an operation whose request failed as a whole: by a fault, a timeout or a lost
    connection.
    """
    if isinstance(error, ua.UaStatusCodeError):
        return failure_statuses(error.code)
    if isinstance(error, TimeoutError):
        return local_failure(COMMUNICATION, TIMED_OUT)
    return local_failure(COMMUNICATION, COMMUNICATION_ERROR)


def _with_raw(success: int, category: int, source: int, detail: int, code: int) -> tuple[MxStatus, ...]:
    raw = status(success, category, source, 0)
    # In this status `raw_detail` is a StatusCode and no native detail, so there is no mapped detail.
    raw.ClearField("detail")
    raw.raw_detail = code - 0x1_0000_0000 if code & 0x80000000 else code
    return (status(success, category, source, detail), raw)
