"""The gRPC services of plugins, as the gateway serves them: each method is contained, and its response is checked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from typing import Any

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from mxgw_core.api.calls import GrpcService
from mxgw_core.plugins.answers import Check, check_of
from mxgw_core.plugins.calls import Owner
from mxgw_core.plugins.tasks import called

# The method of a stream writes its responses to the stream.
_NOTHING = check_of(None, "None")


def plugin_service(service: GrpcService, owner: Owner) -> GrpcService:
    """Return a service of a plugin as the gateway serves it.

    Its methods raise `GatewayError`s that the plugin raises on purpose, and `CallFailed` for anything else.
    """
    methods = {method.name: _method(service, method, owner) for method in service.descriptor.methods}
    return replace(service, implementation=_Implementation(methods))


class _Implementation:
    """Has one coroutine method for each method of a service."""

    def __init__(self, methods: dict[str, Callable[..., Coroutine[Any, Any, Message | None]]]) -> None:
        self.__dict__.update(methods)


def _method(
    service: GrpcService, method: MethodDescriptor, owner: Owner
) -> Callable[..., Coroutine[Any, Any, Message | None]]:
    function: Callable[..., Awaitable[Message | None]] = getattr(service.implementation, method.name)
    what = f"{service.descriptor.name}.{method.name}"
    check = _NOTHING if method.server_streaming else _of_class(GetMessageClass(method.output_type))

    async def run(*arguments: Any) -> Message | None:
        return await called(owner, what, check, function, *arguments)

    return run


def _of_class(expected: type[Message]) -> Check:
    return check_of(expected, expected.DESCRIPTOR.full_name)
