"""The enums of the contract as Python enums with the same numbers.

A number that this release does not know becomes UNSPECIFIED. The number itself can still be read where an object has a
`raw` message. `DataType` is different: it has the native numbers of MXAccess, because the `data_type` arguments and
`mxgw.convert` expect native numbers.
"""

from __future__ import annotations

import enum
from typing import Self


class _OpenEnum(enum.IntEnum):
    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        return cls(0) if isinstance(value, int) and value != 0 else None


class Quality(_OpenEnum):
    """The quality of a value, in the three classes of OPC DA."""

    UNSPECIFIED = 0
    BAD = 1
    UNCERTAIN = 2
    GOOD = 3


class GapReason(_OpenEnum):
    """Why events were lost. The comments of `GapReason` in `events.proto` explain each reason and what helps."""

    UNSPECIFIED = 0
    RING_EVICTED = 1
    QUEUE_DROPPED = 2
    CONFLATED = 3
    EPOCH_CHANGED = 4
    WORKER_OUTBOX_OVERRUN = 5
    CURSOR_AHEAD = 6
    FILTER_CHANGED = 7
    SOURCE_RECONNECTED = 8
    SOURCE_OVERFLOW = 9
    EVENT_TOO_LARGE = 10


class SourceHealth(_OpenEnum):
    """The state of the worker's connection to its data source.

    While it is LOST, all last values are out of date, even those of good quality.
    """

    UNSPECIFIED = 0
    GOOD = 1
    DEGRADED = 2
    LOST = 3


class WorkerState(_OpenEnum):
    """The state of a session's worker process, as the gateway sees it."""

    UNSPECIFIED = 0
    STARTING = 1
    READY = 2
    SILENT = 3
    STOPPING = 4
    EXITED = 5


class SessionState(_OpenEnum):
    """The state of a session."""

    UNSPECIFIED = 0
    CREATING = 1
    READY = 2
    CLOSING = 3
    CLOSED = 4
    FAULTED = 5
    ADOPTING = 6


class CloseReason(_OpenEnum):
    """Why a session ended."""

    UNSPECIFIED = 0
    CLIENT = 1
    LEASE_EXPIRED = 2
    DETACH_GRACE_EXPIRED = 3
    WORKER_EXITED = 4
    WORKER_SILENT = 5
    WORKER_PROTOCOL_ERROR = 6
    WORKER_START_FAILED = 7
    OVERFLOW_FAIL_FAST = 8
    KILLED_BY_OPERATOR = 9
    OWNER_REVOKED = 10
    GATEWAY_SHUTDOWN = 11


class OnGap(_OpenEnum):
    """What the gateway does when a stream resumes and the gateway no longer holds all events after its position.

    DELIVER_RETAINED: the gateway sends a Gap and goes on with the oldest event that it holds. REFUSE: the stream ends
    with the error `PositionLost`. SNAPSHOT: the gateway sends a Gap and then a snapshot. UNSPECIFIED means
    DELIVER_RETAINED for events and SNAPSHOT for alarms.
    """

    UNSPECIFIED = 0
    DELIVER_RETAINED = 1
    REFUSE = 2
    SNAPSHOT = 3


class AdviseKind(_OpenEnum):
    """How an item is advised. NONE means that the item is not advised."""

    UNSPECIFIED = 0
    NONE = 1
    PLAIN = 2
    SUPERVISORY = 3


class BrowseNodeKind(_OpenEnum):
    """The kind of a browse node. Only an ATTRIBUTE has a reference that can be added as an item."""

    UNSPECIFIED = 0
    AREA = 1
    OBJECT = 2
    ATTRIBUTE = 3


class StatusCategory(_OpenEnum):
    """The category of an MXAccess status (MXSTATUS_PROXY)."""

    UNSPECIFIED = 0
    UNKNOWN = 1
    OK = 2
    PENDING = 3
    WARNING = 4
    COMMUNICATION_ERROR = 5
    CONFIGURATION_ERROR = 6
    OPERATIONAL_ERROR = 7
    SECURITY_ERROR = 8
    SOFTWARE_ERROR = 9
    OTHER_ERROR = 10


class DataType(enum.IntEnum):
    """The native MxDataType numbers, for `data_type` arguments. Source: docs/reference/mxaccess.md#data-types."""

    UNKNOWN = -1
    NO_DATA = 0
    BOOLEAN = 1
    INTEGER = 2
    FLOAT = 3
    DOUBLE = 4
    STRING = 5
    TIME = 6
    ELAPSED_TIME = 7
    REFERENCE_TYPE = 8
    STATUS_TYPE = 9
    DATA_TYPE_ENUM = 10
    SECURITY_CLASSIFICATION_ENUM = 11
    DATA_QUALITY_TYPE = 12
    QUALIFIED_ENUM = 13
    QUALIFIED_STRUCT = 14
    INTERNATIONALIZED_STRING = 15
    BIG_STRING = 16


class AlarmState(_OpenEnum):
    """The state of an alarm: acknowledged (ACK) or not (UNACK), and in alarm (ALM) or returned to normal (RTN).

    An alarm in the state ACK_RTN is no longer active.
    """

    UNSPECIFIED = 0
    UNACK_ALM = 1
    ACK_ALM = 2
    UNACK_RTN = 3
    ACK_RTN = 4

    @property
    def is_in_alarm(self) -> bool:
        return self in (AlarmState.UNACK_ALM, AlarmState.ACK_ALM)

    @property
    def is_unacknowledged(self) -> bool:
        return self in (AlarmState.UNACK_ALM, AlarmState.UNACK_RTN)

    @property
    def is_active(self) -> bool:
        return self.is_in_alarm or self.is_unacknowledged


class AlarmEventKind(_OpenEnum):
    """What happened to an alarm. UPDATED means that details changed and the state did not."""

    UNSPECIFIED = 0
    UPDATED = 1
    RAISED = 2
    ACKNOWLEDGED = 3
    CLEARED = 4
    PROVIDER_CHANGED = 5


class AlarmProvider(_OpenEnum):
    """The source of alarms: the alarm manager (PRIMARY), the sub-attributes of objects (FALLBACK), or none (NONE)."""

    UNSPECIFIED = 0
    PRIMARY = 1
    FALLBACK = 2
    NONE = 3


class AcknowledgeOutcome(_OpenEnum):
    """The answer of the source to an acknowledgement."""

    UNSPECIFIED = 0
    ACCEPTED = 1
    ALREADY_ACKNOWLEDGED = 2
    NOT_ACTIVE = 3
    DENIED = 4
    FAILED = 5
    UNKNOWN = 6
