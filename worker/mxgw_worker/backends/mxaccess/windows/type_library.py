"""Reads type libraries: which interfaces and methods a COM component says that it has.

Import this in the thread of an apartment only, see `interfaces.py`.
"""

from __future__ import annotations

import sys
from ctypes import c_void_p, sizeof
from itertools import zip_longest
from typing import Any

assert sys.platform == "win32"

# The first import of all that have to do with comtypes.
from mxgw_worker.backends.mxaccess.windows import interfaces  # noqa: F401, E402, I001
from comtypes import COMError  # noqa: E402
from comtypes import automation, typeinfo  # noqa: E402

from mxgw_worker.backends.mxaccess.survey.recording import vartype_name  # noqa: E402

_KINDS = {
    typeinfo.TKIND_ENUM: "enumeration",
    typeinfo.TKIND_RECORD: "record",
    typeinfo.TKIND_INTERFACE: "interface",
    typeinfo.TKIND_DISPATCH: "dispatch interface",
    typeinfo.TKIND_COCLASS: "class",
    typeinfo.TKIND_ALIAS: "alias",
}


def types_of(path: str) -> list[dict[str, object]] | str:
    """Return the interfaces and classes in the type library of a file, or why there is none."""
    try:
        library = typeinfo.LoadTypeLibEx(path, typeinfo.REGKIND_NONE)
        found = []
        for number in range(library.GetTypeInfoCount()):
            described = library.GetTypeInfo(number)
            attributes = described.GetTypeAttr()
            entry: dict[str, object] = {
                "name": library.GetDocumentation(number)[0],
                "kind": _KINDS.get(attributes.typekind, attributes.typekind),
                "id": str(attributes.guid),
            }
            methods = methods_of(described)
            if methods:
                entry["methods"] = shown(methods)
            found.append(entry)
        return found
    except (COMError, OSError) as error:
        return f"it has no type library that can be read: {error}"


def methods_of(described: Any) -> dict[str, tuple[int, str]]:
    """Return the place and the number of each method of a type. The key is its name with its parameters.

    Raises:
        COMError: it cannot be read.
    """
    found = {}
    for number in range(described.GetTypeAttr().cFuncs):
        function = described.GetFuncDesc(number)
        name, *parameters = described.GetNames(function.memid, function.cParams + 1)
        # Offsets are counted in bytes, and there is a pointer at each place.
        place = function.oVft // sizeof(c_void_p)
        types = [_type(function.lprgelemdescParam[each].tdesc) for each in range(function.cParams)]
        # The last parameter of a method that sets a property has no name.
        named = [" ".join(each) for each in zip_longest(types, parameters, fillvalue="")]
        found[f"{name}({', '.join(named)})"] = place, f"{function.memid & 0xFFFFFFFF:#x}"
    return found


def _type(described: Any) -> str:
    """Return the type of a parameter: its name as in VARENUM, with a star for each pointer."""
    stars = ""
    while described.vt == automation.VT_PTR:
        described, stars = described._.lptdesc[0], f"{stars}*"
    return f"{vartype_name(described.vt)}{stars}"


def shown(methods: dict[str, tuple[int, str]]) -> list[str]:
    """Return methods as lines: place, name with parameters, number."""
    return [f"{place}: {method} ({number})" for method, (place, number) in methods.items()]
