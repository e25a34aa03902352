"""The running gateway. For every plugin that looks at sessions, ends them, opens one, or has streams of its own."""

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
    """The running gateway as plugins see it; call it in the event loop only."""

    @property
    def instance_id(self) -> str:
        """Random per start."""

    @property
    def observation(self) -> Observation:
        """What can be seen of sessions, plugins and settings."""

    @property
    def authenticates_operators(self) -> bool:
        """Whether a plugin knows who may log in at the dashboard."""

    @property
    def attempts(self) -> Attempts:
        """The one count of failed attempts: whoever accepts or refuses credentials begins an attempt here first.

        `authenticate_operator` does so by itself.
        """

    @property
    def data_dir(self) -> Path:
        """The gateway's private directory; it is locked for this gateway while a plugin's context is entered."""

    @property
    def data_dir_id(self) -> str:
        """Names that directory itself, whatever path leads to it; a copy of it has another."""

    @property
    def remembered_sessions(self) -> int:
        """How many sessions that ended are remembered for their clients (`limits.remembered_sessions`)."""

    @property
    def default_backend(self) -> str:
        """Name of the backend of sessions that name none (`backends.default`)."""

    async def open_internal_session(self, client_name: str, backend: str = "") -> InternalSession:
        """Open a session of the gateway's own; `backend` "" is the default one. Waits until the gateway serves.

        Raises:
            GatewayError: it could not be opened, or the gateway is shutting down.
        """

    def open_feed(self, description: FeedDescription) -> Feed:
        """Return a new stream of the plugin's own; call it before the gateway serves."""

    def item_access(self, identity: Identity) -> Sequence[ItemAccess]:
        """Return what the plugins say of an identity and items; all must agree, and without any all is allowed.

        Raises:
            AccessDenied: a plugin failed.
        """

    def sessions(self) -> Sequence[SessionInfo]:
        """Return the live sessions, oldest first."""

    def session(self, session_id: str) -> SessionInfo | None:
        """Return one live session."""

    def close_session(self, session_id: str, reason: CloseReason, detail: str = "") -> bool:
        """Begin to end a session; return False when there is no such live session.

        Raises:
            AccessDenied: it is the gateway's own.
        """

    def items_used(self, session_id: str, command: MxCommand) -> Sequence[ItemRecord | None]:
        """Return the item of each handle that a command uses, in the order of its inputs, as `CommandGuard` gets them.

        None where the handle stands for no item, and where there is no such live session. Each is looked up when it is
        asked for.
        """

    def streams(self) -> Sequence[OpenStream]:
        """Return the streaming calls that are being served, of all services, oldest first."""

    def end_stream(self, stream: OpenStream, error: GatewayError) -> bool:
        """End a streaming call at once with `error`, whatever is still unsent; return False when it has ended."""

    def kill_worker(self, session_id: str, detail: str = "") -> bool:
        """End a session with KILLED_BY_OPERATOR and its worker process at once, unasked; False as `close_session`.

        Raises:
            AccessDenied: it is the gateway's own.
        """

    async def authenticate_operator(self, credentials: OperatorCredentials) -> Operator | None:
        """Ask the plugins who this person is; None when none vouches. An exception counts as None.

        Raises:
            TooManyAttempts: of this peer, or for this name; no plugin was asked.
            GatewayError: a plugin refused on purpose (the directory is not there).
        """

    async def renew_operator(self, operator: Operator) -> Operator | None:
        """Ask the plugins for the operator as of now, with a new token; None when they vouch no more.

        Raises:
            GatewayError: a plugin refused on purpose.
        """

    def forget_operator(self, operator: Operator) -> None:
        """Let the operator's token be worth nothing from now on; for a logout."""

    def sight_of(self, operator: Operator) -> SessionPredicate:
        """Return whether a session, live or ended, may be seen by this operator; it sees none when no plugin answers.

        Ask again for each look: what an operator may see can change.
        """

    def sessions_visible_to(self, operator: Operator) -> Sequence[SessionInfo]:
        """Return the live sessions every answering plugin lets this operator see; none when no plugin answers."""
