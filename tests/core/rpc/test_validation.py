"""Every request's texts and sizes, before anything is done with it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given
from hypothesis import strategies as st
from support.turns import counted_turns

from mxgw.v1 import command_service_pb2 as cs
from mxgw.v1 import commands_pb2 as c
from mxgw.v1 import event_service_pb2 as es
from mxgw.v1 import gateway_service_pb2 as gs
from mxgw.v1 import session_service_pb2 as ss
from mxgw.v1.events_pb2 import Position
from mxgw.v1.values_pb2 import MxArray, MxDataType, MxValue, ValueArray
from mxgw_core.api.errors import InvalidRequest
from mxgw_core.rpc import validation
from mxgw_core.rpc.pages import SealedTokens, page
from mxgw_core.rpc.validation import parse

LIMITS = {"text_characters": 100, "items": 5}


def check(request: Message, *, text_characters: int, items: int) -> None:
    asyncio.run(validation.check(request, text_characters=text_characters, items=items))


def _field(request: object) -> str:
    with pytest.raises(InvalidRequest) as refused:
        check(request, **LIMITS)  # type: ignore[arg-type]
    return refused.value.metadata["field"]


@pytest.mark.parametrize(
    ("request_of", "limit", "field"),
    [
        (lambda t: ss.OpenSessionRequest(client_name=t), 128, "client_name"),
        (lambda t: ss.OpenSessionRequest(tag=t), 64, "tag"),
        (lambda t: ss.OpenSessionRequest(backend=t), 64, "backend"),
        (lambda t: ss.CloseSessionRequest(session_id=t), 128, "session_id"),
        (lambda t: cs.BrowseRequest(parent=t), 100, "parent"),
        (
            lambda t: cs.InvokeRequest(command=c.MxCommand(add_item=c.AddItemCommand(item_definition=t))),
            100,
            "command.add_item.item_definition",
        ),
        (
            lambda t: cs.InvokeRequest(
                command=c.MxCommand(
                    subscribe_bulk=c.SubscribeBulkCommand(
                        items=[c.ItemReference(item_definition="a"), c.ItemReference(item_context=t)]
                    )
                )
            ),
            100,
            "command.subscribe_bulk.items[1].item_context",
        ),
        (lambda t: es.StreamEventsRequest(policy=es.OverflowPolicyChoice(name=t)), 64, "policy.name"),
        (
            lambda t: es.StreamEventsRequest(policy=es.OverflowPolicyChoice(parameters={t: ""})),
            100,
            "policy.parameters",
        ),
        (
            lambda t: es.StreamEventsRequest(policy=es.OverflowPolicyChoice(parameters={"a": t})),
            100,
            "policy.parameters",
        ),
        (
            lambda t: cs.InvokeRequest(command=c.MxCommand(authenticate_user=c.AuthenticateUserCommand(password=t))),
            100,
            "command.authenticate_user.password",
        ),
    ],
)
def test_a_text_may_be_as_long_as_its_limit_and_no_longer(request_of: object, limit: int, field: str) -> None:
    check(request_of("x" * limit), **LIMITS)  # type: ignore[operator, arg-type]

    assert _field(request_of("x" * (limit + 1))) == field  # type: ignore[operator]


@pytest.mark.parametrize("bad", ["\n", "\0", "\x1b[31m", "\u202e", "\u2028", "\x7f", "\u200b"])
def test_what_cannot_be_printed_is_refused_and_not_repeated(bad: str) -> None:
    request = ss.OpenSessionRequest(client_name=f"a{bad}b")
    with pytest.raises(InvalidRequest) as refused:
        check(request, **LIMITS)

    assert refused.value.metadata["field"] == "client_name"
    assert bad not in refused.value.message


def test_a_map_is_checked_like_any_text_and_bounded() -> None:
    choice = es.OverflowPolicyChoice(parameters={"a\n": "b"})

    assert _field(es.StreamEventsRequest(policy=choice)) == "policy.parameters"

    many = es.OverflowPolicyChoice(parameters={str(n): "" for n in range(33)})

    assert _field(es.StreamEventsRequest(policy=many)) == "policy.parameters"


def test_lists_are_bounded_and_the_setting_is_named() -> None:
    def request(count: int) -> cs.InvokeRequest:
        command = c.UnsubscribeBulkCommand(item_handles=range(count))
        return cs.InvokeRequest(command=c.MxCommand(unsubscribe_bulk=command))

    check(request(5), **LIMITS)
    with pytest.raises(InvalidRequest, match=r"limits\.items_per_call") as refused:
        check(request(6), **LIMITS)

    assert refused.value.metadata == {"field": "command.unsubscribe_bulk.item_handles", "limit": "5"}


def test_bytes_are_bounded() -> None:
    check(gs.PingRequest(payload=bytes(1024)), **LIMITS)

    assert _field(gs.PingRequest(payload=bytes(1025))) == "payload"
    position = es.StartPosition(after=Position(epoch=bytes(2000)))
    assert _field(es.StreamEventsRequest(start=position)) == "start.after.epoch"


def test_values_and_passwords_may_hold_any_character() -> None:
    write = c.WriteCommand(value=MxValue(string="line\nline\0" * 100))
    check(cs.InvokeRequest(command=c.MxCommand(write=write)), **LIMITS)
    login = c.AuthenticateUserCommand(user="operator", password="\x01\n\0")
    check(cs.InvokeRequest(command=c.MxCommand(authenticate_user=login)), **LIMITS)


def test_a_refused_password_is_not_repeated() -> None:
    login = c.AuthenticateUserCommand(password="hunter2" * 50)
    with pytest.raises(InvalidRequest) as refused:
        check(cs.InvokeRequest(command=c.MxCommand(authenticate_user=login)), **LIMITS)

    assert "hunter2" not in repr(refused.value) + str(refused.value.metadata)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x0a\xff", id="cut"),
        pytest.param(b"\x0a\x02\xff\xfe", id="not UTF-8"),
        pytest.param(b"\xff\xff\xff\xff\xff", id="garbage"),
    ],
)
def test_what_is_no_such_message_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidRequest, match=r"no readable mxgw\.v1\.OpenSessionRequest"):
        parse(ss.OpenSessionRequest, data)


@given(st.binary(max_size=200))
def test_any_bytes_are_parsed_and_checked_or_refused_and_nothing_else(data: bytes) -> None:
    for request_class in (cs.InvokeRequest, es.StreamEventsRequest, ss.OpenSessionRequest):
        with contextlib.suppress(InvalidRequest):
            check(parse(request_class, data), **LIMITS)


@pytest.mark.parametrize(("size", "used"), [(0, 100), (1, 1), (500, 500)])
def test_page_sizes_have_a_default_and_a_limit(size: int, used: int) -> None:
    assert page(size, 100, 500) == used


@pytest.mark.parametrize("size", [-1, 501, 2**31 - 1, -(2**31)])
def test_page_sizes_outside_are_refused(size: int) -> None:
    with pytest.raises(InvalidRequest, match="page_size"):
        page(size, 100, 500)


def test_page_tokens_are_read_back_and_tell_nothing() -> None:
    tokens = SealedTokens()
    given = [tokens.seal(number) for number in (0, 7, 7, 2**64 - 1)]

    assert [tokens.number_of(token) for token in ("", *given)] == [0, 0, 7, 7, 2**64 - 1]
    assert len(set(given)) == len(given)


@pytest.mark.parametrize("token", ["7", "-1", "x", "\u0663" * 48, "0" * 48, "seven", "0" * 47])
def test_page_tokens_that_were_never_given_out_are_refused(token: str) -> None:
    with pytest.raises(InvalidRequest, match="page_token"):
        SealedTokens().number_of(token)


def test_a_page_token_of_another_gateway_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="page_token"):
        SealedTokens().number_of(SealedTokens().seal(7))


def test_numbers_are_nobodys_business_here() -> None:
    check(ss.OpenSessionRequest(lease=Duration(seconds=-5)), **LIMITS)


@pytest.mark.asyncio
async def test_a_long_list_is_checked_in_slices() -> None:
    items = [c.ItemReference(item_definition=f"Tank_{number}.Level") for number in range(3 * 500 + 1)]
    request = cs.InvokeRequest(command=c.MxCommand(read_bulk=c.ReadBulkCommand(items=items)))
    async with counted_turns() as turns:
        await validation.check(request, text_characters=100, items=2000)

    assert turns.taken == 3


@pytest.mark.asyncio
async def test_the_enums_of_many_values_are_checked_in_slices() -> None:
    writes = [c.BulkWrite(value=MxValue(integer=1)) for _ in range(2000)]
    request = cs.InvokeRequest(command=c.MxCommand(write_bulk=c.WriteBulkCommand(writes=writes)))
    async with counted_turns() as turns:
        await validation.check(request, text_characters=100, items=2000)

    # 2,000 entries are looked through for texts, and 4,000 messages, entries and values, for enums.
    assert turns.taken == (2000 // 500 - 1) + 4000 // 500


def _written(value: MxValue) -> cs.InvokeRequest:
    return cs.InvokeRequest(command=c.MxCommand(write=c.WriteCommand(value=value)))


def _mixed(*values: MxValue) -> MxValue:
    return MxValue(array=MxArray(values=ValueArray(elements=values)))


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (es.StreamEventsRequest(on_gap=77), "on_gap"),
        (_written(MxValue(integer=1, data_type=77)), "command.write.value.data_type"),
        (
            _written(_mixed(MxValue(integer=1), _mixed(MxValue(data_type=-1)))),
            "command.write.value.array.values.elements[1].array.values.elements[0].data_type",
        ),
        (
            cs.InvokeRequest(
                command=c.MxCommand(
                    write_bulk=c.WriteBulkCommand(writes=[c.BulkWrite(), c.BulkWrite(value=MxValue(data_type=99))])
                )
            ),
            "command.write_bulk.writes[1].value.data_type",
        ),
    ],
)
def test_an_unknown_number_of_an_enum_is_refused_by_its_path(request_: Message, field: str) -> None:
    assert _field(request_) == field


def test_enums_in_lists_and_maps_are_looked_at_too() -> None:
    # The contract has none of these yet, and plugins bring services of their own.
    pool = descriptor_pool.DescriptorPool()
    file = descriptor_pb2.FileDescriptorProto(name="plugin.proto", package="plugin", syntax="proto3")
    file.enum_type.add(name="Colour").value.add(name="COLOUR_UNSPECIFIED", number=0)
    request = file.message_type.add(name="Request")
    kinds = descriptor_pb2.FieldDescriptorProto
    entry = request.nested_type.add(name="NamedEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=kinds.TYPE_STRING, label=kinds.LABEL_OPTIONAL)
    colour: dict[str, Any] = {"type": kinds.TYPE_ENUM, "type_name": ".plugin.Colour"}
    entry.field.add(name="value", number=2, label=kinds.LABEL_OPTIONAL, **colour)
    request.field.add(name="listed", number=1, label=kinds.LABEL_REPEATED, **colour)
    request.field.add(
        name="named",
        number=2,
        label=kinds.LABEL_REPEATED,
        type=kinds.TYPE_MESSAGE,
        type_name=".plugin.Request.NamedEntry",
    )
    pool.Add(file)
    request_class: Any = GetMessageClass(pool.FindMessageTypeByName("plugin.Request"))

    assert _field(request_class(listed=[0, 5])) == "listed[1]"
    assert _field(request_class(named={"a": 0, "b": 5})) == "named[b]"
    check(request_class(listed=[0], named={"a": 0}), **LIMITS)


def test_the_parts_of_mixed_arrays_are_bounded() -> None:
    check(_written(_mixed(*[MxValue()] * 100)), **LIMITS)
    with pytest.raises(InvalidRequest, match="parts, arrays of mixed values counted"):
        check(_written(_mixed(*[MxValue()] * 200)), **LIMITS)


def test_every_known_number_of_an_enum_passes() -> None:
    for number in MxDataType.values():
        check(_written(MxValue(data_type=number)), **LIMITS)
