"""Parses item references: `Object.Attribute`, `Object.Array[]` and `Object.Array[N]`, where N counts from 1.

Source: docs/reference/mxaccess.md#references.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mxgw_worker.backends.sim.status import Detail, Refused

# The name of an attribute can contain dots (`Level.InAlarm`). An index is always at the very end.
_REFERENCE = re.compile(r"(?P<object>[^.\[\]\s]+)\.(?P<attribute>[^\[\]]*[^.\[\]\s])(?:\[(?P<index>[^\[\]]*)\])?")
# The number in an index. A pattern of its own avoids slow matching: within `_REFERENCE`, blanks before and after the
# number could be matched in many ways.
_NUMBER = re.compile(r"-?\d{1,9}")

WHOLE_ARRAY = 0


@dataclass(frozen=True, slots=True)
class Reference:
    """A parsed reference. `index` is None without brackets, `WHOLE_ARRAY` for `[]`, and otherwise the number of an
    element from 1.
    """

    object_name: str
    attribute_name: str
    index: int | None


def parse(text: str) -> Reference:
    """Return the parts of a reference, with upper and lower case as they are in the text.

    Raises:
        Refused: the text is no reference (detail 6), or its index is a number below 1 (detail 15).
    """
    match = _REFERENCE.fullmatch(text.strip())
    if match is None:
        raise Refused(Detail.INVALID_REFERENCE)
    written = match["index"]
    if written is None:
        index = None
    elif not (written := written.strip()):
        index = WHOLE_ARRAY
    elif _NUMBER.fullmatch(written) is None:
        raise Refused(Detail.INVALID_REFERENCE)
    elif int(written) >= 1:
        index = int(written)
    else:
        raise Refused(Detail.INVALID_INDEX)
    return Reference(match["object"], match["attribute"], index)


def absolute(definition: str, context: str, container: str) -> str:
    """Return the absolute reference that `definition` means within the object `context`, which is in `container`.

    `me.` means the context itself, `mycontainer.` and `myarea.` mean its container. Any other definition is an
    attribute of `context`.
    Source: the relative names of Galaxy references. It is not known how LMXProxyServer joins them. So when the joined
    name of an AddItem2 does not exist, its definition is tried once more as an absolute reference (`Galaxy.find`).
    """
    head, dot, rest = definition.strip().partition(".")
    if dot and head.lower() == "me":
        return f"{context}.{rest}"
    if dot and head.lower() in ("mycontainer", "myarea"):
        return f"{container}.{rest}"
    return f"{context}.{definition.strip().lstrip('.')}"
