"""MXAccess' COM object, which also tells what the backend does not need: types of arguments, its words, its methods.

Import this in the thread of an apartment only, see `interfaces.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from ctypes import c_ushort
from typing import Any

assert sys.platform == "win32"

# The first import of all that have to do with comtypes.
from mxgw_worker.backends.mxaccess.windows import interfaces  # noqa: E402, I001
from comtypes import COMError  # noqa: E402

from mxgw_worker.backends.mxaccess.dates import Dates  # noqa: E402
from mxgw_worker.backends.mxaccess.survey.recording import Recorder  # noqa: E402
from mxgw_worker.backends.mxaccess.windows.lmx_proxy import LmxProxy  # noqa: E402
from mxgw_worker.backends.mxaccess.windows.registration import alarm_libraries  # noqa: E402
from mxgw_worker.backends.mxaccess.windows.type_library import methods_of, shown, types_of  # noqa: E402

# Before the methods of an interface stand those of IUnknown and IDispatch.
_INHERITED = 7
_MEMBER_NAMES = {
    (1, interfaces.ON_DATA_CHANGE): ("value", "quality", "time", "statuses"),
    (1, interfaces.ON_WRITE_COMPLETE): ("statuses",),
    (1, interfaces.OPERATION_COMPLETE): ("statuses",),
    (2, interfaces.ON_BUFFERED_DATA_CHANGE): ("data_type", "value", "quality", "time", "statuses"),
}


class ObservedProxy(LmxProxy):
    """Implements `survey.client.ObservedCom`."""

    def __init__(self, recorder: Recorder) -> None:
        """Make the object, and connect to its events. Their dates are read as if they were UTC.

        Raises:
            BackendUnavailable: it cannot be made; the text says what to do.
        """
        self._recorder = recorder
        super().__init__(recorder, Dates(local=False))

    def description(self) -> dict[str, object]:
        """Return what the object says of itself: its interfaces, its events, and its methods in their order.

        What the libraries of alarm consumers say of theirs is there too; none of these is made.
        """
        facts: dict[str, object] = {
            "interfaces": [number for number in interfaces.VERSIONS if self._has(interfaces.VERSIONS[number])],
            "events": [number for number, point in enumerate(self._points, 1) if point is not None],
        }
        try:
            methods = methods_of(self._object.GetTypeInfo(0))
        except (COMError, OSError) as error:
            facts["methods"] = f"it does not describe itself: {error}"
        else:
            facts["methods"] = shown(methods)
            places = {method.partition("(")[0]: place for method, (place, _) in methods.items()}
            facts["methods_at_other_places"] = [
                f"{name}: {place} expected, {places[name]} found"
                for place, name in enumerate(_expected(), _INHERITED)
                if name in places and places[name] != place
            ]
        facts["alarm_consumers"] = {path: types_of(path) for path in alarm_libraries()}
        return facts

    def _has(self, interface: Any) -> bool:
        try:
            self._object.QueryInterface(interface)
        except COMError:
            return False
        return True

    def _said(self, method: str, hresult: int, text: str) -> None:
        self._recorder.said(method, hresult, text)

    def _receive(self, member: int, arguments: list[int]) -> None:
        self._observe(1, member, arguments)
        super()._receive(member, arguments)

    def _receive_2(self, member: int, arguments: list[int]) -> None:
        self._observe(2, member, arguments)
        super()._receive_2(member, arguments)

    def _observe(self, interface: int, member: int, arguments: Sequence[int]) -> None:
        names = _MEMBER_NAMES.get((interface, member), ())
        types = [c_ushort.from_address(address).value for address in arguments[2:]]
        self._recorder.types(dict(zip(names, types, strict=False)))


def _expected() -> list[str]:
    """Return the names of the methods in the order in which this backend calls them."""
    names: list[str] = []
    for interface in interfaces.VERSIONS.values():
        names += [method.name for method in interface.__dict__["_methods_"]]
    return names
