"""Handles every RPC in the same steps: authenticate, parse, check, authorize, run, and turn errors into statuses.

Handlers are made from service descriptors, so that no service can leave out a step. Requests arrive as bytes, so that
the gateway itself refuses a malformed request, with a clear error.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from typing import Any, NoReturn, TypeAlias, TypeVar

import grpc
import grpc.aio
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from mxgw.v1.session_service_pb2 import OpenSessionRequest
from mxgw_core.api.access import AccessRequest, Moment
from mxgw_core.api.calls import Call, GrpcService, OpenStream, correlation_id, current_call
from mxgw_core.api.errors import GatewayError, InternalError
from mxgw_core.api.slices import turn_for_whole
from mxgw_core.api.types import Identity, Peer
from mxgw_core.config.models import LimitSettings
from mxgw_core.plugins.calls import CallFailed
from mxgw_core.rpc.access import AccessControl, joined_metadata, parse_peer
from mxgw_core.rpc.call_counts import CallCounts
from mxgw_core.rpc.open_streams import OpenStreams, without_answer
from mxgw_core.rpc.plugin_services import PluginServices
from mxgw_core.rpc.request_ids import request_key
from mxgw_core.rpc.statuses import DETAILS_KEY, status_code, status_details, status_message
from mxgw_core.rpc.validation import LARGE_BYTES, check, count_parts, parse
from mxgw_core.rpc.writers import GrpcStream, PeerGone, WriteDriver
from mxgw_core.sessions.memory import PART_BYTES
from mxgw_core.sessions.registry import SessionRegistry

log = logging.getLogger(__name__)

_T = TypeVar("_T")

# The header with the id of a call. Proxies and tracing systems often send it. When the gateway refuses the call, its
# answer has the same id.
REQUEST_ID_KEY = "x-request-id"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")
# How long the status of a call may wait for its caller to read. A caller that reads has it within milliseconds.
_STATUS_S = 5.0
# A call that took longer than this is authorized again before its answer is sent. Quicker calls need no second check:
# plugins do not notice a revocation sooner.
LONG_S = 0.5
# The answers of these methods have no data of a session. A session that was opened meanwhile is closed by the plugin
# that revokes its owner's rights.
_NOT_AGAIN = frozenset({"/mxgw.v1.SessionService/OpenSession", "/mxgw.v1.SessionService/CloseSession"})

# A function that reads and checks a request. It counts a large request in the gateway's memory. When the call ends, the
# `ExitStack` subtracts the request again.
_Admission: TypeAlias = Callable[[bytes, grpc.aio.ServicerContext[Any, Any], ExitStack], Awaitable[tuple[Any, Call]]]


class HandlerFactory:
    """Makes the gRPC handlers of services. With `mutual_tls`, plugins also get the names in callers' certificates.

    `streams` and `calls` list the streaming and the unary calls while they are served, so that others can end them.
    """

    def __init__(
        self,
        limits: LimitSettings,
        access: AccessControl,
        registry: SessionRegistry,
        streams: OpenStreams,
        *,
        calls: OpenStreams | None = None,
        counts: CallCounts | None = None,
        mutual_tls: bool = False,
        plugin_services: Sequence[PluginServices] = (),
    ) -> None:
        self._limits = limits
        self._access = access
        self._registry = registry
        self._streams = streams
        # The unary calls that are being served.
        self._calls = calls if calls is not None else OpenStreams()
        self._counts = counts if counts is not None else CallCounts()
        self._mutual_tls = mutual_tls
        self._driver = WriteDriver()
        self._of_plugins = {name: services for services in plugin_services for name in services.names}

    def handlers(self, service: GrpcService) -> grpc.GenericRpcHandler:
        """Return the handler of one service.

        Raises:
            TypeError: the implementation lacks a method, the service has a client-streaming method, or `scopes` names
                a method that the service does not have.
        """
        names = {method.name for method in service.descriptor.methods}
        if unknown := sorted(service.scopes.keys() - names):
            raise TypeError(f"the scopes of {service.descriptor.full_name} name {unknown[0]}, which it does not have")
        by_name: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        for method in service.descriptor.methods:
            path = f"/{service.descriptor.full_name}/{method.name}"
            run = getattr(service.implementation, method.name, None)
            if run is None:
                raise TypeError(f"{type(service.implementation).__name__} does not implement {path}")
            if method.client_streaming:
                raise TypeError(f"{path} streams from the client, which is not supported")
            plugin = self._of_plugins.get(service.descriptor.full_name)
            if plugin is not None:
                run = _of_plugin(plugin, run)
            scope = service.scopes.get(method.name, "")
            admit = self._admission(path, GetMessageClass(method.input_type), scope)
            if method.server_streaming:
                by_name[method.name] = grpc.unary_stream_rpc_method_handler(self._streaming(path, admit, run))
            else:
                by_name[method.name] = grpc.unary_unary_rpc_method_handler(self._unary(path, admit, run, scope))
        return grpc.method_handlers_generic_handler(service.descriptor.full_name, by_name)

    def absent(self, service: ServiceDescriptor, failure: Callable[[], GatewayError]) -> grpc.GenericRpcHandler:
        """Return the handler of a service that no plugin serves here: every call ends with an error of `failure`.

        Callers are not authenticated, because `GetAccess` of the dashboard is for callers without credentials too.
        """

        def of_method(path: str, *, streams: bool) -> grpc.RpcMethodHandler[Any, Any]:
            counts = self._counts.method(path, streams=streams)

            async def handle(data: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> NoReturn:
                del data
                began, error = time.perf_counter(), failure()
                try:
                    await _abort(context, path, error)
                finally:
                    counts.ended(_code_of(error), time.perf_counter() - began)

            make = grpc.unary_stream_rpc_method_handler if streams else grpc.unary_unary_rpc_method_handler
            return make(handle)

        name = service.full_name
        methods = {m.name: of_method(f"/{name}/{m.name}", streams=m.server_streaming) for m in service.methods}
        return grpc.method_handlers_generic_handler(name, methods)

    def _unary(
        self, path: str, admit: _Admission, run: Callable[[Message, Call], Awaitable[Message]], scope: str
    ) -> Callable[[bytes, grpc.aio.ServicerContext[Any, Any]], Awaitable[bytes]]:
        counts = self._counts.method(path, streams=False)

        async def handle(data: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
            # The code stays CANCELLED when gRPC cancels the call, because its client gave up, its deadline has passed,
            # or its connection was lost.
            began, code = time.perf_counter(), "CANCELLED"
            counts.running += 1
            try:
                # Only the service's method holds a reference to the request, so that it can free the request while it
                # waits.
                with self._counts.serving(), ExitStack() as held:
                    admitted = await admit(data, context, held)
                    call, session_id = admitted[1], getattr(admitted[0], "session_id", "")
                    method = run(*admitted)
                    del admitted
                    async with self._calls.serving(OpenStream(path, call.identity, call.peer, session_id)):
                        reply = (await _run(method)).SerializeToString()
                    if time.perf_counter() - began > LONG_S and path not in _NOT_AGAIN:
                        self._authorize_answer(call, session_id, scope)
                code = "OK"
                return reply
            except Exception as error:
                code = _code_of(error)
                await _abort(context, path, error)
            finally:
                counts.running -= 1
                counts.ended(code, time.perf_counter() - began)

        return handle

    def _streaming(
        self,
        path: str,
        admit: _Admission,
        run: Callable[[Message, Call, GrpcStream], Awaitable[None]],
    ) -> Callable[[bytes, grpc.aio.ServicerContext[Any, Any]], Awaitable[None]]:
        counts = self._counts.method(path, streams=True)

        async def handle(data: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> None:
            # The code stays CANCELLED when gRPC cancels the call, because its client gave up, its deadline has passed,
            # or its connection was lost.
            began, code = time.perf_counter(), "CANCELLED"
            counts.running += 1
            try:
                with self._counts.serving(), ExitStack() as held:
                    request, call = await admit(data, context, held)
                    session_id: str = getattr(request, "session_id", "")
                    async with self._streams.serving(OpenStream(path, call.identity, call.peer, session_id)):
                        await _run(run(request, call, GrpcStream(context, self._driver)))
                code = "OK"
            except PeerGone:
                log.debug("%s: the client went away", path)
            except Exception as error:
                code = _code_of(error)
                await _abort(context, path, error)
            finally:
                counts.running -= 1
                counts.ended(code, time.perf_counter() - began)

        return handle

    def _admission(self, path: str, request_class: type[Message], scope: str) -> _Admission:
        """Return the function that reads and checks requests. It waits only to let other calls run during long work."""
        limits, access, registry = self._limits, self._access, self._registry
        names_session = "session_id" in request_class.DESCRIPTOR.fields_by_name

        async def admit(data: bytes, context: grpc.aio.ServicerContext[Any, Any], held: ExitStack) -> tuple[Any, Call]:
            peer, identity = self._caller(path, context, scope)
            if len(data) > LARGE_BYTES:
                held.enter_context(registry.memory.holding(len(data)))
                parts = await count_parts(request_class, data, limits.items_per_call)
                held.enter_context(registry.memory.holding(parts * PART_BYTES))
                await turn_for_whole()
            request = parse(request_class, data)
            await check(request, text_characters=limits.text_characters, items=limits.items_per_call)
            session_id: str = getattr(request, "session_id", "") if names_session else ""
            find_session = partial(registry.info, session_id)
            if isinstance(request, OpenSessionRequest):
                find_session = partial(registry.opened_by, request_key(identity, request.request_id))
            is_internal = registry.is_internal(session_id)
            access.authorize(
                AccessRequest(path, identity, peer, session_id, find_session, request, scope, is_internal=is_internal)
            )
            return request, Call(path, identity, peer, context.time_remaining(), len(data))

        return admit

    def _authorize_answer(self, call: Call, session_id: str, scope: str) -> None:
        """Make sure that the caller of a call that has run may still have the answer.

        Raises:
            GatewayError: a plugin refuses it, or failed meanwhile.
        """
        find_session = partial(self._registry.info, session_id)
        is_internal = self._registry.is_internal(session_id)
        try:
            self._access.authorize(
                AccessRequest(
                    call.method,
                    call.identity,
                    call.peer,
                    session_id,
                    find_session,
                    scope=scope,
                    moment=Moment.ANSWER,
                    is_internal=is_internal,
                )
            )
        except GatewayError as error:
            log.info("%s: the answer for %s is withheld: %s", call.method, call.identity.id, error.reason)
            raise without_answer(error, call.method) from None

    @asynccontextmanager
    async def letting_in(self, path: str, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[None]:
        """Admit a stream of a service that grpc itself provides, like any other call. This stream names no session."""
        try:
            with self._counts.serving():
                peer, identity = self._caller(path, context, "")
                self._access.authorize(AccessRequest(path, identity, peer))
                async with self._streams.serving(OpenStream(path, identity, peer, "")):
                    yield
        except GatewayError as error:
            await _abort(context, path, error)

    def _caller(self, path: str, context: grpc.aio.ServicerContext[Any, Any], scope: str) -> tuple[Peer, Identity]:
        """Return where a call comes from, and the identity of its caller.

        Raises:
            Unauthenticated: the caller is unknown, or sent a credential header twice.
        """
        peer = parse_peer(context.peer())
        pairs = [(key, value) for key, value in context.invocation_metadata() or () if isinstance(value, str)]
        metadata = joined_metadata(pairs)
        brought = metadata.get(REQUEST_ID_KEY, "")
        current_call.set(brought if _REQUEST_ID.fullmatch(brought) else secrets.token_hex(8))
        self._access.check_credentials(pairs)
        names = _certificate_names(context) if self._mutual_tls else ()
        return peer, self._access.authenticate(path, peer, metadata, certificate_names=names, scope=scope)


def _certificate_names(context: grpc.aio.ServicerContext[Any, Any]) -> Sequence[str]:
    """Return the names in the caller's certificate, which TLS has verified."""
    facts = context.auth_context()
    names = [*facts.get("x509_common_name", ()), *facts.get("x509_subject_alternative_name", ())]
    return tuple(dict.fromkeys(name.decode("utf-8", "replace") for name in names))


