"""The HTTP endpoint: collects metrics when a client requests them; requests close together share one collection."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus

from prometheus_client.process_collector import ProcessCollector

from mxgw_core.api import Distribution, Metric, MetricKind, MetricSample
from mxgw_core.api.errors import PluginError
from mxgw_metrics.exposition import content_type_for, encoded, process_metrics
from mxgw_metrics.http import Connections, Request, Response, text_response
from mxgw_metrics.settings import Address

log = logging.getLogger(__name__)

PATH = "/metrics"
# For this time after a collection all requests get the same metrics, so that many requests do not keep the gateway
# busy.
_SHARED_S = 0.1
_DURATION_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1)


class Endpoint:
    """Answers requests with the metrics that `collect` returns, in the format that the client prefers."""

    def __init__(self, collect: Callable[[], Sequence[Metric]], clock: Callable[[], float] = time.perf_counter) -> None:
        self._collect = collect
        self._clock = clock
        self._process = ProcessCollector(registry=None)
        self._collected_at = -_SHARED_S
        self._bodies: dict[str, bytes] = {}
        self._metrics: Sequence[Metric] = ()
        self._durations = Distribution(_DURATION_BOUNDS_S)

    def answer(self, request: Request) -> Response:
        """Return the response to a request, without waiting."""
        if request.path != PATH:
            return text_response(HTTPStatus.NOT_FOUND, f"the metrics are at {PATH}")
        if request.method not in ("GET", "HEAD"):
            return text_response(HTTPStatus.METHOD_NOT_ALLOWED, "GET and HEAD only", Allow="GET, HEAD")
        content_type = content_type_for(request.headers.get("accept", ""))
        return Response(HTTPStatus.OK, content_type, self._body(content_type), {"Vary": "Accept"})

    def _body(self, content_type: str) -> bytes:
        began = self._clock()
        if began - self._collected_at >= _SHARED_S:
            self._metrics = [*self._collect(), self._own(), *process_metrics(self._process)]
            self._bodies.clear()
            self._collected_at = began
        if content_type not in self._bodies:
            self._bodies[content_type] = encoded(self._metrics, content_type)
            self._durations.observe(self._clock() - began)
        return self._bodies[content_type]

    def _own(self) -> Metric:
        return Metric(
            "mxgw_metrics_collect_duration_seconds",
            MetricKind.HISTOGRAM,
            "How long the event loop was busy with one collection of the metrics.",
            samples=(MetricSample(self._durations.buckets()),),
        )


@asynccontextmanager
async def serving(endpoint: Endpoint, address: Address) -> AsyncIterator[Address]:
    """Serve the endpoint while the block runs; yield its address, in which a port 0 is replaced by the real port.

    Raises:
        PluginError: the address cannot be used.
    """
    connections = Connections(endpoint.answer)
    try:
        server = await asyncio.get_running_loop().create_server(connections.make, address.host, address.port)
    except OSError as error:
        raise PluginError(
            f"plugins.metrics.listen: {address} cannot be used: {error.strerror or error}; choose another address, or "
            "stop what listens there"
        ) from error
    try:
        bound = Address(address.host, server.sockets[0].getsockname()[1])
        log.info("metrics are at http://%s%s", bound, PATH)
        yield bound
    finally:
        server.close()
        connections.close_all()
        await server.wait_closed()
