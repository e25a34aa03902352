"""The gRPC services of plugins: when a plugin fails, its running calls end with an error, and new ones are refused."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

from mxgw_core.api.calls import Call, GrpcService, OpenStream
from mxgw_core.api.errors import PluginFailed
from mxgw_core.rpc.open_streams import OpenStreams


class PluginServices:
    """The gRPC services of one plugin."""

    def __init__(self, services: Iterable[GrpcService]) -> None:
        self.services = tuple(services)
        self._calls = OpenStreams()
        self._failure: Callable[[], PluginFailed] | None = None

    @property
    def names(self) -> list[str]:
        """The full names of the services."""
        return [service.descriptor.full_name for service in self.services]

    @asynccontextmanager
    async def serving(self, call: Call) -> AsyncIterator[None]:
        """Run the block, which serves a call. The block is entered without any wait.

        Raises:
            PluginFailed: the plugin has failed, before the call or during it.
        """
        if self._failure is not None:
            raise self._failure()
        async with self._calls.serving(OpenStream(call.method, call.identity, call.peer, "")):
            yield

    def fail(self, failure: Callable[[], PluginFailed]) -> None:
        """End all running calls, and refuse new ones. `failure` makes the errors."""
        self._failure = failure
        for call in self._calls.all():
            self._calls.end(call, failure())
