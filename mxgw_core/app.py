"""The gateway put together: plugins, sessions, services, server; started in order, stopped as one visible list.

It has more than 400 lines because it also is what plugins see of the gateway: each method of `Gateway` stands here.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from mxgw.v1 import (
    command_service_pb2,
    event_service_pb2,
    gateway_service_pb2,
    session_service_pb2,
)
from mxgw.v1.commands_pb2 import MxCommand
from mxgw_core.api.access import ItemAccess, Operator, OperatorCredentials, SessionPredicate, used_handles
from mxgw_core.api.calls import GrpcService, OpenStream
from mxgw_core.api.errors import AccessDenied, DependencyUnavailable, GatewayDraining, GatewayError, SettingsError
from mxgw_core.api.feeds import Feed, FeedDescription
from mxgw_core.api.internal_sessions import InternalSession
from mxgw_core.api.rate_limits import Attempts
from mxgw_core.api.types import INTERNAL, CloseReason, Identity, ItemRecord, SessionInfo, own_session
from mxgw_core.checking import settings_problems
from mxgw_core.config.models import Settings
from mxgw_core.observing import Observing
from mxgw_core.plugins import Answer, PluginHost
from mxgw_core.rpc.access import AccessControl
from mxgw_core.rpc.addresses import addresses_of
from mxgw_core.rpc.command_service import CommandService
from mxgw_core.rpc.event_service import EventService
from mxgw_core.rpc.feed_service import PluginFeed
from mxgw_core.rpc.figures import AccessOutcome, CallFigures
from mxgw_core.rpc.gateway_service import GatewayService
from mxgw_core.rpc.handlers import HandlerFactory
from mxgw_core.rpc.internal import OwnSession
from mxgw_core.rpc.open_streams import OpenStreams
from mxgw_core.rpc.server import GrpcServer
from mxgw_core.rpc.session_service import SessionService
from mxgw_core.sessions.registry import SessionRegistry
from mxgw_core.sessions.session import Session, SessionRequest
from mxgw_core.workers.orphans import orphans_of
from mxgw_core.workers.paths import DataDirectory

log = logging.getLogger(__name__)

# A client that is told to come back waits at least this long: about what a restart takes.
_RETRY_AFTER_S = 2.0
# Calls that outlast the drain are told so within this time.
_LAST_WORDS_S = 0.5


class GatewayApp:
    """One gateway. `run` serves until `stop`, and returns when everything is closed; both in the event loop.

    Args:
        origins: where each setting comes from, for those who look (`LoadedSettings.origins`).

    Attributes:
        addresses: what it really listens on, ports resolved; known once it is ready.
        sessions_left: after `run`, how many sessions wait for the next gateway.
        attempts: failed attempts with keys and at logins.
    """

    def __init__(self, settings: Settings, plugins: PluginHost, *, origins: Mapping[str, str] | None = None) -> None:
        self._settings = settings
        self._plugins = plugins
        self._origins = origins or {}
        self.instance_id = secrets.token_hex(8)
        self.addresses: tuple[str, ...] = ()
        self._stopping = asyncio.Event()
        self._end_sessions = False
        # How many sessions were left to the next gateway.
        self.sessions_left = 0
        # Set by `run` once calls are served, and also when it ends without ever having been ready.
        self._ready = asyncio.Event()
        self._registry: SessionRegistry | None = None
        self._data: DataDirectory | None = None
        self._streams = OpenStreams()
        self._calls = CallFigures()
        self._observing: Observing | None = None
        self._access: AccessControl | None = None
        self._feeds: list[PluginFeed] = []
        limits = settings.limits
        self.attempts = Attempts(limits.failed_attempts_per_minute, limits.failed_attempts_burst)

    async def run(self) -> None:
        """Serve until `stop` is called.

        Raises:
            SettingsError: the gateway cannot start with these settings.
            PluginError: a required plugin failed at start.
        """
        try:
            if problems := settings_problems(self._settings, self._plugins):
                raise SettingsError("\n".join(problems))
            async with AsyncExitStack() as stack:
                access = self._access = AccessControl(self._plugins, self._calls)
                addresses = addresses_of(self._settings, authenticated=access.authenticates)
                data = self._data = stack.enter_context(DataDirectory(self._settings.gateway.data_dir))
                registry = SessionRegistry(self._settings, self._plugins, data)
                self._registry = registry
                self._observing = Observing(self._settings, self._plugins, registry, self._origins, self._calls)
                await self._enter_plugins(stack)
                events = EventService(self._settings.events, registry, self._plugins, access)
                services = [*self._services(registry, access, events), *self._plugin_services()]
                server = GrpcServer(self._settings, services, self._handlers(access, registry), self._calls)
                self.addresses = server.bind(addresses)
                await stack.enter_async_context(registry)
                # Before the first call: a client that comes back finds its session, be it on its way or over.
                for answer in self._plugins.ask("mxgw_ended_sessions"):
                    if answer.error is None:
                        registry.remember(answer.value)
                for orphan, judgement in orphans_of(self._plugins):
                    registry.take_over(orphan, judgement)
                await server.start()
                log.info("serving on %s, instance %s", ", ".join(self.addresses), self.instance_id)
                self._ready.set()
                try:
                    await self._stopping.wait()
                finally:
                    await self._shut_down(server, registry, events, data)
        finally:
            self._registry = None
            self._ready.set()

    @property
    def data_dir(self) -> Path:
        """The gateway's private directory."""
        return self._settings.gateway.data_dir.resolve()

    @property
    def data_dir_id(self) -> str:
        """Names that directory itself; there while the gateway runs."""
        assert self._data is not None
        return self._data.id

    @property
    def default_backend(self) -> str:
        """Name of the backend of sessions that name none."""
        return self._settings.default_backend

    @property
    def remembered_sessions(self) -> int:
        """How many sessions that ended are remembered."""
        return self._settings.limits.remembered_sessions

    def stop(self, *, end_sessions: bool = False) -> None:
        """Begin the orderly shutdown; may be called at any time, any number of times.

        With `end_sessions` also those end whose workers would wait for the next gateway.
        """
        self._end_sessions = self._end_sessions or end_sessions
        self._stopping.set()

    async def wait_ready(self) -> None:
        """Return once calls are served, or `run` has ended."""
        await self._ready.wait()

    async def _shut_down(
        self, server: GrpcServer, registry: SessionRegistry, events: EventService, data: DataDirectory
    ) -> None:
        """Refuse new, tell streams, drain to the deadline, close sessions, report."""
        began = time.monotonic()
        drain_s = self._settings.gateway.drain_timeout_s
        registry.drain()
        await server.refuse_new()
        streams = events.drain(_RETRY_AFTER_S, drain_s)
        streams += sum(feed.drain(_RETRY_AFTER_S, drain_s) for feed in self._feeds)
        sessions = len(registry)
        log.info("shutting down: %d sessions, %d streams, at most %.1f s to drain", sessions, streams, drain_s)
        # Streams first: while the server still answers, whoever comes now is told why it is refused.
        await events.drained(drain_s)
        for feed in self._feeds:
            await feed.open.drained(max(0.0, began + drain_s - time.monotonic()))
        cut = events.attached() + sum(feed.open.streams for feed in self._feeds)
        remaining_s = max(0.0, began + drain_s - time.monotonic())
        async with asyncio.TaskGroup() as tasks:
            stopping = tasks.create_task(server.stop(remaining_s + _LAST_WORDS_S), name="gateway:server-stop")
            await asyncio.wait((stopping,), timeout=remaining_s)
            # Commands that still run are answered now, while there is a server to answer them.
            if self._end_sessions or data.takes_end_of_sessions():
                registry.close_all(CloseReason.GATEWAY_SHUTDOWN)
            else:
                self.sessions_left = registry.release_all()
        await registry.wait_closed()
        log.info(
            "stopped after %.1f s: %d sessions closed, %d left to the next gateway, %d of %d streams cut before they "
            "were drained",
            time.monotonic() - began,
            sessions - self.sessions_left,
            self.sessions_left,
            cut,
            streams,
        )

    # plugins

    async def _enter_plugins(self, stack: AsyncExitStack) -> None:
        answers = self._plugins.ask("mxgw_gateway_context", gateway=self)
        for answer in reversed(answers):  # asked last first, entered in the order of the settings
            error = answer.error
            if error is None:
                try:
                    await stack.enter_async_context(answer.value)
                    continue
                except SettingsError:
                    raise  # settings that do not fit each other stop the start, whoever finds out
                except Exception as raised:
                    error = raised
            log.warning("plugin %s could not start", answer.plugin, exc_info=error)
            self._plugins.fail(answer.plugin, f"its context could not be entered: {error}")

    def _plugin_services(self) -> list[GrpcService]:
        services: list[GrpcService] = []
        for answer in self._plugins.ask("mxgw_grpc_services", gateway=self):
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
            self._settings.limits, access, registry, self._streams, figures=self._calls, mutual_tls=mutual_tls
        )

    # api.Gateway

    @property
    def observation(self) -> Observing:
        """What can be seen of sessions, plugins and settings; there while the gateway runs."""
        assert self._observing is not None
        return self._observing

    @property
    def authenticates_operators(self) -> bool:
        """Whether a plugin knows who may log in at the dashboard."""
        return self._plugins.implements("mxgw_authenticate_operator")

    async def open_internal_session(self, client_name: str, backend: str = "") -> InternalSession:
        """Open a session of the gateway's own, once the gateway serves.

        Raises:
            GatewayError: it could not be opened, or the gateway is shutting down.
        """
        await self._ready.wait()
        if self._registry is None:
            raise GatewayDraining("the gateway is not running")
        settings = self._settings
        request = SessionRequest(
            client_name, backend or settings.default_backend, "", settings.limits.lease_s, is_internal=True
        )
        return OwnSession(await self._registry.open(request, INTERNAL), settings.events.batch_bytes)

    def open_feed(self, description: FeedDescription) -> Feed:
        """Return a new stream of a plugin's own."""
        feed = PluginFeed(description, self._settings.events, self._plugins)
        self._feeds.append(feed)
        if self._registry is not None:
            self._registry.memory.watch(feed.distributor, INTERNAL.id)
        return feed

    def item_access(self, identity: Identity) -> Sequence[ItemAccess]:
        """Return what the plugins say of an identity and items; all must agree, and without any all is allowed.

        Raises:
            AccessDenied: a plugin failed.
        """
        assert self._access is not None  # there while the gateway runs
        return self._access.item_access(identity)

    def sessions(self) -> Sequence[SessionInfo]:
        """Return the live sessions, oldest first."""
        return [session.info() for session in self._registry.live()] if self._registry is not None else []

    def session(self, session_id: str) -> SessionInfo | None:
        """Return one live session."""
        session = self._registry.find(session_id) if self._registry is not None else None
        return session.info() if session is not None else None

    def close_session(self, session_id: str, reason: CloseReason, detail: str = "") -> bool:
        """Begin to end a session; return False when there is no such live session.

        Raises:
            AccessDenied: it is the gateway's own.
        """
        session = self._client_session(session_id)
        return session is not None and session.close(reason, detail)

    def kill_worker(self, session_id: str, detail: str = "") -> bool:
        """End a session and its worker process at once; return False when there is no such live session.

        Raises:
            AccessDenied: it is the gateway's own.
        """
        session = self._client_session(session_id)
        if session is None or not session.close(CloseReason.KILLED_BY_OPERATOR, detail):
            return False
        session.worker.kill()
        return True

    def _client_session(self, session_id: str) -> Session | None:
        """Return a live session that plugins may end."""
        session = self._registry.find(session_id) if self._registry is not None else None
        if session is not None and session.request.is_internal:
            raise AccessDenied(own_session(session.info()))
        return session

    async def authenticate_operator(self, credentials: OperatorCredentials) -> Operator | None:
        """Ask the plugins who this person is; None when none vouches, or one fails.

        Raises:
            TooManyAttempts: of this peer, or for this name; no plugin was asked.
            GatewayError: a plugin refused on purpose.
        """
        outcome = AccessOutcome.UNAUTHENTICATED
        try:
            attempt = self.attempts.begin(credentials.peer, f"user {credentials.user}")
            try:
                operator = _operator(
                    await asyncio.to_thread(self._plugins.ask, "mxgw_authenticate_operator", credentials=credentials)
                )
            except DependencyUnavailable:
                attempt.succeeded()  # nobody has checked the password
                raise
            if operator is not None:
                attempt.succeeded()
                outcome = AccessOutcome.OK
            return operator
        except GatewayError as error:
            outcome = AccessOutcome.of(error)
            raise
        finally:
            self._calls.logins[outcome] += 1

    async def renew_operator(self, operator: Operator) -> Operator | None:
        """Ask the plugins for the operator as of now; None when they vouch no more.

        Raises:
            GatewayError: a plugin refused on purpose.
        """
        return _operator(await asyncio.to_thread(self._plugins.ask, "mxgw_renew_operator", operator=operator))

    def forget_operator(self, operator: Operator) -> None:
        """Let the operator's token be worth nothing from now on."""
        self._plugins.ask("mxgw_operator_left", operator=operator)

    def items_used(self, session_id: str, command: MxCommand) -> Sequence[ItemRecord | None]:
        """See `api.Gateway`."""
        session = self._registry.find(session_id) if self._registry is not None else None
        return session.items.used_by(command) if session is not None else [None] * len(used_handles(command))

    def streams(self) -> Sequence[OpenStream]:
        """Return the streaming calls that are being served, oldest first."""
        return self._streams.all()

    def end_stream(self, stream: OpenStream, error: GatewayError) -> bool:
        """End a streaming call at once with `error`; return False when it has ended."""
        return self._streams.end(stream, error)

    def sessions_visible_to(self, operator: Operator) -> Sequence[SessionInfo]:
        """Return the live sessions that every answering plugin lets this operator see; none when no plugin answers."""
        may_see = self.sight_of(operator)
        return [info for info in self.sessions() if may_see(info)]

    def sight_of(self, operator: Operator) -> SessionPredicate:
        """Return what every answering plugin lets this operator see; nothing when no plugin answers, or one fails."""
        answers = self._plugins.ask("mxgw_operator_sessions", operator=operator)
        if not answers or any(answer.error is not None for answer in answers):
            return lambda _: False
        return lambda info: all(_agrees(answer.value, info) for answer in answers)


def _agrees(may_see: SessionPredicate, info: SessionInfo) -> bool:
    """Ask one plugin's predicate; one that fails hides the session."""
    try:
        return bool(may_see(info))
    except Exception:
        log.warning("a plugin's predicate on what an operator may see failed", exc_info=True)
        return False


def _operator(answers: Sequence[Answer]) -> Operator | None:
    for answer in answers:
        if isinstance(answer.error, GatewayError):
            raise answer.error
        if answer.error is not None:
            return None
        if isinstance(answer.value, Operator):
            return answer.value
    return None
