"""Calls a COM object by the names of its methods, for an object whose identifiers are not known here.

What it has is read from its own type library. Import this in the thread of an apartment only, see `interfaces.py`.
"""

from __future__ import annotations

import sys
import winreg
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

assert sys.platform == "win32"

# The first import of all that have to do with comtypes.
from mxgw_worker.backends.mxaccess.windows import interfaces  # noqa: E402, F401, I001
import comtypes  # noqa: E402
from comtypes import GUID, COMError  # noqa: E402
from comtypes.automation import IDispatch  # noqa: E402
from comtypes.typeinfo import TKIND_DISPATCH, TKIND_INTERFACE, ITypeInfo  # noqa: E402

from mxgw_worker.backends.base import E_NOTIMPL, MxError  # noqa: E402
from mxgw_worker.backends.mxaccess import errors  # noqa: E402

_DISP_E_EXCEPTION = -2147352567  # unsigned: 0x80020009. Source: winerror.h
_PARAMETER_IS_RESULT = 0x8  # PARAMFLAG_FRETVAL. Source: oaidl.h


def class_of(name: str, beginning: str) -> GUID:
    """Return the identifier of a class: that of a ProgID or CLSID, or, for "", the only one that begins so.

    Raises:
        MxError: there is no such class (E_NOTIMPL), or there are several.
    """
    if not name:
        found = sorted(_classes(f"{{{beginning}".upper()))
        if len(found) > 1:
            raise MxError(
                E_NOTIMPL,
                f"several classes can be the alarm manager's: {', '.join(found)}; choose one in alarm_consumer",
            )
        if not found:
            raise MxError(E_NOTIMPL, errors.NO_CONSUMER)
        return GUID(found[0])
    try:
        return GUID(name) if name.startswith("{") else GUID.from_progid(name)
    except OSError as error:
        raise MxError(E_NOTIMPL, f"{errors.NO_CONSUMER}; {name!r}: {error.strerror or error}") from None


def _classes(beginning: str) -> Iterator[str]:
    """Yield the class identifiers that begin so, of those for programs of this bitness."""
    with winreg.OpenKey(winreg.HKEY_CLASSES_ROOT, "CLSID") as classes:
        for place in range(winreg.QueryInfoKey(classes)[0]):
            try:
                name = winreg.EnumKey(classes, place)
            except OSError:  # one was removed meanwhile
                return
            if name.upper().startswith(beginning):
                yield name


class LateBound:
    """One object, by the interface that has a certain method."""

    def __init__(self, wanted: GUID, method: str, parameters: int) -> None:
        """Make the object. `parameters` are those that a caller passes, whatever their direction.

        Raises:
            MxError: it cannot be made, or has no such method.
        """
        try:
            made = comtypes.CoCreateInstance(wanted, IDispatch, comtypes.CLSCTX_INPROC_SERVER)
        except (COMError, OSError) as error:
            code = _hresult(error)
            hresult = E_NOTIMPL if code == errors.REGDB_E_CLASSNOTREG else code
            raise MxError(hresult, errors.of_consumer(code, _text(error))) from None
        self._object = _with_method(made, method, parameters)
        self._ids: dict[str, int] = {}

    def call(self, method: str, *arguments: Any) -> Any:
        """Call a method. An argument for a result is `byref` of a VARIANT.

        Raises:
            MxError: it failed, with the HRESULT of the method itself.
        """
        try:
            member = self._ids.get(method)
            if member is None:
                member = self._ids[method] = self._object.GetIDsOfNames(method)[0]
            return self._object.Invoke(member, *arguments)
        except (COMError, OSError) as error:
            code = _hresult(error)
            failed = MxError(code, errors.of_call(method, code, _text(error)))
        # Outside of the handler: the frames of the COM error must not leave this thread.
        raise failed

    def release(self) -> None:
        """Release the object. Nothing can be called afterwards."""
        del self._object


def _with_method(made: Any, method: str, parameters: int) -> Any:
    """Return the object by the interface that has a method with so many parameters.

    An object can have several versions of an interface, and versions of a method that differ in their parameters;
    `IDispatch` alone leads to one of them. An object without a type library is used as it is.
    """
    try:
        if not made.GetTypeInfoCount():
            return made
        library, _ = made.GetTypeInfo(0).GetContainingTypeLib()
    except (COMError, OSError):
        return made
    for place in range(library.GetTypeInfoCount()):
        described = library.GetTypeInfo(place)
        attributes = described.GetTypeAttr()
        if attributes.typekind not in (TKIND_DISPATCH, TKIND_INTERFACE):
            continue
        if not _has(described, attributes.cFuncs, method, parameters):
            continue
        try:
            return made.QueryInterface(_interface(str(attributes.guid)))
        except COMError:
            continue  # another class of the library has this interface
    raise MxError(
        E_NOTIMPL, f"the alarm manager's object has no method {method} with {parameters} parameters in its type library"
    )


def _has(described: ITypeInfo, functions: int, method: str, parameters: int) -> bool:
    for place in range(functions):
        function = described.GetFuncDesc(place)
        if described.GetNames(function.memid, 1) != [method]:
            continue
        passed = sum(
            not function.lprgelemdescParam[index]._.paramdesc.wParamFlags & _PARAMETER_IS_RESULT
            for index in range(function.cParams)
        )
        if passed == parameters:
            return True
    return False


@lru_cache  # comtypes keeps every class that was made
def _interface(identifier: str) -> Any:
    """Return an interface of which only its identifier matters, because it is called as IDispatch."""
    return type("_Named", (IDispatch,), {"_iid_": GUID(identifier), "_methods_": []})


def _hresult(error: Any) -> int:
    if not isinstance(error, COMError):
        return int(error.winerror or 0)
    details = error.details
    if error.hresult == _DISP_E_EXCEPTION and isinstance(details, tuple) and len(details) > 4 and details[4]:
        return int(details[4])
    return int(error.hresult)


def _text(error: Any) -> str:
    """Return what the object itself says of its error, otherwise what Windows says."""
    if not isinstance(error, COMError):
        return str(error.strerror or "")
    described = error.details[0] if isinstance(error.details, tuple) and error.details else None
    if described or error.hresult != _DISP_E_EXCEPTION:
        return str(described or error.text or "").strip()
    return ""
