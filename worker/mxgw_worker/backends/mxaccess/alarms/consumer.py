"""What the backend needs of the COM object `wwAlarmConsumer`, through which the alarm manager is asked.

`windows/alarm_consumer.py` implements it on the object itself. Names and the order of calls:
docs/reference/mxaccess.md#alarm-consumer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Protocol, TypeAlias


class Use(Enum):
    """What a consumer is for. One consumer cannot do both: a query breaks the acknowledgements of its consumer."""

    READING = "reading"
    ACKNOWLEDGING = "acknowledging"


class AlarmConsumer(Protocol):
    """One object. Every call is made in the thread of its apartment, and can block without a limit.

    Numbers that methods return are those of the object; 0 is success as far as is known. Methods raise MxError with the
    HRESULT of the call.
    """

    def initialize(self, application: str) -> int:
        """Call InitializeConsumer, the first of all."""

    def register(self, product: str, application: str, version: str) -> int:
        """Call RegisterConsumer, without a window."""

    def subscribe(self, expression: str, from_priority: int, to_priority: int, flags: Sequence[int]) -> int:
        """Call Subscribe."""

    def set_query(self, xml: str) -> int:
        """Call SetXmlAlarmQuery, without which no alarms can be read."""

    def current_alarms(self, most: int) -> str:
        """Call GetXmlCurrentAlarms2, and return its XML; "" when it gave none."""

    def acknowledge(self, arguments: Sequence[str]) -> int:
        """Call AlarmAckByName."""

    def date_of(self, text: str) -> float:
        """Return the VT_DATE that a text means in the language of this user.

        Raises:
            ValueError: it is no date.
        """

    def release(self) -> None:
        """Deregister, uninitialize and release the object. Nothing is called afterwards."""


# Makes a consumer in the thread of its apartment. Raises MxError when it cannot be made; E_NOTIMPL says that this
# machine has no such object.
MakeConsumer: TypeAlias = Callable[[Use], AlarmConsumer]
