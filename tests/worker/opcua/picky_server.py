"""A real OPC UA server with limits, as small devices have them: operations per request, pages, sessions, slow answers.

Its nodes, in namespace 2, below `/Objects/2:Plant`: the variables `V0` to `V11`, the objects `O0` to `O7` with one
variable each, and an object `Wide`, whose children exist in answers of Browse only.
"""

from __future__ import annotations

import asyncio
import copy
import gc
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from asyncua import Server, ua
from asyncua.common.utils import ServiceError
from asyncua.crypto.security_policies import SecurityPolicyBasic256Sha256
from asyncua.server.internal_session import InternalSession
from asyncua.server.uaprocessor import UaProcessor
from asyncua.ua.ua_binary import struct_from_binary

NS = "ns=2;s="
VARIABLES = 12
PLANT, WIDE = ua.NodeId("Plant", 2), ua.NodeId("Wide", 2)
_O = ua.ObjectIds
_BROWSE_NEXT = ua.NodeId(_O.BrowseNextRequest_Encoding_DefaultBinary)
_ACTIVATE = ua.NodeId(_O.ActivateSessionRequest_Encoding_DefaultBinary)
_CLOSE = ua.NodeId(_O.CloseSessionRequest_Encoding_DefaultBinary)
_LIMIT_NODES = {"read": 11705, "write": 11707, "browse": 11710, "translate": 11712, "monitor": 11714}
_POINTS_NODE = 2735
_codes = ua.StatusCodes


@dataclass
class Rules:
    """What the server refuses. A test sets it, and `PickyServer.reset` makes it generous again."""

    most: dict[str, int] = field(default_factory=dict)  # operations per request, by kind
    one_by_one: bool = False  # carry out as many as are allowed, and refuse each of the others
    page: int = 0  # references per page of Browse
    points: int = 1_000_000  # continuation points
    points_used_by_others: int = 0  # how often a continuation point is refused although there is one
    wide: int = 0  # children of `Wide`
    endless: bool = False  # pages without references and without an end
    bad_page: int = 0  # the StatusCode of every BrowseNext
    sessions: int = 1_000_000
    activation_s: float = 0.0
    subscription_s: float = 0.0  # how late a subscription is confirmed
    subscriptions: int = 1_000_000
    items: int = 1_000_000
    offered: bytes | None = None  # the certificate of an endpoint that is offered, and that nobody can use
    application_uri: str = "urn:picky"


