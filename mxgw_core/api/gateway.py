"""The running gateway. For every plugin that looks at sessions, opens or ends one, or has streams of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from mxgw.v1.commands_pb2 import MxCommand
from mxgw_core.api.access import ItemAccess, Operator, OperatorCredentials, SessionPredicate
from mxgw_core.api.calls import OpenStream
from mxgw_core.api.errors import GatewayError
from mxgw_core.api.feeds import Feed, FeedDescription
from mxgw_core.api.internal_sessions import InternalSession
from mxgw_core.api.observation import Observation
from mxgw_core.api.rate_limits import Attempts
from mxgw_core.api.types import CloseReason, Identity, ItemRecord, SessionInfo


class Gateway(Protocol):
    """The running gateway, as plugins see it. Call it in the event loop only."""

    @property
    def instance_id(self) -> str:
        """A random id of this run of the gateway."""

    @property
    def observation(self) -> Observation:
        """Shows sessions, plugins and settings."""

    @property
    def authenticates_operators(self) -> bool:
        """Whether a plugin implements logins at the dashboard."""

    @property
    def attempts(self) -> Attempts:
        """The one count of failed attempts. Before checking credentials, begin an attempt here.

        `authenticate_operator` begins one itself.
        """

    @property
    def data_dir(self) -> Path:
        """The gateway's private directory. While a plugin's context is entered, it is locked for this gateway."""

    @property
    def data_dir_id(self) -> str:
        """Identifies the data directory itself, whatever path leads to it; a copy of the directory has another id."""

    @property
    def remembered_sessions(self) -> int:
        """How many ended sessions are remembered for their clients (`limits.remembered_sessions`)."""

    @property
    def default_backend(self) -> str:
        """The backend of sessions that name none (`backends.default`)."""

    async def open_internal_session(self, client_name: str, backend: str = "") -> InternalSession:
        """Open a session of the gateway's own, with the default backend if `backend` is "". Waits until the gateway
        serves.

        Raises:
            GatewayError: it could not be opened, or the gateway is shutting down.
        """

    def open_feed(self, description: FeedDescription) -> Feed:
        """Return a new stream of the plugin's own; call it before the gateway serves."""

    def item_access(self, identity: Identity) -> Sequence[ItemAccess]:
        """Return what the plugins allow an identity to do with items. All must agree; without any, everything is
        allowed.

        Raises:
            AccessDenied: a plugin failed.
        """

    def sessions(self) -> Sequence[SessionInfo]:
        """Return the live sessions, oldest first."""

    def session(self, session_id: str) -> SessionInfo | None:
        """Return one live session; None when it is not there."""

    def close_session(self, session_id: str, reason: CloseReason, detail: str = "") -> bool:
        """Begin to end a session; return False when there is no live session of this id.

        Raises:
            AccessDenied: it is a session of the gateway's own.
        """

    def items_used(self, session_id: str, command: MxCommand) -> Sequence[ItemRecord | None]:
        """Return the item of each handle that a command uses, in the order of its inputs, as `CommandGuard` gets them.

        None for a handle without an item, and for all of them when there is no such live session. Items are looked up
        on access.
        """

    def streams(self) -> Sequence[OpenStream]:
        """Return the streaming calls of all services that are being served, oldest first."""

    def end_stream(self, stream: OpenStream, error: GatewayError) -> bool:
        """End a streaming call at once with `error`, even if messages are unsent; return False when it had already
        ended.
        """

    def kill_worker(self, session_id: str, detail: str = "") -> bool:
        """End a session with KILLED_BY_OPERATOR and kill its worker process; return False as `close_session` does.

        Raises:
            AccessDenied: it is a session of the gateway's own.
        """

    async def authenticate_operator(self, credentials: OperatorCredentials) -> Operator | None:
        """Ask the plugins who this person is; None when name or password are wrong, or a plugin failed.

        Raises:
            TooManyAttempts: by this peer, or for this name; no plugin was asked.
            GatewayError: a plugin refused on purpose (for example, the directory cannot be reached).
        """

    async def renew_operator(self, operator: Operator) -> Operator | None:
        """Ask the plugins for the operator as of now, with a new token; None when this person is no operator any more.

        Raises:
            GatewayError: a plugin refused on purpose.
        """

    def forget_operator(self, operator: Operator) -> None:
        """Make the operator's token invalid from now on; for a logout."""

    def sight_of(self, operator: Operator) -> SessionPredicate:
        """Return which sessions, live or ended, this operator may see; none when no plugin answers.

        Ask again each time: what an operator may see can change.
        """

    def sessions_visible_to(self, operator: Operator) -> Sequence[SessionInfo]:
        """Return the live sessions that all answering plugins let this operator see; none when no plugin answers."""
