"""How much a large request is, before it is decoded: a message of 4 MB may be 2 million empty ones, which would take
100 MB and a quarter of a second at a stretch.

Small requests are not looked at: what they can hold is small.
Source: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from mxgw_core.api.errors import InvalidRequest
from mxgw_core.api.slices import ENTRIES_AT_ONCE, turn
from mxgw_core.rpc.validation import unreadable

# What is larger is looked at before it is decoded, and is encoded and hashed in turns of its own.
LARGE_BYTES = 16 * 1024
# The most of either in one request: so many, and so many for each item of `limits.items_per_call`. An entry of a bulk
# write has four parts, itself, its value and two times, and thirteen fields at most.
_PARTS, _PARTS_PER_ITEM = 100, 5
_FIELDS, _FIELDS_PER_ITEM = 500, 15
# The most numbers in arrays, beside one handle for each item: decoding 4 million of them takes 40 ms at a stretch.
_NUMBERS = 1_000_000
_VARINT_BYTES = 10


async def count_parts(request_class: type[Message], data: bytes, items: int) -> int:
    """Return how many messages and texts there are in an encoded message. Looks in slices, between which the event loop
    does what else is due.

    Args:
        items: `limits.items_per_call`, which the limits grow with.

    Raises:
        InvalidRequest: there are too many, or too many fields or numbers, or it is no such message.
    """
    descriptor: Any = request_class.DESCRIPTOR
    most_parts = _PARTS + _PARTS_PER_ITEM * items
    most_fields = _FIELDS + _FIELDS_PER_ITEM * items
    most_numbers = _NUMBERS + items
    # Of the message that is looked at: what its fields hold, by number, and where it ends; and those it is in.
    below, end = _contents(descriptor), len(data)
    around: list[tuple[Mapping[int, Descriptor | int], int]] = []
    at = fields = parts = numbers = 0
    try:
        while True:
            if at >= end:
                if at > end:
                    raise unreadable(request_class)
                if not around:
                    return parts
                below, end = around.pop()
                continue
            fields += 1
            if fields % ENTRIES_AT_ONCE == 0:
                await turn()
            tag, at = _varint(data, at)
            kind = tag & 7
            if kind == 2:
                size, at = _varint(data, at)
                parts += 1
                inner = below.get(tag >> 3)
                if inner is None:
                    at += size
                elif isinstance(inner, int):
                    numbers += size // inner if inner else _varints(data, at, size)
                    at += size
                elif size:
                    around.append((below, end))
                    if at + size > end:
                        raise unreadable(request_class)
                    below, end = _contents(inner), at + size
            elif kind == 0:
                _, at = _varint(data, at)
            elif kind == 1:
                at += 8
            elif kind == 5:
                at += 4
            else:  # groups, which the contract does not have
                raise unreadable(request_class)
            if parts > most_parts or fields > most_fields:
                count, what = (most_parts, "messages and texts") if parts > most_parts else (most_fields, "fields")
                raise InvalidRequest(
                    f"the request has more than {count} {what}, elements of arrays counted: split the call or the "
                    "array (the limit grows with limits.items_per_call)",
                    metadata={"limit": str(count), "setting": "limits.items_per_call"},
                )
            if numbers > most_numbers:
                raise InvalidRequest(
                    f"the request has more than {most_numbers} numbers in arrays: split the call or the array",
                    metadata={"limit": str(most_numbers), "setting": "limits.items_per_call"},
                )
    except IndexError:
        raise unreadable(request_class) from None


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the number that begins there, and where it ends."""
    byte = data[at]
    if byte < 0x80:
        return byte, at + 1
    value = byte & 0x7F
    for place in range(1, _VARINT_BYTES):
        byte = data[at + place]
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, at + place + 1
    raise IndexError(at)


def _varints(data: bytes, at: int, size: int) -> int:
    """Return how many numbers end in `size` bytes: each in a byte below 0x80."""
    return len(data[at : at + size].translate(None, _GOES_ON))


_GOES_ON = bytes(range(0x80, 0x100))
# Bytes of each number in a packed array; those of all other types are of different lengths.
_FIXED_BYTES = {
    FieldDescriptor.TYPE_DOUBLE: 8,
    FieldDescriptor.TYPE_FIXED64: 8,
    FieldDescriptor.TYPE_SFIXED64: 8,
    FieldDescriptor.TYPE_FLOAT: 4,
    FieldDescriptor.TYPE_FIXED32: 4,
    FieldDescriptor.TYPE_SFIXED32: 4,
}


@cache
def _contents(descriptor: Descriptor) -> Mapping[int, Descriptor | int]:
    """Return by number the fields of a message that hold messages, with their type; and those that hold arrays of
    numbers, with the bytes of each number, or 0 when these differ.
    """
    messages = {f.number: f.message_type for f in descriptor.fields if f.message_type is not None}
    arrays = {f.number: _FIXED_BYTES.get(f.type, 0) for f in descriptor.fields if f.is_packed}
    return {**messages, **arrays}