class PickyServer:
    """Made by `picky_server`. `refused` counts requests that broke a rule; `sizes` has the sizes of all requests."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.rules = Rules()
        self.refused = 0
        self.sizes: dict[str, list[int]] = {}
        self.sessions: list[_Session] = []
        self.activations = self.closings = 0
        self._changed = asyncio.Event()
        self._points: dict[bytes, list[Any]] = {}
        server.iserver.create_session = self._create_session
        self._endpoints = server.iserver.get_endpoints
        server.iserver.get_endpoints = self._offer

    @property
    def url(self) -> str:
        assert self.server.bserver is not None
        return f"opc.tcp://127.0.0.1:{self.server.bserver.port}/mxgw/picky"

    @property
    def open_sessions(self) -> int:
        return sum(session.state.name != "Closed" for session in self.sessions)

    @property
    def processors(self) -> list[Any]:
        assert self.server.bserver is not None
        return [client.processor for client in self.server.bserver.clients]

    @property
    def subscriptions(self) -> int:
        return len(self.server.iserver.subscription_service.subscriptions)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return when `condition` holds; it is looked at after every request."""
        async with asyncio.timeout(60):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def before(self, kind: ua.NodeId) -> None:
        """Take note of a request, which is not answered yet."""
        self._changed.set()
        if kind == _ACTIVATE:
            self.activations += 1
            await asyncio.sleep(self.rules.activation_s)
        self.closings += kind == _CLOSE

    async def reset(self) -> None:
        """Forget all rules, what was declared, and what was counted."""
        self.rules, self.refused, self.sizes = Rules(), 0, {}
        self.activations = self.closings = 0
        self.sessions = [session for session in self.sessions if session.state.name != "Closed"]
        self._points.clear()
        await self.declare(**dict.fromkeys(_LIMIT_NODES, 0))

    async def declare(self, points: int = 0, **most: int) -> None:
        """Declare limits of operations, and of continuation points."""
        for kind, number in most.items():
            node = self.server.get_node(ua.NodeId(_LIMIT_NODES[kind], 0))
            await node.write_value(ua.Variant(number, ua.VariantType.UInt32))
        await self.server.get_node(ua.NodeId(_POINTS_NODE, 0)).write_value(ua.Variant(points, ua.VariantType.UInt16))

    def allowed(self, kind: str, operations: int) -> int:
        """Count a request, and return how many of its operations are carried out."""
        self.sizes.setdefault(kind, []).append(operations)
        most = self.rules.most.get(kind, operations)
        if operations <= most:
            return operations
        self.refused += 1
        if not self.rules.one_by_one:
            raise ServiceError(_codes.BadTooManyOperations)
        return most

    def page(self, references: list[Any], most: int) -> Any:
        """Return an answer of Browse with as many references as fit, and a continuation point for the others."""
        result = ua.BrowseResult()
        size = min(filter(None, (most, self.rules.page)), default=len(references))
        result.References = references[:size]
        if len(references) <= size:
            return result
        if self.rules.points_used_by_others or len(self._points) >= self.rules.points:
            self.rules.points_used_by_others = max(0, self.rules.points_used_by_others - 1)
            return ua.BrowseResult(StatusCode=ua.StatusCode(_codes.BadNoContinuationPoints))
        result.ContinuationPoint = f"point {len(self.sizes.setdefault('points', []))}".encode()
        self.sizes["points"].append(1)
        self._points[result.ContinuationPoint] = references[size:]
        return result

    def next_page(self, point: bytes, *, release: bool) -> Any:
        left = self._points.pop(point, None)
        if left is None:
            return ua.BrowseResult(StatusCode=ua.StatusCode(_codes.BadContinuationPointInvalid))
        if self.rules.bad_page and not release:
            return ua.BrowseResult(StatusCode=ua.StatusCode(self.rules.bad_page))
        if release:
            return ua.BrowseResult()
        if self.rules.endless:
            self._points[point] = left
            return ua.BrowseResult(ContinuationPoint=point)
        return self.page(left, 0)

    async def _offer(self, params: Any = None, sockname: Any = None) -> Any:
        endpoints = await self._endpoints(params, sockname)
        if self.rules.offered is not None:
            secure = copy.deepcopy(endpoints[0])
            secure.SecurityMode = ua.MessageSecurityMode.SignAndEncrypt
            secure.SecurityPolicyUri = SecurityPolicyBasic256Sha256.URI
            secure.ServerCertificate = self.rules.offered
            secure.Server.ApplicationUri = self.rules.application_uri
            endpoints.append(secure)
        return endpoints

    def _create_session(self, name: str, user: Any = None, external: bool = False) -> Any:
        service = self.server.iserver
        session = _Session(service, service.aspace, service.subscription_service, name, external=external)
        session.picky = self
        if external:
            self.sessions.append(session)
        return session


class _Session(InternalSession):  # type: ignore[misc]  # the library counts as untyped
    picky: PickyServer

    async def create_session(self, params: Any, sockname: Any = None) -> Any:
        if self.picky.open_sessions > self.picky.rules.sessions:
            await self.close_session()
            raise ServiceError(_codes.BadTooManySessions)
        return await super().create_session(params, sockname)

    async def read(self, params: Any) -> Any:
        done = self.picky.allowed("read", len(params.NodesToRead))
        params.NodesToRead, rest = params.NodesToRead[:done], params.NodesToRead[done:]
        if not rest and str(params.NodesToRead[0].NodeId.Identifier).startswith("W"):
            unknown = ua.StatusCode(_codes.BadNodeIdUnknown)  # the library's server is slow at this
            return [ua.DataValue(StatusCode=unknown) for _ in params.NodesToRead]
        return [*await super().read(params), *(ua.DataValue(StatusCode=_too_many()) for _ in rest)]

    async def write(self, params: Any) -> Any:
        done = self.picky.allowed("write", len(params.NodesToWrite))
        params.NodesToWrite, rest = params.NodesToWrite[:done], params.NodesToWrite[done:]
        return [*await super().write(params), *(_too_many() for _ in rest)]

    async def translate_browsepaths_to_nodeids(self, params: Any) -> Any:
        done = self.picky.allowed("translate", len(params))
        results = await super().translate_browsepaths_to_nodeids(params[:done])
        return [*results, *(ua.BrowsePathResult(StatusCode=_too_many()) for _ in params[done:])]

    async def create_monitored_items(self, params: Any) -> Any:
        done, code = self.picky.allowed("monitor", len(params.ItemsToCreate)), _codes.BadTooManyOperations
        if done > self.picky.rules.items:
            done, code = self.picky.rules.items, _codes.BadTooManyMonitoredItems
        params.ItemsToCreate, rest = params.ItemsToCreate[:done], params.ItemsToCreate[done:]
        results = list(await super().create_monitored_items(params))
        return results + [ua.MonitoredItemCreateResult(StatusCode=ua.StatusCode(code)) for _ in rest]

    async def create_subscription(self, params: Any, callback: Any, request_callback: Any = None) -> Any:
        if self.picky.subscriptions >= self.picky.rules.subscriptions:
            raise ServiceError(_codes.BadTooManySubscriptions)
        result = await super().create_subscription(params, callback, request_callback)
        await asyncio.sleep(self.picky.rules.subscription_s)
        return result

    async def browse(self, params: Any) -> Any:
        done = self.picky.allowed("browse", len(params.NodesToBrowse))
        answers = await super().browse(params)
        for answer in answers[done:]:
            answer.StatusCode, answer.References = _too_many(), []
        for place, description in enumerate(params.NodesToBrowse):
            references = answers[place].References
            if description.NodeId == WIDE:
                references = wide_children(self.picky.rules.wide)
            if answers[place].StatusCode.is_good():
                answers[place] = self.picky.page(references, params.RequestedMaxReferencesPerNode)
        return answers

    async def browse_next(self, parameters: Any) -> Any:
        points, release = parameters.ContinuationPoints, parameters.ReleaseContinuationPoints
        done = self.picky.allowed("browse", len(points))
        answers = [self.picky.next_page(point, release=release) for point in points[:done]]
        return answers + [ua.BrowseResult(StatusCode=_too_many()) for _ in points[done:]]


