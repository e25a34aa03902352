"""Checks every request before anything is done with it: its size before it is decoded, its content afterwards.

A message of 4 MB can hold 2 million empty messages. To decode them would use 100 MB of memory and a quarter of a
second. So the parts of a large request are counted before it is decoded. A small request cannot hold many parts.
Source: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message

from mxgw.v1.event_service_pb2 import OverflowPolicyChoice
from mxgw.v1.values_pb2 import MxValue
from mxgw_core.api.errors import InvalidRequest
from mxgw_core.api.slices import ENTRIES_AT_ONCE, turn

# The parts of a request larger than this are counted before it is decoded. The decoding, encoding and hashing of a
# request cannot be cut into slices, so other calls run before each of these steps.
LARGE_BYTES = 16 * 1024
# The most parts (messages and texts) and the most fields in one request. Each limit is a constant, plus a number for
# each item that `limits.items_per_call` allows. An entry of a bulk write has four parts (itself, its value and two
# times) and at most thirteen fields.
_PARTS, _PARTS_PER_ITEM = 100, 5
_FIELDS, _FIELDS_PER_ITEM = 500, 15
# The most numbers in arrays, in addition to one item handle for each item. To decode 4 million numbers blocks the event
# loop for 40 ms.
_NUMBERS = 1_000_000
_VARINT_BYTES = 10


async def count_parts(request_class: type[Message], data: bytes, items: int) -> int:
    """Return how many messages and texts an encoded message holds. Other calls run between slices of the work.

    Args:
        items: `limits.items_per_call`; the limits grow with this number.

    Raises:
        InvalidRequest: the message holds too many parts, fields or numbers, or is not of this class.
    """
    descriptor: Any = request_class.DESCRIPTOR
    most_parts = _PARTS + _PARTS_PER_ITEM * items
    most_fields = _FIELDS + _FIELDS_PER_ITEM * items
    most_numbers = _NUMBERS + items
    # `below` says what the fields of the message that is being read contain (see `_contents`), and `end` is the offset
    # at which this message ends. `around` has the same two values for each message that contains this one.
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
            else:  # this is a group, and no message of the contract has groups
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
    """Return the varint at offset `at`, and the offset behind it."""
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
    """Return how many varints are in `size` bytes, by counting their last bytes, which are below 0x80."""
    return len(data[at : at + size].translate(None, _GOES_ON))


_GOES_ON = bytes(range(0x80, 0x100))
# Key: the type of a number. Value: its bytes in a packed array. Numbers of all other types are varints.
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
    """Return what the fields of a message type contain. Key: the number of a field.

    Value: for a field that holds messages, their type; for an array of numbers, the bytes of each number (0 for
    varints).
    """
    messages = {f.number: f.message_type for f in descriptor.fields if f.message_type is not None}
    arrays = {f.number: _FIXED_BYTES.get(f.type, 0) for f in descriptor.fields if f.is_packed}
    return {**messages, **arrays}


# Key: a field with a name that people read (see `_named`). Value: the most characters of this name; other texts can be
# longer.
_NAME_CHARACTERS = {"client_name": 128, "tag": 64, "backend": 64, "session_id": 128, "policy.name": 64}
_POLICY_NAME = OverflowPolicyChoice.DESCRIPTOR.fields_by_name["name"]
_PAYLOAD_BYTES = 1024
# The most messages in one request are the first number for each item that `limits.items_per_call` allows, plus the
# second number. An entry of a bulk write has two messages: itself and its value. An array of mixed values has a message
# of at least two bytes for each value, so a request of a few megabytes can have very many.
_MESSAGES_PER_ITEM = 3
_MESSAGES_PER_CALL = 100

# The text of a value can be long and can have any characters; only the size of the whole request limits it.
_FREE_TEXT = frozenset({MxValue.DESCRIPTOR.full_name})
# A password can have any characters; its length is limited like the length of other texts.
_ANY_CHARACTER = frozenset({"password"})


def parse(request_class: type[Message], data: bytes) -> Message:
    """Return the message in `data`.

    Raises:
        InvalidRequest: the data is no message of this class, or has text that is not UTF-8.
    """
    try:
        return request_class.FromString(data)
    except DecodeError:
        raise unreadable(request_class) from None


def unreadable(request_class: type[Message]) -> InvalidRequest:
    """Return the error for data that is no message of this class."""
    return InvalidRequest(
        f"the request is no readable {request_class.DESCRIPTOR.full_name}: check that the client's contract is "
        "mxgw.v1 and that all text is UTF-8"
    )


async def check(request: Message, *, text_characters: int, items: int) -> None:
    """Make sure that texts are short and printable, lists have `items` entries at most, and every enum value is in the
    contract (proto3 accepts any number).

    A long list is checked in slices; other calls run in between.

    Raises:
        InvalidRequest: a check failed; the error names the field.
    """
    await _check(request, "", text_characters, items)
    await _check_enums(request, items)


async def _check_enums(request: Message, items: int) -> None:
    unknown = await _EnumSearch(_MESSAGES_PER_CALL + _MESSAGES_PER_ITEM * items).unknown(request)
    if unknown is not None:
        path, enum, number = unknown
        raise InvalidRequest(
            f"{path} is {number}, which {enum.full_name} does not have: use one of its names, and a client of this "
            "gateway's release",
            metadata={"field": path, "value": str(number)},
        )


class _EnumSearch:
    """Looks for enum values that the contract does not have, in a limited number of messages."""

    def __init__(self, messages: int) -> None:
        self._messages = messages
        self._left = messages

    async def unknown(self, message: Message) -> tuple[str, EnumDescriptor, int] | None:
        """Return path, enum and number of the first enum value that the contract does not have; None if there is none.

        Raises:
            InvalidRequest: there are too many messages.
        """
        self._left -= 1
        if self._left < 0:
            raise InvalidRequest(
                f"the request has more than {self._messages} parts, arrays of mixed values counted: split the call "
                "(limits.items_per_call)",
                metadata={"limit": str(self._messages)},
            )
        if (self._messages - self._left) % ENTRIES_AT_ONCE == 0:
            await turn()
        for field, enum in _enum_fields(message.DESCRIPTOR):
            if field.is_repeated:
                values: Any = getattr(message, field.name)
                for place, value in values.items() if _is_map(field) else enumerate(values):
                    if enum is not None:
                        if value not in enum.values_by_number:
                            return f"{field.name}[{place}]", enum, value
                    elif found := await self.unknown(value):
                        return f"{field.name}[{place}].{found[0]}", *found[1:]
            elif enum is not None:
                value = getattr(message, field.name)
                if value not in enum.values_by_number:
                    return field.name, enum, value
            elif message.HasField(field.name) and (found := await self.unknown(getattr(message, field.name))):
                return f"{field.name}.{found[0]}", *found[1:]
        return None


@cache
def _enum_fields(descriptor: Descriptor) -> Sequence[tuple[FieldDescriptor, EnumDescriptor | None]]:
    """Return the fields that can hold enum values, each with its enum. Fields with messages have None as enum."""
    fields: list[tuple[FieldDescriptor, EnumDescriptor | None]] = []
    for field in descriptor.fields:
        kind = _element(field)
        if kind.enum_type is not None:
            fields.append((field, kind.enum_type))
        elif kind.message_type is not None and _leads_to_enums(kind.message_type):
            fields.append((field, None))
    return fields


@cache
def _leads_to_enums(descriptor: Descriptor) -> bool:
    """Return whether a message of this type, or a message inside it, can hold an enum value."""
    seen = {descriptor.full_name}
    waiting = [descriptor]
    while waiting:
        for field in waiting.pop().fields:
            if field.enum_type is not None:
                return True
            below = field.message_type
            if below is not None and below.full_name not in seen:
                seen.add(below.full_name)
                waiting.append(below)
    return False


async def _check(message: Message, path: str, text_characters: int, items: int) -> None:
    if message.DESCRIPTOR.full_name in _FREE_TEXT:
        return
    for field, value in message.ListFields():
        name = f"{path}{field.name}"
        if not field.is_repeated:
            await _check_one(field, value, name, text_characters, items)
        elif _is_map(field):
            await _check_map(_element(field), value, name, text_characters, items)
        else:
            if len(value) > items:
                raise InvalidRequest(
                    f"{name} has {len(value)} entries, {items} are allowed: split the call (limits.items_per_call)",
                    metadata={"field": name, "limit": str(items)},
                )
            for index, element in enumerate(value):
                if index and index % ENTRIES_AT_ONCE == 0:
                    await turn()
                await _check_one(field, element, f"{name}[{index}]", text_characters, items)


def _named(field: FieldDescriptor) -> str:
    """Return the name of a field as `_NAME_CHARACTERS` has it; other messages have a field `name` for other things."""
    return "policy.name" if field == _POLICY_NAME else field.name


async def _check_one(field: FieldDescriptor, value: object, name: str, text_characters: int, items: int) -> None:
    if isinstance(value, Message):
        await _check(value, f"{name}.", text_characters, items)
    elif isinstance(value, str):
        _check_text(name, value, _NAME_CHARACTERS.get(_named(field), text_characters), field.name in _ANY_CHARACTER)
    elif isinstance(value, bytes) and len(value) > _PAYLOAD_BYTES:
        raise InvalidRequest(
            f"{name} has {len(value)} bytes, {_PAYLOAD_BYTES} are allowed",
            metadata={"field": name, "limit": str(_PAYLOAD_BYTES)},
        )


async def _check_map(
    element: FieldDescriptor, values: Mapping[object, object], name: str, text_characters: int, items: int
) -> None:
    if len(values) > 32:
        raise InvalidRequest(f"{name} has {len(values)} entries, 32 are allowed", metadata={"field": name})
    for key, value in values.items():
        if isinstance(key, str):
            _check_text(name, key, text_characters, any_character=False)
        await _check_one(element, value, name, text_characters, items)


def _check_text(name: str, text: str, limit: int, any_character: bool) -> None:
    if len(text) > limit:
        raise InvalidRequest(
            f"{name} has {len(text)} characters, {limit} are allowed", metadata={"field": name, "limit": str(limit)}
        )
    if not any_character and not text.isprintable():
        raise InvalidRequest(f"{name} has unprintable characters", metadata={"field": name})


def _element(field: FieldDescriptor) -> FieldDescriptor:
    """Return the field that describes the values of a map; for a field that is no map, the field itself."""
    held = field.message_type
    return held.fields_by_name["value"] if held is not None and held.GetOptions().map_entry else field


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry
