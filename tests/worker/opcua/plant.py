"""A real OPC UA server of a test's making, in a thread of its own: names and texts that are hard to write down, nodes
and namespaces that come and go, and services that fail, wait or answer nothing as a test wants it.
"""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar
from unittest.mock import patch

from asyncua import Server, ua
from asyncua.common.connection import TransportLimits
from asyncua.crypto.permission_rules import User, UserRole
from asyncua.server.internal_session import InternalSession

_T = TypeVar("_T")
PLANT = "urn:plant"
# Browse names, each of a folder with the one variable `X` below it. The id of the folder is the name itself.
ODD_NAMES = (
    "I/O/",
    "/",
    " both ",
    "tab\t",
    "line\nbreak\n",
    "a:b",
    "2:b",
    ":",
    "R&D",
    "&",
    "&/",
    "!<#.>",
    "ns=2;i=1",
    "nsu=urn%3Aplant;s=a",
    "50%",
    "Größe ½ 漢字",
    "'\"\\",
    "n" * 4096,
)
# The server sends these bytes as they are. They are no UTF-8, and the library has a way to say so.
BROKEN = "br\udcffken"


class _Admins:
    """Makes everybody an administrator: to others this server does not say whether a node exists."""

    def get_user(self, *_: object, **__: object) -> User:
        return User(role=UserRole.Admin)


class Plant:
    """Made by `plant`. Its methods can be called from any thread, and return when the server has done it."""

    def __init__(self) -> None:
        self._loop: Any = None
        self._server: Any = None
        self._stop = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="plant")
        self.url = ""
        # How often each service of `InternalSession` was called while `service` replaced it.
        self.calls: list[Any] = []

    def start(self) -> None:
        self._thread.start()
        assert self._ready.wait(120)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(60)

    @property
    def limits(self) -> TransportLimits:
        """The limits of messages on new connections."""
        limits: TransportLimits = self._server.limits
        return limits

    def do(self, work: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def value(self, node_id: str) -> object:
        return self.do(self._server.get_node(node_id).read_value())

    def add(self, node_id: str, name: str, value: object = 1.0, kind: ua.VariantType | None = None) -> None:
        self.do(_variable(self._server.nodes.objects, ua.NodeId.from_string(node_id), name, value, kind))

    def delete(self, node_id: str) -> None:
        async def work() -> None:
            # This server would tell of the deletion, but it forgets to await what tells of it.
            nodes = self._server.iserver.aspace
            value = nodes[ua.NodeId.from_string(node_id)].attributes[ua.AttributeIds.Value]
            value.datachange_callbacks.clear()
            await self._server.delete_nodes([self._server.get_node(node_id)])

        self.do(work())

    def vanish(self, node_id: str) -> None:
        """Say of a node that it is not there, as servers do that delete it; this one has no word for that."""
        gone = ua.DataValue(ua.Variant(None), ua.StatusCode(ua.StatusCodes.BadNodeIdUnknown))
        self.do(self._server.write_attribute_value(ua.NodeId.from_string(node_id), gone))

    def set_value(self, node_id: str, value: ua.Variant) -> None:
        self.do(self._server.write_attribute_value(ua.NodeId.from_string(node_id), ua.DataValue(value)))

    def reset_values(self) -> None:
        """Give the variables T0 to T7 the values that they had first."""
        for number in range(8):
            self.set_value(f"ns=2;s=T{number}", ua.Variant(float(number)))

    def namespaces(self, *uris: str) -> None:
        """Replace the namespaces after the first two."""

        async def work() -> None:
            table = self._server.nodes.namespace_array
            first = (await table.read_value())[:2]
            await table.write_value([*first, *uris])

        self.do(work())

    def disconnect(self) -> None:
        """Break all connections; the sessions live on."""

        async def work() -> None:
            for client in self._server.bserver.clients:
                client.transport.abort()

        self.do(work())

    @contextmanager
    def service(self, name: str, answer: Callable[..., Awaitable[Any]]) -> Iterator[None]:
        """Answer a service with `answer`, which gets the server's own way to do it, and the parameters."""
        original = getattr(InternalSession, name)

        async def call(session: Any, *parameters: Any) -> Any:
            if not session.external:
                return await original(session, *parameters)
            self.calls.append(parameters)
            return await answer(lambda *p: original(session, *p), *parameters)

        self.calls.clear()
        with patch.object(InternalSession, name, call):
            yield

    @contextmanager
    def services(self, answers: dict[str, Callable[..., Awaitable[Any]]]) -> Iterator[None]:
        """Answer several services, as `service` does."""
        with ExitStack() as stack:
            for name, answer in answers.items():
                stack.enter_context(self.service(name, answer))
            yield

    def release(self, event: asyncio.Event) -> None:
        """Set an event for which an answer of `service` waits."""
        self._loop.call_soon_threadsafe(event.set)

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._server = server = Server(user_manager=_Admins())
        gc.disable()  # it would go through the half million objects that this makes again and again: see demo_server.py
        try:
            await server.init()
        finally:
            gc.enable()
        server.set_endpoint("opc.tcp://127.0.0.1:0/plant")
        server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        await server.register_namespace(PLANT)
        objects = server.nodes.objects
        for number in range(8):
            await _variable(objects, ua.NodeId(f"T{number}", 2), f"T{number}", float(number))
        await _variable(objects, ua.NodeId("N", 2), "N", ua.NodeId("a", 2), ua.VariantType.NodeId)
        await _variable(objects, ua.NodeId("Q", 2), "Q", ua.QualifiedName("a", 2), ua.VariantType.QualifiedName)
        await _variable(objects, ua.NodeId("A", 2), "A", [0.0], ua.VariantType.Double)
        odd = await objects.add_object(ua.NodeId("Odd", 2), ua.QualifiedName("Odd", 2))
        for name in ODD_NAMES:
            folder = await odd.add_object(ua.NodeId(name, 2), ua.QualifiedName(name, 2))
            await _variable(folder, ua.NodeId(f"{name[:4000]}.X ", 2), "X", 1.0)
        nameless = await odd.add_object(ua.NodeId(b"\xd3\x1f\x00", 2), ua.QualifiedName("", 2))
        await _variable(nameless, ua.NodeId(b"\xd3\x1f\x00X", 2), "X", 1.0)
        bad = await objects.add_object(ua.NodeId("Bad", 2), ua.QualifiedName("Bad", 2))
        broken = await _variable(bad, ua.NodeId(77, 2), BROKEN, BROKEN)
        await broken.write_attribute(ua.AttributeIds.Description, ua.DataValue(ua.LocalizedText(BROKEN)))
        await _variable(bad, ua.NodeId(BROKEN, 2), "Id", [BROKEN, "whole"])
        async with server:
            self.url = f"opc.tcp://127.0.0.1:{server.bserver.port}/plant"
            self._ready.set()
            await self._stop.wait()


async def _variable(parent: Any, node_id: ua.NodeId, name: str, value: Any, kind: ua.VariantType | None = None) -> Any:
    node = await parent.add_variable(node_id, ua.QualifiedName(name, node_id.NamespaceIndex), value, kind)
    await node.set_writable()
    return node


@contextmanager
def running_plant() -> Iterator[Plant]:
    """Serve while the block runs."""
    plant = Plant()
    plant.start()
    try:
        yield plant
    finally:
        plant.stop()
