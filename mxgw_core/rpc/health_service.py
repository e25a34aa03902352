"""The standard health service of gRPC. It answers without authentication, so strangers can use only little of it."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc

from mxgw_core.api.rate_limits import peer_host
from mxgw_core.rpc.access import parse_peer

log = logging.getLogger(__name__)

# How many health streams are served at once, in all and for one machine. A load balancer has one for each connection.
WATCHERS = 64
WATCHERS_OF_PEER = 16
_Context = grpc.aio.ServicerContext[Any, Any]
# The type stubs do not know the messages of List.
_MESSAGES: Any = health_pb2


class HealthService(health_pb2_grpc.HealthServicer):
    """Implements grpc.health.v1.Health. Lives in the event loop.

    The service that grpc provides writes to a client while it holds a lock, so a client that does not read could keep
    every status from changing. Its `List` is not implemented.
    """

    def __init__(self) -> None:
        self._statuses: dict[str, Any] = {"": health_pb2.HealthCheckResponse.NOT_SERVING}
        # Set at the next change, and then replaced.
        self._changed = asyncio.Event()
        self._watchers = 0
        # Key: the machine of a client. Value: its health streams.
        self._watchers_of: Counter[str] = Counter()
        # Whether streams were refused since the last time that there was room.
        self._is_full = False

    def set(self, service: str, *, serves: bool) -> None:
        """Change the status of a service; "" is the gateway as a whole."""
        response = health_pb2.HealthCheckResponse
        self._statuses[service] = response.SERVING if serves else response.NOT_SERVING
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def Check(self, request: health_pb2.HealthCheckRequest, context: _Context) -> health_pb2.HealthCheckResponse:
        status = self._statuses.get(request.service)
        if status is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no service of this name is served here")
        return health_pb2.HealthCheckResponse(status=status)

    async def List(self, request: Message, context: _Context) -> Message:
        del request, context
        response = health_pb2.HealthCheckResponse
        statuses = {name: response(status=status) for name, status in self._statuses.items()}
        listed: Message = _MESSAGES.HealthListResponse(statuses=statuses)
        return listed

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: _Context) -> None:
        host = peer_host(parse_peer(context.peer()))
        if self._watchers >= WATCHERS or self._watchers_of[host] >= WATCHERS_OF_PEER:
            if not self._is_full:
                self._is_full = True
                log.warning("health streams are refused: %d are open, %d of %s", self._watchers, *self._of(host))
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"at most {WATCHERS_OF_PEER} health streams of one machine are served, and {WATCHERS} in all: use "
                "Check, or end some",
            )
        with self._watching(host):
            last = None
            while True:
                changed = self._changed
                status = self._statuses.get(request.service, health_pb2.HealthCheckResponse.SERVICE_UNKNOWN)
                if status != last:
                    await context.write(health_pb2.HealthCheckResponse(status=status))
                last = status
                await changed.wait()

    def _of(self, host: str) -> tuple[int, str]:
        return self._watchers_of[host], host

    @contextmanager
    def _watching(self, host: str) -> Iterator[None]:
        self._watchers += 1
        self._watchers_of[host] += 1
        try:
            yield
        finally:
            self._watchers -= 1
            self._watchers_of -= Counter({host: 1})  # this also removes a count of 0
            self._is_full = self._is_full and self._watchers >= WATCHERS // 2
