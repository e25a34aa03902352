"""Puts the gateway together from data directory, sessions, plugins, services and server, and starts and stops it."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import AsyncExitStack
from functools import partial

from mxgw.v1 import (
    command_service_pb2,
    event_service_pb2,
    gateway_service_pb2,
    session_service_pb2,
)
from mxgw_core.api.calls import GrpcService
from mxgw_core.api.errors import PluginError, SettingsError
from mxgw_core.api.types import CloseReason
from mxgw_core.checking import settings_problems, worker_problems
from mxgw_core.config.models import Settings
from mxgw_core.data_directory import DataDirectory
from mxgw_core.observing import Observing
from mxgw_core.plugin_gateway import PluginGateway
from mxgw_core.plugins import PluginHost
from mxgw_core.plugins.answers import WrongAnswer
from mxgw_core.plugins.contexts import ContextFailed, PluginContexts
from mxgw_core.plugins.host import sentence_of
from mxgw_core.plugins.loading import describe, text_of
from mxgw_core.plugins.services import plugin_service
from mxgw_core.plugins.tasks import contain_tasks
from mxgw_core.plugins.watching import CallWatch
from mxgw_core.rpc.absent_services import absent_services
from mxgw_core.rpc.access import AccessControl
from mxgw_core.rpc.call_counts import CallCounts
from mxgw_core.rpc.command_service import CommandService
from mxgw_core.rpc.event_service import EventService
from mxgw_core.rpc.feed_service import PluginFeed
from mxgw_core.rpc.gateway_service import GatewayService
from mxgw_core.rpc.handlers import HandlerFactory
from mxgw_core.rpc.listening import addresses_of
from mxgw_core.rpc.open_streams import OpenStreams, without_answer
from mxgw_core.rpc.plugin_services import PluginServices
from mxgw_core.rpc.server import OTHER_SERVICES, GrpcServer
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
        end: ends the process, if it is the gateway's own, when the start or the end waits for a call of a plugin that
            does not return (`CallWatch`).

    Attributes:
        addresses: the addresses on which the gateway listens, with the real port in place of port 0; empty before it
            listens.
        sessions_left: how many sessions were left to the next gateway, after `run` has returned.
        gateway: the gateway as plugins see it; it does not exist before `run` has begun.
    """

    def __init__(
        self,
        settings: Settings,
        plugins: PluginHost,
        *,
        origins: Mapping[str, str] | None = None,
        end: Callable[[str], None] | None = None,
    ) -> None:
        self._settings = settings
        self._end = end
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
        # The unary calls that are being served.
        self._running_calls = OpenStreams()
        self._calls = CallCounts(settings.limits.concurrent_calls)
        self._gateway: PluginGateway | None = None
        self._server: GrpcServer | None = None
        self._contexts = PluginContexts(
            settings.plugins.start_timeout_s, settings.plugins.stop_timeout_s, self._plugin_failed
        )
        # Key: a plugin. Value: its gRPC services.
        self._of_plugins: dict[str, PluginServices] = {}
        # Why the gateway ends, if a plugin failed that it cannot do without.
        self._cannot_go_on: PluginError | None = None
        # Set when the gateway must stop, and when a plugin has failed, so that the health of services has changed.
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Serve until `stop` is called. Return when everything is closed.

        Raises:
            SettingsError: the gateway cannot start with these settings.
            PluginError: a required plugin failed, at the start or while the gateway served.
        """
        contain_tasks(asyncio.get_running_loop())
        try:
            async with AsyncExitStack() as stack:
                limits = self._settings.plugins
                self._plugins.calls.is_starting = True
                watch = stack.enter_context(CallWatch(self._plugins.calls, limits.start_timeout_s, self._end))
                problems = settings_problems(self._settings, self._plugins)
                if self._settings.workers.python is not None:
                    # In a thread, so that a request to stop is heard meanwhile.
                    problems += await asyncio.to_thread(worker_problems, self._settings)
                if problems:
                    raise SettingsError("\n".join(problems))
                access = AccessControl(self._plugins, self._calls)
                addresses = addresses_of(self._settings, authenticated=access.authenticates)
                data = stack.enter_context(DataDirectory(self._settings.gateway.data_dir))
                registry = SessionRegistry(self._settings, self._plugins, data)
                gateway = self._gateway = self._plugin_gateway(data, registry, access)
                stack.push_async_callback(self._contexts.leave_all)
                # This is called first, after all sessions have ended or were left to the next gateway.
                stack.callback(watch.leaving, limits.stop_timeout_s)
                await self._enter_plugins(gateway)
                events = EventService(self._settings.events, registry, self._plugins, access)
                services = self._services(registry, access, events)
                for of_plugin in await self._plugin_services(gateway, {s.descriptor.full_name for s in services}):
                    services += of_plugin.services
                server = self._server = GrpcServer(
                    self._settings,
                    services,
                    self._handlers(access, registry),
                    self._calls,
                    absent=absent_services(self._plugins, services),
                )
                self._check_plugins()
                self.addresses = server.bind(addresses)
                await stack.enter_async_context(registry)
                # This must be done before the first call is served, so that a client that comes back finds its session,
                # or is answered that the session has ended.
                for answer in self._plugins.ask("mxgw_ended_sessions"):
                    if answer.error is None:
                        registry.remember(answer.value)
                for orphan, decision in orphans_of(self._plugins):
                    registry.take_over(orphan, decision)
                self._check_plugins()
                await server.start()
                log.info("serving on %s, instance %s", ", ".join(self.addresses), self.instance_id)
                gateway.serving()
                watch.started()
                self._plugins.calls.is_starting = False
                self._ready.set()
                try:
                    while not self._stopping.is_set():
                        await self._changed.wait()
                        self._changed.clear()
                        server.report_health()
                finally:
                    await self._shut_down(server, registry, events, gateway.feeds, data)
            self._check_plugins()
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
        self._changed.set()

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
        began = time.perf_counter()
        drain_s = self._settings.gateway.drain_timeout_s
        registry.drain()
        server.refuse_new()
        streams = events.drain(_RETRY_AFTER_S, drain_s)
        streams += sum(feed.drain(_RETRY_AFTER_S, drain_s) for feed in feeds)
        sessions = len(registry)
        log.info("shutting down: %d sessions, %d streams, at most %.1f s to drain", sessions, streams, drain_s)
        # The server is stopped only after the streams have ended. Until then it answers each new call with an error
        # that says why the call is refused.
        await events.drained(drain_s)
        for feed in feeds:
            await feed.open.drained(max(0.0, began + drain_s - time.perf_counter()))
        cut = events.attached() + sum(feed.open.streams for feed in feeds)
        remaining_s = max(0.0, began + drain_s - time.perf_counter())
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
        await registry.following.drained(max(_LAST_WORDS_S, began + drain_s - time.perf_counter()))
        log.info(
            "stopped after %.1f s: %d sessions closed, %d left to the next gateway, %d of %d streams cut before they "
            "were drained",
            time.perf_counter() - began,
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

    async def _enter_plugins(self, gateway: PluginGateway) -> None:
        answers = self._plugins.ask("mxgw_gateway_context", gateway=gateway)
        # Contexts are entered in the order in which the settings enable the plugins; `ask` returns the reverse order.
        for answer in reversed(answers):
            if answer.error is not None:
                gateway.end_all_of(answer.plugin)
                self._plugins.fail(answer.plugin, f"it could not give its context: {_words_of(answer.error)}")
                continue
            try:
                await self._contexts.enter(answer.owner, answer.value)
            except ContextFailed as error:  # a SettingsError stops the start, also when the plugin is not required
                log.debug("plugin %s could not start", answer.plugin, exc_info=error.__cause__)
                gateway.end_all_of(answer.plugin)
                self._plugins.fail(answer.plugin, str(error))

    async def _plugin_services(self, gateway: PluginGateway, core: Set[str]) -> Sequence[PluginServices]:
        """Return the services of plugins. `core` are the names of the gateway's own services."""
        # When two plugins add the same service, the one that the settings enable first has it.
        taken = dict.fromkeys((*core, *OTHER_SERVICES), "the gateway")
        for answer in reversed(self._plugins.ask("mxgw_grpc_services", gateway=gateway)):
            if self._plugins.has_failed(answer.plugin):  # its context has ended meanwhile
                continue
            if answer.error is not None:
                problem = f"it could not give its gRPC services: {_words_of(answer.error)}"
            else:
                problem = _problem_of_services(answer.value, taken)
            if not problem:
                taken |= {service.descriptor.full_name: f"plugin {answer.plugin!r}" for service in answer.value}
                services = [plugin_service(service, answer.owner) for service in answer.value]
                self._of_plugins[answer.plugin] = PluginServices(services)
                continue
            await self._contexts.leave(answer.plugin)
            gateway.end_all_of(answer.plugin)
            self._plugins.fail(answer.plugin, problem)
        return tuple(self._of_plugins.values())

    def _plugin_failed(self, plugin: str, detail: str) -> None:
        """Take down a plugin whose context has failed. Called when this happens, at the start or while serving, and
        again when the cause becomes known.
        """
        if self._plugins.has_failed(plugin):
            self._plugins.explain(plugin, detail)
            return
        record, failure = self._plugins.take_down(plugin, detail), partial(self._plugins.failure, plugin)
        self.gateway.end_all_of(plugin)
        names: Sequence[str] | None = ()
        if (services := self._of_plugins.get(plugin)) is not None:
            services.fail(failure)
            names = services.names
        if record.controls_access:
            names = None
            # Which of the streams and calls the plugin has decided about is not known.
            for stream in self._streams.all():
                self._streams.end(stream, failure())
            for call in self._running_calls.all():
                self._running_calls.end(call, without_answer(failure(), call.method))
        if self._server is not None:
            self._server.services_failed(names)
        # A gateway that serves goes on without a plugin that is required only because it decides about access.
        is_needed = plugin in self._settings.plugins.required if self._ready.is_set() else record.required
        if is_needed:
            self._cannot_go_on = PluginError(sentence_of(record))
            self.stop()
        self._changed.set()

    def _check_plugins(self) -> None:
        """Raise the error of a plugin that the gateway cannot do without, if such a plugin has failed."""
        if self._cannot_go_on is not None:
            raise self._cannot_go_on

    def _services(self, registry: SessionRegistry, access: AccessControl, events: EventService) -> list[GrpcService]:
        settings, plugins = self._settings, self._plugins
        implementations = (
            (session_service_pb2, "SessionService", SessionService(settings, registry, access)),
            (command_service_pb2, "CommandService", CommandService(settings, registry, access)),
            (event_service_pb2, "EventService", events),
            (
                gateway_service_pb2,
                "GatewayService",
                GatewayService(settings, registry, plugins, access, self.instance_id),
            ),
        )
        return [
            GrpcService(module.DESCRIPTOR.services_by_name[name], implementation)
            for module, name, implementation in implementations
        ]

    def _handlers(self, access: AccessControl, registry: SessionRegistry) -> HandlerFactory:
        mutual_tls = self._settings.tls.client_ca is not None
        return HandlerFactory(
            *(self._settings.limits, access, registry, self._streams),
            calls=self._running_calls,
            counts=self._calls,
            mutual_tls=mutual_tls,
            plugin_services=tuple(self._of_plugins.values()),
        )


def _problem_of_services(services: Sequence[GrpcService], taken: Mapping[str, str]) -> str:
    names = [service.descriptor.full_name for service in services]
    for name in names:
        if name in taken:
            return f"it adds the gRPC service {name}, which {taken[name]} has"
        if names.count(name) > 1:
            return f"it adds the gRPC service {name} twice"
    return ""


def _words_of(error: BaseException) -> str:
    return text_of(error) if issubclass(type(error), WrongAnswer) else describe(error)
