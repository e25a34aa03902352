"""Item references: `Object.Attribute`, `Object.Array[]`, `Object.Array[N]` (1-based).

Source: docs/reference/mxaccess.md#references.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mxgw_worker.backends.sim.status import Detail, Refused

# The attribute may have dots of its own (`Level.InAlarm`); an index stands at the very end.
_REFERENCE = re.compile(r"(?P<object>[^.\[\]\s]+)\.(?P<attribute>[^\[\]]*[^.\[\]\s])(?:\[(?P<index>[^\[\]]*)\])?")
# Apart from the rest, where blanks before and behind the number would be tried against each other.
_NUMBER = re.compile(r"-?\d{1,9}")

WHOLE_ARRAY = 0


@dataclass(frozen=True, slots=True)
class Reference:
    """A parsed reference. `index` is None without brackets, `WHOLE_ARRAY` for `[]`, else a 1-based element."""

    object_name: str
    attribute_name: str
    index: int | None


def parse(text: str) -> Reference:
    """Return the parts of a reference, spelled as given.

    Raises:
        Refused: it is no reference (6), or its index is not a number from 1 (15).
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
    """Return the reference that `definition` means within the object `context`, which lies in `container`.

    `me.` is the context itself, `mycontainer.` and `myarea.` what holds it; anything else is an attribute of `context`.
    Source: the relative names of Galaxy references; how LMXProxyServer joins them was not seen, so an AddItem2 whose
    joined name does not exist is tried once more as an absolute one (`Galaxy.find`).
    """
    head, dot, rest = definition.strip().partition(".")
    if dot and head.lower() == "me":
        return f"{context}.{rest}"
    if dot and head.lower() in ("mycontainer", "myarea"):
        return f"{container}.{rest}"
    return f"{context}.{definition.strip().lstrip('.')}"
