"""Hostile text in every text field of every RPC: a clear refusal, and the gateway lives on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf.descriptor import Descriptor, FieldDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from support.clients import Client, Refusal, client_of, refused

from mxgw.v1 import command_service_pb2, event_service_pb2, gateway_service_pb2, session_service_pb2
from mxgw.v1.values_pb2 import MxValue
from mxgw_core.testing import RunningGateway, running_gateway

pytestmark = pytest.mark.asyncio(loop_scope="module")

SERVICES: list[ServiceDescriptor] = [
    service
    for module in (session_service_pb2, command_service_pb2, event_service_pb2, gateway_service_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
]
MARK = "@@@@@@@@"
# Values may be any text the source can hold, a password any characters: see `mxgw_core.rpc.validation`.
FREE = {MxValue.DESCRIPTOR.full_name}


def marked(descriptor: Descriptor, text: str) -> Iterator[tuple[str, Message]]:
    """Yield a request for every text field, however deep, with `text` in it."""
    for field in descriptor.fields:
        message = GetMessageClass(descriptor)()
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            for key, value in ((text, "x"), ("x", text)):
                made = GetMessageClass(descriptor)()
                getattr(made, field.name)[key] = value
                yield field.name, made
        elif field.type == FieldDescriptor.TYPE_STRING:
            _set(message, field, text)
            yield field.name, message
        elif field.message_type is not None and field.message_type.full_name not in FREE:
            for path, inner in marked(field.message_type, text):
                made = GetMessageClass(descriptor)()
                _set(made, field, inner)
                yield f"{field.name}.{path}", made


def _set(message: Message, field: FieldDescriptor, value: Any) -> None:
    if field.is_repeated:
        getattr(message, field.name).append(value)
    elif isinstance(value, Message):
        getattr(message, field.name).CopyFrom(value)
    else:
        setattr(message, field.name, value)


CASES = [
    pytest.param(service, method, path, id=f"{service.name}.{method.name}.{path}")
    for service in SERVICES
    for method in service.methods
    for path in sorted({path for path, _ in marked(method.input_type, MARK)})
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway() -> Any:
    async with running_gateway() as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(gateway: RunningGateway) -> Any:
    async with client_of(gateway.target) as connected:
        yield connected


async def _sent(client: Client, service: ServiceDescriptor, method: Any, data: bytes) -> Refusal:
    path = f"/{service.full_name}/{method.name}"
    if method.server_streaming:
        return await refused(client.channel.unary_stream(path)(data, timeout=60))
    return await refused(client.channel.unary_unary(path)(data, timeout=60))


def _encoded(method: Any, path: str, text: str) -> list[bytes]:
    return [message.SerializeToString() for at, message in marked(method.input_type, text) if at == path]


async def test_every_service_of_the_contract_is_looked_at() -> None:
    assert len(SERVICES) >= 4
    assert {case.values[0] for case in CASES} == set(SERVICES)
    assert len(CASES) > 30


@pytest.mark.parametrize(("service", "method", "path"), CASES)
async def test_hostile_text_is_refused_and_the_gateway_lives_on(
    gateway: RunningGateway, client: Client, service: ServiceDescriptor, method: Any, path: str
) -> None:
    texts = ["x" * 1025, "x" * 100_000, "\0", "a\nb", "\x1b[2J", "\u202etxt", "\u2028", "\x7f"]
    if path.endswith("password"):
        texts = texts[:2]
    payloads = [data for text in texts for data in _encoded(method, path, text)]
    # Not UTF-8, and a length that reaches beyond the message.
    for data in _encoded(method, path, MARK):
        payloads += [data.replace(MARK.encode(), b"\xff\xfe\x80\xc0@@@@"), data[:-1]]
    for data in payloads:
        refusal = await _sent(client, service, method, data)

        assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"), data[:60]
        assert len(refusal.text) < 300
        assert refusal.text.isprintable()

    assert not gateway.api.sessions()


@pytest.mark.parametrize("data", [b"\xff" * 1000, b"\x0a" * 999, b"\x12\xff\xff\xff\xff\x0f", b"\x0b" * 5000])
async def test_garbage_is_answered_by_every_rpc(client: Client, data: bytes) -> None:
    for service in SERVICES:
        for method in service.methods:
            path = f"/{service.full_name}/{method.name}"
            call = client.channel.unary_stream(path) if method.server_streaming else client.channel.unary_unary(path)
            refusal = await refused(call(data, timeout=60))

            assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT, path
