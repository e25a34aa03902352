"""The alarm manager's COM object itself. Import this in the thread of an apartment only, see `interfaces.py`.

Source of names and orders of arguments: docs/reference/mxaccess.md#alarm-consumer.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from ctypes import addressof, byref, c_uint32, c_void_p

assert sys.platform == "win32"

from mxgw_worker.backends.mxaccess.windows.late_bound import LateBound, class_of  # noqa: E402, I001
from comtypes.automation import VARIANT, VT_BSTR, VT_EMPTY, VT_NULL  # noqa: E402

from mxgw_worker.backends.base import E_FAIL, MxError  # noqa: E402
from mxgw_worker.backends.mxaccess.alarms.consumer import Use  # noqa: E402
from mxgw_worker.backends.mxaccess.alarms.options import AlarmOptions  # noqa: E402
from mxgw_worker.backends.mxaccess.alarms.records import MOST_CHARACTERS  # noqa: E402
from mxgw_worker.backends.mxaccess.variant_layout import VALUE_OFFSET  # noqa: E402
from mxgw_worker.backends.mxaccess.windows.ole_memory import date_of_text  # noqa: E402

# All that is known of the identifier of the class.
_CLASS_BEGINS = "7AB52E5F"
_READ, _ACKNOWLEDGE = "GetXmlCurrentAlarms2", "AlarmAckByName"


class WnwrapConsumer:
    """Implements `AlarmConsumer` on wwAlarmConsumer."""

    def __init__(self, options: AlarmOptions, use: Use) -> None:
        """Make the object.

        Raises:
            MxError: it cannot be made; the text says what to do.
        """
        method, parameters = (_READ, 2) if use is Use.READING else (_ACKNOWLEDGE, len(options.acknowledge))
        self._object = LateBound(class_of(options.consumer, _CLASS_BEGINS), method, parameters)
        self._undo: list[str] = []

    def initialize(self, application: str) -> int:
        code = _number(self._object.call("InitializeConsumer", application))
        self._undo.append("UninitializeConsumer")
        return code

    def register(self, product: str, application: str, version: str) -> int:
        code = _number(self._object.call("RegisterConsumer", 0, product, application, version))
        self._undo.append("DeregisterConsumer")
        return code

    def subscribe(self, expression: str, from_priority: int, to_priority: int, flags: Sequence[int]) -> int:
        return _number(self._object.call("Subscribe", expression, from_priority, to_priority, *flags))

    def set_query(self, xml: str) -> int:
        return _number(self._object.call("SetXmlAlarmQuery", xml))

    def current_alarms(self, most: int) -> str:
        answer = VARIANT()  # which frees what it holds when it ends
        self._object.call(_READ, most, byref(answer))
        if answer.vt in (VT_EMPTY, VT_NULL):
            return ""
        if answer.vt != VT_BSTR:
            raise MxError(E_FAIL, f"the alarm manager answers with a VARIANT of type {answer.vt}, not with a text")
        # The number of bytes stands before a BSTR.
        text = c_void_p.from_address(addressof(answer) + VALUE_OFFSET).value
        if text and c_uint32.from_address(text - 4).value > 2 * MOST_CHARACTERS:
            raise MxError(E_FAIL, f"the alarm manager's answer has more than {MOST_CHARACTERS} characters")
        return str(answer.value or "")

    def acknowledge(self, arguments: Sequence[str]) -> int:
        return _number(self._object.call(_ACKNOWLEDGE, *arguments))

    date_of: Callable[[str], float] = staticmethod(date_of_text)

    def release(self) -> None:
        for method in reversed(self._undo):
            with suppress(MxError):  # it is released nevertheless
                self._object.call(method)
        self._undo = []
        self._object.release()


def _number(result: object) -> int:
    # A method without a result of its own has succeeded.
    return result if isinstance(result, int) else 0
