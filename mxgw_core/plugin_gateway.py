"""Implements `api.Gateway`, with which plugins use the running gateway."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from copy import copy
from functools import partial
from pathlib import Path
from weakref import WeakSet

from mxgw.v1.commands_pb2 import MxCommand
from mxgw_core.api.access import ItemAccess, Operator, OperatorCredentials, SessionPredicate, used_handles
from mxgw_core.api.calls import OpenStream
from mxgw_core.api.errors import AccessDenied, DependencyUnavailable, GatewayDraining, GatewayError
from mxgw_core.api.feeds import Feed, FeedDescription
from mxgw_core.api.following import Follower
from mxgw_core.api.internal_sessions import InternalSession
from mxgw_core.api.ranges import check_whole_number
from mxgw_core.api.rate_limits import Attempts
from mxgw_core.api.types import INTERNAL, CloseReason, Identity, ItemRecord, Position, SessionInfo, own_session
from mxgw_core.config.models import Settings
from mxgw_core.data_directory import DataDirectory
from mxgw_core.events.following import LogFollower
from mxgw_core.observing import Observing
from mxgw_core.plugins import Answer, PluginHost
from mxgw_core.plugins.calls import running
from mxgw_core.plugins.objects import plugin_predicate
from mxgw_core.printable import scalar_or_type
from mxgw_core.rpc.access import AccessControl
from mxgw_core.rpc.call_counts import AccessOutcome, CallCounts
from mxgw_core.rpc.feed_service import PluginFeed
from mxgw_core.rpc.internal_session import OwnSession
from mxgw_core.rpc.open_streams import OpenStreams
from mxgw_core.sessions.registry import SessionRegistry
from mxgw_core.sessions.session import Session, SessionRequest


class PluginGateway:
    """Implements `api.Gateway`. One object is made for each run of the gateway, before the contexts of plugins are
    entered. Each plugin gets an object of its own from it (`copy_for`), so that it is known what belongs to the plugin,
    also when a task or a thread of the plugin makes the call.

    Attributes:
        feeds: the feeds that plugins have opened, of all plugins.
    """

    def __init__(
        self,
        instance_id: str,
        settings: Settings,
        plugins: PluginHost,
        data: DataDirectory,
        registry: SessionRegistry,
        access: AccessControl,
        streams: OpenStreams,
        observing: Observing,
        calls: CallCounts,
    ) -> None:
        self._instance_id = instance_id
        self._settings = settings
        self._plugins = plugins
        self._data = data
        self._registry = registry
        self._access = access
        self._streams = streams
        self._observing = observing
        self._calls = calls
        limits = settings.limits
        self._attempts = Attempts(limits.failed_attempts_per_minute, limits.failed_attempts_burst)
        # Set by `serving`. Also set by `ended`, because no caller must wait for a gateway that never serves.
        self._serves = asyncio.Event()
        self._ended = asyncio.Event()
        self.feeds: list[PluginFeed] = []
        # Key: a plugin. Value: its object.
        self._copies: dict[str, PluginGateway] = {}
        # The rest is different in the object of each plugin.
        self._plugin = ""
        self._has_failed = False
        self._own_feeds: list[PluginFeed] = []
        self._followers: WeakSet[LogFollower] = WeakSet()

    def copy_for(self, plugin: str) -> PluginGateway:
        """Return the object of a plugin."""
        if (own := self._copies.get(plugin)) is None:
            own = self._copies[plugin] = copy(self)
            own._plugin, own._own_feeds, own._followers = plugin, [], WeakSet()
        return own

    def serving(self) -> None:
        """Call this when the gateway begins to serve calls."""
        self._serves.set()

    def ended(self) -> None:
        """Call this when the gateway has stopped, or could not start."""
        self._ended.set()
        self._serves.set()

    def end_all_of(self, plugin: str) -> None:
        """End the feeds, followers and internal sessions of a plugin that has failed. It cannot open new ones."""
        own = self.copy_for(plugin)
        own._has_failed = True
        for feed in own._own_feeds:
            feed.end(partial(self._plugins.failure, plugin))
        for follower in tuple(own._followers):
            follower.close()
        for session in self._registry.live():
            if session.request.plugin == plugin:
                session.close(CloseReason.CLIENT, f"the plugin {plugin!r}, which has opened it, has failed")

    def _require_plugin(self) -> None:
        """Raise PluginFailed when the plugin of this object has failed."""
        if self._has_failed:
            raise self._plugins.failure(self._plugin)

    @property
    def instance_id(self) -> str:
        return self._instance_id

    @property
    def attempts(self) -> Attempts:
        return self._attempts

    @property
    def data_dir(self) -> Path:
        return self._settings.gateway.data_dir.resolve()

    @property
    def data_dir_id(self) -> str:
        return self._data.id

    @property
    def default_backend(self) -> str:
        return self._settings.default_backend

    @property
    def remembered_sessions(self) -> int:
        return self._settings.limits.remembered_sessions

    @property
    def observation(self) -> Observing:
        return self._observing

    @property
    def authenticates_operators(self) -> bool:
        return self._plugins.implements("mxgw_authenticate_operator")

    async def open_internal_session(self, client_name: str, backend: str = "") -> InternalSession:
        await self._serves.wait()
        if self._ended.is_set():
            raise GatewayDraining("the gateway is not running")
        self._require_plugin()
        settings = self._settings
        backend = backend or settings.default_backend
        request = SessionRequest(
            client_name, backend, "", settings.limits.lease_s, is_internal=True, plugin=self._plugin
        )
        # The tasks of the session are the gateway's own, although a plugin has asked for it.
        token = running.set(None)
        try:
            session = await self._registry.open(request, INTERNAL)
        except GatewayError:
            self._require_plugin()
            raise
        finally:
            running.reset(token)
        self._require_plugin()
        return OwnSession(session, settings.events.batch_bytes)

    def open_feed(self, description: FeedDescription) -> Feed:
        self._require_plugin()
        owner = running.get()
        if self._plugin and (owner is None or owner.plugin != self._plugin):  # for example in a thread of the plugin
            owner = self._plugins.calls.owner(self._plugin, "mxgw_gateway_context")
        feed = PluginFeed(description, self._settings.events, self._plugins, owner)
        self.feeds.append(feed)
        self._own_feeds.append(feed)
        self._registry.memory.watch(feed.distributor, INTERNAL.id)
        return feed

    def item_access(self, identity: Identity) -> Sequence[ItemAccess]:
        return self._access.item_access(identity)

    def sessions(self) -> Sequence[SessionInfo]:
        return [session.info() for session in self._registry.live()]

    def session(self, session_id: str) -> SessionInfo | None:
        session = self._registry.find(session_id)
        return session.info() if session is not None else None

    def close_session(self, session_id: str, reason: CloseReason, detail: str = "") -> bool:
        session = self._client_session(session_id)
        return session is not None and session.close(reason, detail)

    def kill_worker(self, session_id: str, detail: str = "") -> bool:
        session = self._client_session(session_id)
        if session is None or not session.close(CloseReason.KILLED_BY_OPERATOR, detail):
            return False
        session.worker.kill()
        return True

    def _client_session(self, session_id: str) -> Session | None:
        """Return a live session of a client; None when no live session has this id.

        Raises:
            AccessDenied: it is a session of the gateway's own, which plugins are not allowed to end.
        """
        session = self._registry.find(session_id)
        if session is not None and session.request.is_internal:
            raise AccessDenied(own_session(session.info()))
        return session

    async def authenticate_operator(self, credentials: OperatorCredentials) -> Operator | None:
        outcome = AccessOutcome.UNAUTHENTICATED
        try:
            attempt = self.attempts.begin(credentials.peer, f"user {credentials.user}")
            try:
                operator = await self._operator("mxgw_authenticate_operator", credentials=credentials)
            except DependencyUnavailable:
                attempt.succeeded()  # no password was checked, so this does not count as a failed attempt
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
        return await self._operator("mxgw_renew_operator", operator=operator)

    async def _operator(self, hook: str, **arguments: object) -> Operator | None:
        """Ask the plugins in a thread who an operator is.

        Raises:
            GatewayError: raised by a plugin on purpose; also when a plugin with this hook has failed meanwhile.
        """
        answers = await asyncio.to_thread(self._plugins.ask, hook, **arguments)
        self._plugins.check(hook)
        return _operator(answers)

    def forget_operator(self, operator: Operator) -> None:
        self._plugins.ask("mxgw_operator_left", operator=operator)

    def follow(
        self, session_id: str, after: Position | None = None, *, name: str = "", batch_bytes: int = 64 * 1024
    ) -> Follower:
        if after is not None and not isinstance(after, Position):
            raise TypeError(
                f"after must be a Position, with the epoch of the session, or None; it is {scalar_or_type(after, 80)}"
            )
        if after is not None:
            check_whole_number("the sequence of after", after.sequence)
        check_whole_number("batch_bytes", batch_bytes, 1)
        self._require_plugin()
        session = self._registry.get(session_id)
        session.require_ready()
        full_name = "/".join(part for part in (self._plugin, name) if part)
        follower = session.distributor.follow(
            self._registry.following, after, session_id=session_id, name=full_name, batch_bytes=batch_bytes
        )
        self._followers.add(follower)
        return follower

    def items_used(self, session_id: str, command: MxCommand) -> Sequence[ItemRecord | None]:
        session = self._registry.find(session_id)
        return session.items.used_by(command) if session is not None else [None] * len(used_handles(command))

    def streams(self) -> Sequence[OpenStream]:
        return self._streams.all()

    def end_stream(self, stream: OpenStream, error: GatewayError) -> bool:
        return self._streams.end(stream, error)

    def sessions_visible_to(self, operator: Operator) -> Sequence[SessionInfo]:
        may_see = self.sight_of(operator)
        return [info for info in self.sessions() if may_see(info)]

    def sight_of(self, operator: Operator) -> SessionPredicate:
        answers = self._plugins.ask("mxgw_operator_sessions", operator=operator)
        if not answers or any(answer.error is not None for answer in answers):
            return lambda _: False
        plugins, predicates = self._plugins, [plugin_predicate(answer.value, answer.owner) for answer in answers]
        return lambda info: plugins.is_open("mxgw_operator_sessions") and all(may_see(info) for may_see in predicates)


def _operator(answers: Sequence[Answer]) -> Operator | None:
    for answer in answers:
        if isinstance(answer.error, GatewayError):
            raise answer.error
        if answer.error is not None:
            return None
        operator: Operator = answer.value
        return operator
    return None