def wide_children(count: int) -> list[Any]:
    """Return the references from `Wide` to its children, which are no nodes of the server."""
    references = []
    for number in range(count):
        reference = ua.ReferenceDescription()
        reference.NodeId = ua.ExpandedNodeId(f"W{number}", 2)
        reference.BrowseName = ua.QualifiedName(f"W{number}", 2)
        reference.NodeClass = ua.NodeClass.Variable
        references.append(reference)
    return references


def _too_many() -> ua.StatusCode:
    return ua.StatusCode(_codes.BadTooManyOperations)


@asynccontextmanager
async def picky_server() -> AsyncIterator[PickyServer]:
    """Serve while the block runs."""
    server = Server()
    gc.disable()  # see demo_server.py
    try:
        await server.init()
    finally:
        gc.enable()
    server.set_endpoint("opc.tcp://127.0.0.1:0/mxgw/picky")
    server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    await server.register_namespace("urn:mxgw:picky")
    plant = await server.nodes.objects.add_object(PLANT, ua.QualifiedName("Plant", 2))
    for number in range(VARIABLES):
        await (await _variable(plant, f"V{number}", number)).set_writable()
    for number in range(8):
        child = await plant.add_object(ua.NodeId(f"O{number}", 2), ua.QualifiedName(f"O{number}", 2))
        await _variable(child, f"O{number}.A", number)
        await _variable(child, f"O{number}.B", number)
    await plant.add_object(WIDE, ua.QualifiedName("Wide", 2))
    picky = PickyServer(server)
    with _watched_requests(picky):
        async with server:
            yield picky


@contextmanager
def _watched_requests(picky: PickyServer) -> Iterator[None]:
    """Have the server tell of its requests, and answer BrowseNext, which the library's server does not know."""
    process = UaProcessor._process_message

    async def watch(self: Any, kind: ua.NodeId, header: Any, sequence: Any, body: Any) -> Any:
        if self.iserver is not picky.server.iserver:
            return await process(self, kind, header, sequence, body)
        await picky.before(kind)
        if kind != _BROWSE_NEXT:
            return await process(self, kind, header, sequence, body)
        response = ua.BrowseNextResponse()
        response.Parameters.Results = await self.session.browse_next(struct_from_binary(ua.BrowseNextParameters, body))
        self.send_response(header.RequestHandle, sequence, response)
        return True

    UaProcessor._process_message = watch
    try:
        yield
    finally:
        UaProcessor._process_message = process


async def _variable(parent: Any, name: str, value: int) -> Any:
    return await parent.add_variable(
        ua.NodeId(name, 2), ua.QualifiedName(name, 2), ua.Variant(float(value), ua.VariantType.Double)
    )


def names(nodes: Sequence[Any]) -> list[str]:
    """Return the names of what a browse found."""
    return [str(node.name) for node in nodes]
