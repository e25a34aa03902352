"""Every request's texts and sizes are checked here, before anything is done with it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

from mxgw.v1.values_pb2 import MxValue
from mxgw_core.api.errors import InvalidRequest
from mxgw_core.api.slices import ENTRIES_AT_ONCE

# Names that people read: shorter than references.
_NAME_CHARACTERS = {"client_name": 128, "tag": 64, "backend": 64, "session_id": 128}
_PAYLOAD_BYTES = 1024

# A value may be any text the source can hold; the message limit bounds it.
_FREE_TEXT = frozenset({MxValue.DESCRIPTOR.full_name})
# A password may hold any character; it is bounded like everything else.
_ANY_CHARACTER = frozenset({"password"})


def parse(request_class: type[Message], data: bytes) -> Message:
    """Return the message in `data`.

    Raises:
        InvalidRequest: it is no such message, or has text that is not UTF-8.
    """
    try:
        return request_class.FromString(data)
    except DecodeError:
        raise InvalidRequest(
            f"the request is no readable {request_class.DESCRIPTOR.full_name}: check that the client's contract is "
            "mxgw.v1 and that all text is UTF-8"
        ) from None


async def check(request: Message, *, text_characters: int, items: int) -> None:
    """Make sure that texts are short and printable and that lists are not longer than `items`.

    A long list is looked through in slices, between which the event loop does what else is due.

    Raises:
        InvalidRequest: naming the field and the limit.
    """
    await _check(request, "", text_characters, items)


async def _check(message: Message, path: str, text_characters: int, items: int) -> None:
    if message.DESCRIPTOR.full_name in _FREE_TEXT:
        return
    for field, value in message.ListFields():
        name = f"{path}{field.name}"
        if _is_map(field):
            _check_map(value, name, text_characters)
        elif field.is_repeated:
            if len(value) > items:
                raise InvalidRequest(
                    f"{name} has {len(value)} entries, {items} are allowed: split the call (limits.items_per_call)",
                    metadata={"field": name, "limit": str(items)},
                )
            for index, element in enumerate(value):
                if index and index % ENTRIES_AT_ONCE == 0:
                    await asyncio.sleep(0)
                await _check_one(field, element, f"{name}[{index}]", text_characters, items)
        else:
            await _check_one(field, value, name, text_characters, items)


async def _check_one(field: FieldDescriptor, value: object, name: str, text_characters: int, items: int) -> None:
    if isinstance(value, Message):
        await _check(value, f"{name}.", text_characters, items)
    elif isinstance(value, str):
        _check_text(name, value, _NAME_CHARACTERS.get(field.name, text_characters), field.name in _ANY_CHARACTER)
    elif isinstance(value, bytes) and len(value) > _PAYLOAD_BYTES:
        raise InvalidRequest(
            f"{name} has {len(value)} bytes, {_PAYLOAD_BYTES} are allowed",
            metadata={"field": name, "limit": str(_PAYLOAD_BYTES)},
        )


def _check_map(values: Mapping[str, str], name: str, text_characters: int) -> None:
    if len(values) > 32:
        raise InvalidRequest(f"{name} has {len(values)} entries, 32 are allowed", metadata={"field": name})
    for key, value in values.items():
        _check_text(name, key, text_characters, any_character=False)
        _check_text(name, value, text_characters, any_character=False)


def _check_text(name: str, text: str, limit: int, any_character: bool) -> None:
    if len(text) > limit:
        raise InvalidRequest(
            f"{name} has {len(text)} characters, {limit} are allowed", metadata={"field": name, "limit": str(limit)}
        )
    if not any_character and not text.isprintable():
        raise InvalidRequest(f"{name} has unprintable characters", metadata={"field": name})


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def page(size: int, default: int, maximum: int) -> int:
    """Return the page size to use.

    Raises:
        InvalidRequest: it is negative or too large.
    """
    if not 0 <= size <= maximum:
        raise InvalidRequest(
            f"page_size is {size}; it must lie between 0 (for {default}) and {maximum}",
            metadata={"field": "page_size", "limit": str(maximum)},
        )
    return size or default


def after_token(token: str) -> int:
    """Return the number a page token stands for: 0 for the first page.

    Raises:
        InvalidRequest: the token is none of ours.
    """
    if not token:
        return 0
    if not (token.isascii() and token.isdigit() and len(token) < 20):
        raise InvalidRequest("page_token is not one that this gateway gave out", metadata={"field": "page_token"})
    return int(token)
