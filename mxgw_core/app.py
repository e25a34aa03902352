"""Puts the gateway together from data directory, sessions, plugins, services and server, and starts and stops it."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack

from mxgw.v1 import (
    command_service_pb2,
    event_service_pb2,
    gateway_service_pb2,
    session_service_pb2,
)
from mxgw_core.api.calls import GrpcService
from mxgw_core.api.errors import SettingsError
from mxgw_core.api.types import CloseReason
from mxgw_core.checking import settings_problems
from mxgw_core.config.models import Settings
from mxgw_core.data_directory import DataDirectory
from mxgw_core.observing import Observing
from mxgw_core.plugin_gateway import PluginGateway
from mxgw_core.plugins import PluginHost
from mxgw_core.rpc.access import AccessControl
from mxgw_core.rpc.call_counts import CallCounts
from mxgw_core.rpc.command_service import CommandService
from mxgw_core.rpc.event_service import EventService
from mxgw_core.rpc.feed_service import PluginFeed
from mxgw_core.rpc.gateway_service import GatewayService
from mxgw_core.rpc.handlers import HandlerFactory
from mxgw_core.rpc.listening import addresses_of
from mxgw_core.rpc.open_streams import OpenStreams
from mxgw_core.rpc.server import GrpcServer
from mxgw_core.rpc.session_service import SessionService
from mxgw_core.sessions.registry import SessionRegistry
from mxgw_core.workers.orphans import orphans_of

log = logging.getLogger(__name__)

# When the gateway shuts down, clients are asked to come back after this time: a restart takes about as long.
_RETRY_AFTER_S = 2.0
# Calls that still run after the drain are ended with an error. They have this time to send the error to their clients.
_LAST_WORDS_S = 0.5
# How long grpc has to end the calls that it has cancelled.
_CUT_CALLS_S = 2.0


class GatewayApp:
    """One gateway: `run` serves until `stop` is called. Use it in the event loop only.

    Args:
        origins: where each setting was set (`LoadedSettings.origins`), for display.

    Attributes:
        addresses: the addresses on which the gateway listens, with the real port in place of port 0; empty before it
            listens.
        sessions_left: how many sessions were left to the next gateway, after `run` has returned.
        gateway: the gateway as plugins see it; it does not exist before `run` has begun.
    """

    def __init__(self, settings: Settings, plugins: PluginHost, *, origins: Mapping[str, str] | None = None) -> None:
        self._settings = settings
        self._plugins = plugins
        self._origins = origins or {}
        self.instance_id = secrets.token_hex(8)
        self.addresses: tuple[str, ...] = ()
        self._stopping = asyncio.Event()
        self._end_sessions = False
        self.sessions_left = 0
        # The server, if it could not be stopped. It must not be deleted: grpc would block this thread.
        self._stuck_server: GrpcServer | None = None
        # Set by `run` when calls are served, or when `run` ends.
        self._ready = asyncio.Event()
        self._streams = OpenStreams()
        self._calls = CallCounts()
        self._gateway: PluginGateway | None = None

    async def run(self) -> None:
        """Serve until `stop` is called. Return when everything is closed.

        Raises:
            SettingsError: the gateway cannot start with these settings.
            PluginError: a required plugin failed at start.
        """
        try:
            if problems := settings_problems(self._settings, self._plugins):
                raise SettingsError("\n".join(problems))
            async with AsyncExitStack() as stack:
                access = AccessControl(self._plugins, self._calls)
                addresses = addresses_of(self._settings, authenticated=access.authenticates)
                data = stack.enter_context(DataDirectory(self._settings.gateway.data_dir))
                registry = SessionRegistry(self._settings, self._plugins, data)
                gateway = self._gateway = self._plugin_gateway(data, registry, access)
                await self._enter_plugins(stack, gateway)
                events = EventService(self._settings.events, registry, self._plugins, access)
                services = [*self._services(registry, access, events), *self._plugin_services(gateway)]
                server = GrpcServer(self._settings, services, self._handlers(access, registry), self._calls)
                self.addresses = server.bind(addresses)
                await stack.enter_async_context(registry)
                # This must be done before the first call is served, so that a client that comes back finds its session,
                # or is answered that the session has ended.
                for answer in self._plugins.ask("mxgw_ended_sessions"):
                    if answer.error is None:
                        registry.remember(answer.value)
                for orphan, decision in orphans_of(self._plugins):
                    registry.take_over(orphan, decision)
                await server.start()
                log.info("serving on %s, instance %s", ", ".join(self.addresses), self.instance_id)
                gateway.serving()
                self._ready.set()
                try:
                    await self._stopping.wait()
                finally:
                    await self._shut_down(server, registry, events, gateway.feeds, data)
        finally:
            if self._gateway is not None:
                self._gateway.ended()
            self._ready.set()

    @property
    def gateway(self) -> PluginGateway:
        assert self._gateway is not None
        return self._gateway

    @property
    def has_stuck_calls(self) -> bool:
        """Whether calls were left that grpc could not end, because their clients have stopped and do not read."""
        return self._stuck_server is not None

    def stop(self, *, end_sessions: bool = False) -> None:
        """Begin the orderly shutdown. This can be called at any time, also several times.

        With `end_sessions`, all sessions end; otherwise some of them can be left to the next gateway.
        """
        self._end_sessions = self._end_sessions or end_sessions
        self._stopping.set()

    async def wait_ready(self) -> None:
        """Wait until calls are served, or `run` has ended."""
        await self._ready.wait()

    async def _shut_down(
        self,
        server: GrpcServer,
        registry: SessionRegistry,
        events: EventService,
        feeds: Sequence[PluginFeed],
        data: DataDirectory,
    ) -> None:
        """Refuse new calls, let streams end until the deadline, then end all calls and sessions, and log the result."""
        began = time.monotonic()
        drain_s = self._settings.gateway.drain_timeout_s
        registry.drain()
        await server.refuse_new()
        streams = events.drain(_RETRY_AFTER_S, drain_s)
        streams += sum(feed.drain(_RETRY_AFTER_S, drain_s) for feed in feeds)
        sessions = len(registry)
        log.info("shutting down: %d sessions, %d streams, at most %.1f s to drain", sessions, streams, drain_s)
        # The server is stopped only after the streams have ended. Until then it answers each new call with an error
        # that says why the call is refused.
        await events.drained(drain_s)
        for feed in feeds:
            await feed.open.drained(max(0.0, began + drain_s - time.monotonic()))
        cut = events.attached() + sum(feed.open.streams for feed in feeds)
        remaining_s = max(0.0, began + drain_s - time.monotonic())
        async with asyncio.TaskGroup() as tasks:
            stopping = tasks.create_task(server.stop(remaining_s + _LAST_WORDS_S), name="gateway:server-stop")
            await asyncio.wait((stopping,), timeout=remaining_s)
            # Sessions end while the server still runs, so that callers of unfinished commands get an error.
            if self._end_sessions or data.takes_end_of_sessions():
                registry.close_all(CloseReason.GATEWAY_SHUTDOWN)
            else:
                self.sessions_left = registry.release_all()
            # grpc waits for clients that have stopped and do not read their socket, however long this takes.
            await asyncio.wait((stopping,), timeout=_LAST_WORDS_S + _CUT_CALLS_S)
            if not stopping.done():
                self._stuck_server = server
                stopping.cancel()
        await registry.wait_closed()
        # The contexts of plugins are still open, so that their tasks can read the rest.
        await registry.following.drained(max(_LAST_WORDS_S, began + drain_s - time.monotonic()))
        log.info(
            "stopped after %.1f s: %d sessions closed, %d left to the next gateway, %d of %d streams cut before they "
            "were drained",
            time.monotonic() - began,
            sessions - self.sessions_left,
            self.sessions_left,
            cut,
            streams,
        )

    def _plugin_gateway(self, data: DataDirectory, registry: SessionRegistry, access: AccessControl) -> PluginGateway:
        settings, plugins, calls = self._settings, self._plugins, self._calls
        observing = Observing(settings, plugins, registry, self._origins, calls)
        return PluginGateway(
            self.instance_id, settings, plugins, data, registry, access, self._streams, observing, calls
        )

    async def _enter_plugins(self, stack: AsyncExitStack, gateway: PluginGateway) -> None:
        answers = self._plugins.ask("mxgw_gateway_context", gateway=gateway)
        # Contexts are entered in the order in which the settings enable the plugins; `ask` returns the reverse order.
        for answer in reversed(answers):
            error = answer.error
            if error is None:
                try:
                    await stack.enter_async_context(answer.value)
                    continue
                except SettingsError:
                    raise  # wrong settings always stop the start, also when the plugin is not required
                except Exception as raised:
                    error = raised
            log.warning("plugin %s could not start", answer.plugin, exc_info=error)
            self._plugins.fail(answer.plugin, f"its context could not be entered: {error}")

    def _plugin_services(self, gateway: PluginGateway) -> list[GrpcService]:
        services: list[GrpcService] = []
        for answer in self._plugins.ask("mxgw_grpc_services", gateway=gateway):
            if answer.error is None:
                services += answer.value
            else:
                self._plugins.fail(answer.plugin, f"it could not give its gRPC services: {answer.error}")
        return services

    def _services(
        self, registry: SessionRegistry, access: AccessControl, events: EventService
    ) -> Sequence[GrpcService]:
        settings, plugins = self._settings, self._plugins
        implementations = (
            (session_service_pb2, "SessionService", SessionService(settings, registry, access)),
            (command_service_pb2, "CommandService", CommandService(settings, registry, access)),
            (event_service_pb2, "EventService", events),
            (gateway_service_pb2, "GatewayService", GatewayService(settings, registry, plugins, self.instance_id)),
        )
        return [
            GrpcService(module.DESCRIPTOR.services_by_name[name], implementation)
            for module, name, implementation in implementations
        ]

    def _handlers(self, access: AccessControl, registry: SessionRegistry) -> HandlerFactory:
        mutual_tls = self._settings.tls.client_ca is not None
        return HandlerFactory(
            self._settings.limits, access, registry, self._streams, counts=self._calls, mutual_tls=mutual_tls
        )