def _of_plugin(plugin: PluginServices, run: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Return what calls a method of a plugin's service, as long as the plugin has not failed."""

    async def guarded(request: Message, call: Call, *stream: GrpcStream) -> Any:
        async with plugin.serving(call):
            return await run(request, call, *stream)

    return guarded


async def _run(method: Awaitable[_T]) -> _T:
    """Run a service's method. Turn a CancelledError into an ordinary error, unless the call itself was cancelled.

    Raises:
        RuntimeError: something that the method waited for was cancelled. (After a CancelledError, grpc would send no
            status to the caller.)
    """
    try:
        return await method
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise RuntimeError("something that the method waited for was cancelled, and the call was not") from error


def _code_of(error: Exception) -> str:
    return (status_code(error) if isinstance(error, GatewayError) else grpc.StatusCode.INTERNAL).name


async def _abort(context: grpc.aio.ServicerContext[Any, Any], path: str, error: Exception) -> NoReturn:
    if isinstance(error, grpc.aio.AbortError):
        raise error
    if not isinstance(error, GatewayError):
        call_id = correlation_id()
        facts = {"correlation_id": call_id}
        if isinstance(error, CallFailed):
            who = str(error)
            facts["plugin"] = error.owner.plugin
            log.error("%s: %s (correlation id %s)", path, who, call_id, exc_info=error)
        else:
            who = "the gateway failed"
            log.error("%s failed inside the gateway (correlation id %s)", path, call_id, exc_info=error)
        error = InternalError(f"{who}; the gateway's log has the details under {call_id}", metadata=facts)
    details = ((DETAILS_KEY, status_details(error)), (REQUEST_ID_KEY, correlation_id()))
    try:
        async with asyncio.timeout(_STATUS_S):
            await context.abort(status_code(error), status_message(error), trailing_metadata=details)
    except grpc.aio.InternalError:  # the caller has left
        raise asyncio.CancelledError from None
    except TimeoutError:  # the caller does not read; grpc sends the status if the caller ever reads again
        raise asyncio.CancelledError from None
