"""The gRPC server: options, ports, TLS, health and reflection."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import grpc
import grpc.aio
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health, health_pb2_grpc

from mxgw_core.api.calls import GrpcService
from mxgw_core.api.errors import GatewayError, SettingsError
from mxgw_core.config.models import Settings
from mxgw_core.rpc.call_counts import CallCounts
from mxgw_core.rpc.handlers import HandlerFactory
from mxgw_core.rpc.health_service import WATCHERS, HealthService
from mxgw_core.rpc.listening import Address, check_free, server_credentials
from mxgw_worker.platform import private_sockets

# Only with all of these options is a dead peer found within 15 s: 14.0 to 14.8 s in 6 of 6 runs. With the first two
# options alone, it took 69 s on an idle stream. Source: docs/reference/streams.md#dead-peers.
_KEEPALIVE = (
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # Clients ping every 10 s by default; two pings within 5 s are too many.
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
)
_TLS_CURE = "; check that tls.certificate and tls.private_key are PEM files that belong together"
# The metadata of a call has an API key, a trace id, and not much more. Source: docs/reference/security.md#metadata.
_METADATA_BYTES = 16 * 1024
# The services that grpc itself provides.
# Newer tools ask for v1 of reflection, older ones for v1alpha. The messages of both are the same on the wire.
_REFLECTION = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
OTHER_SERVICES = (health.SERVICE_NAME, *_REFLECTION)


class GrpcServer:
    """A grpc.aio server with the gateway's services. Call `bind`, then `start`, and at the end `stop`."""

    def __init__(
        self,
        settings: Settings,
        services: Sequence[GrpcService],
        handlers: HandlerFactory,
        counts: CallCounts | None = None,
        *,
        absent: Mapping[ServiceDescriptor, Callable[[], GatewayError]] = MappingProxyType({}),
    ) -> None:
        """`absent` are services of the contract that nobody serves here, with the error of every call of theirs."""
        limits = settings.limits
        self._settings = settings
        self._server = grpc.aio.server(
            options=(
                *_KEEPALIVE,
                ("grpc.max_receive_message_length", limits.message_bytes),
                # The code that makes a message limits its size already, so gRPC must not refuse any of these messages.
                # A frame of a stream is a little larger than the events in it.
                ("grpc.max_send_message_length", limits.message_bytes + 64 * 1024),
                ("grpc.max_concurrent_streams", limits.connection_streams),
                ("grpc.max_metadata_size", _METADATA_BYTES),
                ("grpc.absolute_max_metadata_size", _METADATA_BYTES),
                # Without this option a second gateway could listen on the same port, and each would get some of the
                # connections.
                ("grpc.so_reuseport", 0),
            ),
            # The gateway itself refuses calls above `limits.concurrent_calls`, with an error that says so. This limit
            # is for the calls of which no handler knows yet, because their clients have not sent the request.
            maximum_concurrent_rpcs=2 * limits.concurrent_calls + WATCHERS,
        )
        names = [service.descriptor.full_name for service in services]
        self._server.add_generic_rpc_handlers([handlers.handlers(service) for service in services])
        self._server.add_generic_rpc_handlers([handlers.absent(*missing) for missing in absent.items()])
        self._health = HealthService()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self._names = ["", *names]
        # The services of plugins that have failed.
        self._failed: set[str] = set()
        self._serves = False
        if settings.gateway.reflection:
            _add_reflection(self._server, [*names, health.SERVICE_NAME], handlers)
        if counts is not None:  # the last handler gets the calls that no other handler takes
            self._server.add_generic_rpc_handlers([counts.unlisted_handler()])

    def bind(self, addresses: Sequence[Address]) -> tuple[str, ...]:
        """Bind every address; return the addresses, with the chosen port in place of port 0.

        Raises:
            SettingsError: an address is taken or unusable, or a TLS file is unreadable.
        """
        credentials = server_credentials(self._settings.tls)
        bound: list[str] = []
        for address in addresses:
            check_free(address)
            # A Unix socket must be private from the moment it exists.
            private = private_sockets() if address.path is not None else contextlib.nullcontext()
            try:
                with private:
                    port = self._add_port(address, credentials)
            except RuntimeError as error:
                # gRPC reports no cause. The address was free a moment ago, so the TLS files are the likely cause.
                cure = "" if credentials is None else _TLS_CURE
                raise SettingsError(f"gateway.listen: {address.text} cannot be used: {error}{cure}") from error
            if address.path is not None:
                bound.append(address.text)
            else:
                host = f"[{address.host}]" if ":" in address.host else address.host
                bound.append(f"{host}:{port}")
        return tuple(bound)

    def _add_port(self, address: Address, credentials: grpc.ServerCredentials | None) -> int:
        if credentials is not None and address.path is None:
            return self._server.add_secure_port(address.target, credentials)
        return self._server.add_insecure_port(address.target)

    async def start(self) -> None:
        """Begin to serve."""
        await self._server.start()
        self._serves = True
        self.report_health()

    def refuse_new(self) -> None:
        """Report NOT_SERVING to health checks, so that load balancers send no more calls here."""
        self._serves = False
        self.report_health()

    def services_failed(self, names: Iterable[str] | None) -> None:
        """Report NOT_SERVING for some services, or for all of them when `names` is None, from the next `report_health`
        on.
        """
        self._failed.update(self._names if names is None else names)

    async def stop(self, grace_s: float) -> None:
        """Accept no more calls, give running calls `grace_s` to finish, then cancel them."""
        await self._server.stop(grace_s)

    def report_health(self) -> None:
        """Report to health checks which services can be called."""
        for name in self._names:
            self._health.set(name, serves=self._serves and name not in self._failed)


def _add_reflection(server: grpc.aio.Server, names: Sequence[str], handlers: HandlerFactory) -> None:
    """Add gRPC reflection. Its callers are checked like the callers of every other service."""
    # Imported here, because the module uses 1 MiB and reflection is seldom enabled.
    from grpc_reflection.v1alpha import reflection, reflection_pb2

    _add_reflection_v1(reflection_pb2.DESCRIPTOR.serialized_pb)
    inner: Any = reflection.aio.ReflectionServicer([*names, *_REFLECTION])
    method = "ServerReflectionInfo"

    def guarded(service: str) -> Any:
        async def answer(requests: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
            async with handlers.letting_in(f"/{service}/{method}", context):
                async for response in inner.ServerReflectionInfo(requests, context):
                    yield response

        return answer

    for service in _REFLECTION:
        handler = grpc.stream_stream_rpc_method_handler(
            guarded(service),
            request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
            response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
        )
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, {method: handler})])


def _add_reflection_v1(alpha: bytes) -> None:
    """Make the descriptors of v1 of reflection from those of v1alpha, so that v1 can be reflected itself:
    grpcio-reflection has v1alpha only.
    """
    file = FileDescriptorProto.FromString(alpha)
    file.name = "grpc/reflection/v1/reflection.proto"
    file.package = "grpc.reflection.v1"
    for element in (*file.message_type, *file.service):
        for field in getattr(element, "field", ()):
            if field.type_name:
                field.type_name = field.type_name.replace("v1alpha", "v1")
        for rpc in getattr(element, "method", ()):
            rpc.input_type = rpc.input_type.replace("v1alpha", "v1")
            rpc.output_type = rpc.output_type.replace("v1alpha", "v1")
    descriptor_pool.Default().AddSerializedFile(file.SerializeToString())
