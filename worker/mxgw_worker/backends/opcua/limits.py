"""What a server declares about the size of requests and values, obeyed from the first request of a connection.

Source: OPC 10000-5, 6.3.11 (OperationLimitsType) and 6.3.2 (ServerCapabilitiesType). Servers need not declare anything,
and 0 means no limit. What a server does not declare is learnt from its refusals, with `lower`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from asyncua import ua

from .session import Session

_O = ua.ObjectIds
# Key: field of `Limits`. Value: the node with the declared limit. MaxMonitoredItemsPerCall counts for all requests
# about monitored items, MaxNodesPerBrowse for Browse and BrowseNext.
_OPERATIONS = {
    "read": _O.Server_ServerCapabilities_OperationLimits_MaxNodesPerRead,
    "write": _O.Server_ServerCapabilities_OperationLimits_MaxNodesPerWrite,
    "browse": _O.Server_ServerCapabilities_OperationLimits_MaxNodesPerBrowse,
    "translate": _O.Server_ServerCapabilities_OperationLimits_MaxNodesPerTranslateBrowsePathsToNodeIds,
    "monitor": _O.Server_ServerCapabilities_OperationLimits_MaxMonitoredItemsPerCall,
    "call": _O.Server_ServerCapabilities_OperationLimits_MaxNodesPerMethodCall,
}
_OTHERS = {
    "continuation_points": _O.Server_ServerCapabilities_MaxBrowseContinuationPoints,
    "array_length": _O.Server_ServerCapabilities_MaxArrayLength,
    "string_bytes": _O.Server_ServerCapabilities_MaxStringLength,
    "byte_string_bytes": _O.Server_ServerCapabilities_MaxByteStringLength,
}


@dataclass(slots=True)
class Limits:
    """The largest number of operations that one request may contain, for each kind of request; and other limits, where
    0 means that the server declares none.
    """

    read: int
    write: int
    browse: int
    translate: int
    monitor: int
    call: int = 1
    # How many answers of Browse may be unfinished at a time in a session.
    continuation_points: int = 0
    # The most elements of an array, and the most bytes of a text (as UTF-8) and of a byte string, in a variable.
    array_length: int = 0
    string_bytes: int = 0
    byte_string_bytes: int = 0
    # The limits before the first refusal.
    _before: dict[str, int] = field(default_factory=dict, init=False)

    def lower(self, kind: str, refused: int) -> None:
        """Remember that the server refused a request of this kind with `refused` operations as too many."""
        now = int(getattr(self, kind))
        self._before.setdefault(kind, now)
        setattr(self, kind, max(1, min(now, refused // 2)))

    def restore(self, kind: str) -> None:
        """Forget what `lower` has remembered."""
        setattr(self, kind, self._before.pop(kind, getattr(self, kind)))

    def takes(self, value: ua.Variant) -> bool:
        """Return False when the server declares that its variables cannot hold a value as large as this."""
        entries = _flat(value.Value) if isinstance(value.Value, list) else [value.Value]
        if isinstance(value.Value, list) and self.array_length and len(entries) > self.array_length:
            return False
        for entry in entries:
            match entry:
                case str():
                    # A character has four bytes at most, so most texts need not be encoded for this.
                    fits = not self.string_bytes or (
                        len(entry) * 4 <= self.string_bytes or len(entry.encode()) <= self.string_bytes
                    )
                case bytes():
                    fits = not self.byte_string_bytes or len(entry) <= self.byte_string_bytes
                case _:
                    fits = True
            if not fits:
                return False
        return True


async def learn(session: Session, ceiling: int, others: Sequence[ua.NodeId]) -> tuple[Limits, list[ua.DataValue]]:
    """Read the server's limits, and the values of other nodes. `ceiling` is the most operations of any request.

    The limit for reading is read first and alone, so that already the second request obeys it.

    Raises:
        ua.UaError, OSError, TimeoutError: the server does not answer, or refuses to read even a single node.
    """
    limits = Limits(**dict.fromkeys(_OPERATIONS, ceiling))
    (most,) = await _read(session, limits, [ua.NodeId(_OPERATIONS["read"], 0)])
    limits.read = _operations(most, ceiling)
    fields = {**_OPERATIONS, **_OTHERS}
    answers = await _read(session, limits, [*(ua.NodeId(number, 0) for number in fields.values()), *others])
    for name, answer in zip(fields, answers, strict=False):
        if name in _OTHERS:
            setattr(limits, name, _count(answer))
        elif name != "read":  # It may be less by now than the server declares.
            setattr(limits, name, _operations(answer, ceiling))
    return limits, answers[len(fields) :]


def operations_done(answers: Sequence[Any]) -> int:
    """Return how many operations of a request the server has carried out. Some servers carry out as many as they allow,
    and answer BadTooManyOperations to each one after these. One operation alone counts as carried out.
    """
    done = len(answers)
    while done and _code_of(answers[done - 1]) == ua.StatusCodes.BadTooManyOperations:
        done -= 1
    return done if len(answers) > 1 else len(answers)


def _code_of(answer: Any) -> int:
    status = getattr(answer, "StatusCode", answer)
    return status if isinstance(status, int) else int(getattr(status, "value", 0))


async def _read(session: Session, limits: Limits, nodes: Sequence[ua.NodeId]) -> list[ua.DataValue]:
    answers: list[ua.DataValue] = []
    while len(answers) < len(nodes):
        some = nodes[len(answers) : len(answers) + limits.read]
        parameters = ua.ReadParameters()
        parameters.NodesToRead = [ua.ReadValueId(NodeId=node, AttributeId=ua.AttributeIds.Value) for node in some]
        try:
            part = await session.read(parameters)
        except ua.uaerrors.BadTooManyOperations:
            if len(some) == 1:
                raise
            limits.lower("read", len(some))
            continue
        if len(part) != len(some):
            part = [ua.DataValue()] * len(some)  # Nothing can be learnt from such an answer.
        done = operations_done(part)
        if done < len(some):
            limits.lower("read", 2 * done or len(some))
        answers += part[:done]
    return answers


def _operations(answer: ua.DataValue, ceiling: int) -> int:
    return min(ceiling, _count(answer) or ceiling)


def _count(answer: ua.DataValue) -> int:
    """Return the number that the server declares; 0 when it declares none."""
    number = answer.Value.Value if answer.Value is not None else None
    return number if isinstance(number, int) and not isinstance(number, bool) and number > 0 else 0


def _flat(value: list[Any]) -> list[Any]:
    entries = value
    while entries and isinstance(entries[0], list):
        entries = [entry for part in entries for entry in part]
    return entries
