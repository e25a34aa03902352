"""Cuts bulk commands into slices, removes denied inputs from them, and puts the results of all inputs together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

from mxgw.v1 import commands_pb2 as c
from mxgw_core.api.items import INPUT_FIELDS, input_count
from mxgw_core.api.slices import ENTRIES_AT_ONCE, NAMES_AT_ONCE, in_slices, turn

# The HRESULT 0x80070005 of COM, which clients of MXAccess know.
E_ACCESSDENIED = -2147024891
ITEM_DENIED = "ITEM_DENIED"


def is_bulk(command: c.MxCommand) -> bool:
    """Return whether the command has several inputs, each of which is checked and may fail by itself."""
    return command.WhichOneof("command") in INPUT_FIELDS


async def slices_of(command: c.MxCommand, size: int = NAMES_AT_ONCE) -> AsyncIterator[tuple[int, c.MxCommand]]:
    """Yield the command in parts of at most `size` inputs, each part with the index of its first input.

    Other calls run between the parts. A command that is no bulk command is one part.
    """
    kind = command.WhichOneof("command") or ""
    count = input_count(command)
    if count <= size:
        yield 0, command
        return
    inputs = getattr(getattr(command, kind), INPUT_FIELDS[kind])
    rest = _without_inputs(command, kind)
    for start in range(0, count, size):
        if start:
            await turn()
        part = c.MxCommand()
        part.CopyFrom(rest)
        getattr(getattr(part, kind), INPUT_FIELDS[kind]).extend(inputs[start : start + size])
        yield start, part


async def without(command: c.MxCommand, denied: Mapping[int, str]) -> c.MxCommand:
    """Return a bulk command without its denied inputs."""
    if not denied:
        return command
    kind = command.WhichOneof("command") or ""
    allowed = _without_inputs(command, kind)
    inputs, kept = (getattr(getattr(one, kind), INPUT_FIELDS[kind]) for one in (command, allowed))
    async for some in in_slices(range(len(inputs)), ENTRIES_AT_ONCE):
        kept.extend(inputs[index] for index in some if index not in denied)
    return allowed


async def with_denied(results: c.BulkResult, denied: Mapping[int, str]) -> c.BulkResult:
    """Return one result per input.

    `results` has the results of the allowed inputs, in order. For each denied input a refusal is put in its place.
    """
    allowed = iter(results.items)
    refusals = {why: _refusal(why) for why in set(denied.values())}
    merged = c.BulkResult()
    async for some in in_slices(
        range(max(len(results.items) + len(denied), max(denied, default=0) + 1)), ENTRIES_AT_ONCE
    ):
        for index in some:
            item = refusals[denied[index]] if index in denied else next(allowed, None)
            if item is not None:
                merged.items.append(item)
    return merged


def _refusal(why: str) -> c.BulkItemResult:
    return c.BulkItemResult(hresult=E_ACCESSDENIED, message=why, reason=ITEM_DENIED)


def _without_inputs(command: c.MxCommand, kind: str) -> c.MxCommand:
    copy = c.MxCommand()
    copy.CopyFrom(command)
    getattr(copy, kind).ClearField(INPUT_FIELDS[kind])
    return copy
