"""The running gateway. For every plugin that looks at sessions, opens or ends a session, or adds a feed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from mxgw.v1.commands_pb2 import MxCommand
from mxgw_core.api.access import ItemAccess, Operator, OperatorCredentials, SessionPredicate
from mxgw_core.api.calls import OpenStream
from mxgw_core.api.errors import GatewayError
from mxgw_core.api.feeds import Feed, FeedDescription
from mxgw_core.api.following import Follower
from mxgw_core.api.internal_sessions import InternalSession
from mxgw_core.api.observation import Observation
from mxgw_core.api.rate_limits import Attempts
from mxgw_core.api.types import CloseReason, Identity, ItemRecord, Position, SessionInfo


class Gateway(Protocol):
    """The running gateway, as plugins see it. Use it in the event loop only.

    Each plugin has an object of its own, so that what the plugin opens belongs to it: when the plugin fails, its feeds,
    followers and internal sessions are ended, and opening new ones raises `PluginFailed`.
    """

    @property
    def instance_id(self) -> str:
        """A random id of this run of the gateway."""

    @property
    def observation(self) -> Observation:
        """Shows what the gateway is doing: sessions, commands, plugins, settings, metrics and events."""

    @property
    def authenticates_operators(self) -> bool:
        """Whether a plugin authenticates operators, so that they can log in at the dashboard."""

    @property
    def attempts(self) -> Attempts:
        """Counts failed attempts to authenticate, for all plugins together.

        A plugin calls `begin` for each failed attempt; `Attempts.begin` says when. `authenticate_operator` does this
        itself.
        """

    @property
    def data_dir(self) -> Path:
        """The gateway's data directory. No other gateway can use the directory as long as the contexts of plugins (hook
        `mxgw_gateway_context`) are open.
        """

    @property
    def data_dir_id(self) -> str:
        """The id of the data directory. It does not depend on the path, and a copy of the directory has another id."""

    @property
    def remembered_sessions(self) -> int:
        """How many ended sessions the gateway remembers (`limits.remembered_sessions`)."""

    @property
    def default_backend(self) -> str:
        """The name of the backend that a session uses when its client names none (`backends.default`)."""

    async def open_internal_session(self, client_name: str, backend: str = "") -> InternalSession:
        """Wait until the gateway serves, then open a session of the gateway's own. With `backend` "", it uses the
        default backend.

        Raises:
            GatewayError: the session could not be opened, or the gateway is shutting down.
            PluginFailed: the plugin has failed.
        """

    def open_feed(self, description: FeedDescription) -> Feed:
        """Return a new feed of the plugin. Call this only before the gateway serves.

        Raises:
            PluginFailed: the plugin has failed.
        """

    def item_access(self, identity: Identity) -> Sequence[ItemAccess]:
        """Return what the plugins allow an identity to do with items.

        The use of an item is allowed when all returned objects allow it. If the sequence is empty, all items are
        allowed.

        Raises:
            AccessDenied: a plugin failed.
        """

    def sessions(self) -> Sequence[SessionInfo]:
        """Return the live sessions, oldest first."""

    def session(self, session_id: str) -> SessionInfo | None:
        """Return a live session; None when no live session has this id."""

    def close_session(self, session_id: str, reason: CloseReason, detail: str = "") -> bool:
        """Begin to end a session. Return False when no live session has this id, or the session is ending already.

        Raises:
            AccessDenied: it is a session of the gateway's own.
        """

    def follow(
        self, session_id: str, after: Position | None = None, *, name: str = "", batch_bytes: int = 64 * 1024
    ) -> Follower:
        """Read all events of a session, also of one of the gateway's own, and hold them until they are acknowledged.

        The hold begins with this call. So the hook `mxgw_session_opened` is early enough to miss nothing: at that
        moment a new session has no event yet, and a session that was adopted has all events that its worker kept.

        Args:
            after: the position up to which the plugin has stored the events of the session; what is missing behind it
                is a gap. `Position(session.epoch, 0)` asks for every event from the first one on. None asks for
                everything that the log still has, without a gap for what it does not have.
            name: tells the readers of one plugin apart. Metrics and the log show the name of the plugin, and this name
                behind it: `sqlite_history/archive`; without a name, `sqlite_history`.
            batch_bytes: about the most bytes of events in one batch. Only a batch that is one single block of the
                worker can be larger.

        Raises:
            SessionNotFound, SessionGone: no live session has this id.
            SessionNotReady: the session is starting, ending, or waits for its worker. The hook `mxgw_session_opened` is
                called when it is ready.
            PositionForeign: the epoch of `after` is not the one of the session.
            InvalidRequest: `after` is ahead of the newest event, so that it cannot be a position of this session.
            PluginFailed: the plugin has failed.
            TypeError: `after` is no position, or its sequence or `batch_bytes` is no whole number.
            ValueError: the sequence of `after` is negative, or `batch_bytes` is less than 1.
        """

    def items_used(self, session_id: str, command: MxCommand) -> Sequence[ItemRecord | None]:
        """Return the item of each handle that a command uses, in the order of the command's inputs.

        An entry is None when no item has the handle. All entries are None when no live session has this id. An item is
        looked up only when its entry is accessed.
        """

    def streams(self) -> Sequence[OpenStream]:
        """Return the streaming calls that the gateway is serving, of all services, oldest first."""

    def end_stream(self, stream: OpenStream, error: GatewayError) -> bool:
        """End a streaming call at once with `error`. Messages that are not sent yet are dropped.

        Return False when the call had already ended.
        """

    def kill_worker(self, session_id: str, detail: str = "") -> bool:
        """End a session with the close reason KILLED_BY_OPERATOR, and kill its worker process at once.

        Return False when no live session has this id, or the session is ending already.

        Raises:
            AccessDenied: it is a session of the gateway's own.
        """

    async def authenticate_operator(self, credentials: OperatorCredentials) -> Operator | None:
        """Return the operator with these credentials; None when name or password is wrong, or a plugin failed.

        Raises:
            TooManyAttempts: there were too many failed attempts by this peer, or for this name. No plugin was called.
            GatewayError: a plugin refused on purpose, for example because the directory cannot be reached.
        """

    async def renew_operator(self, operator: Operator) -> Operator | None:
        """Return the operator with the present rights and a new token; None when this person is no operator any more.

        Raises:
            GatewayError: a plugin refused on purpose.
        """

    def forget_operator(self, operator: Operator) -> None:
        """Make the operator's token invalid, because the operator logs out."""

    def sight_of(self, operator: Operator) -> SessionPredicate:
        """Return a function that decides for a session, live or ended, whether this operator is allowed to see it.

        When no plugin answers, the operator is not allowed to see any session. The rights of an operator can change, so
        do not keep the function for later.
        """

    def sessions_visible_to(self, operator: Operator) -> Sequence[SessionInfo]:
        """Return the live sessions that this operator is allowed to see (see `sight_of`)."""
