"""What a plugin may say about who may do what."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from mxgw.v1.commands_pb2 import MxCommand
from mxgw_core.api.types import Identity, Peer, SessionInfo


@dataclass(frozen=True, slots=True)
class AuthenticationRequest:
    """A call before anything is known of its caller. `metadata` may hold credentials: never log it."""

    method: str
    peer: Peer
    metadata: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class AccessRequest:
    """A call by a known caller, before it runs.

    `method` is the full gRPC name ("/mxgw.v1.SessionService/OpenSession"). `session` is the session that the call
    names; None when it names none, or one that is not there (then `session_id` has the name).
    """

    method: str
    identity: Identity
    peer: Peer
    session_id: str = ""
    session: SessionInfo | None = None


@dataclass(frozen=True, slots=True)
class Allow:
    """The call may run, as far as this plugin is concerned."""


@dataclass(frozen=True, slots=True)
class Deny:
    """The call must not run. `detail` is shown to the caller: say what is missing, reveal nothing foreign."""

    detail: str


Decision: TypeAlias = Allow | Deny


class CommandGuard(Protocol):
    """Judges the commands of one identity on one session."""

    def denied(self, command: MxCommand) -> Mapping[int, str]:
        """Return the denied inputs by index with their reason; index 0 is the command itself when it is not bulk.

        An exception denies the whole command.
        """


@dataclass(frozen=True, slots=True)
class OperatorCredentials:
    """A person's login at the dashboard."""

    user: str
    password: str = field(repr=False)
    peer: Peer


@dataclass(frozen=True, slots=True)
class Operator:
    """A person at the dashboard: `roles` such as "viewer" or "administrator", `tags` of sessions they may see.

    `token`, when the plugin gives one, is sent as `authorization: Bearer <token>` with later calls until `expires_at`
    (wall clock, seconds since 1970); such calls have an `Identity` of kind "operator" whose `claims` is the `Operator`.
    """

    name: str
    roles: Sequence[str]
    tags: Sequence[str] = ()
    token: str = field(default="", repr=False)
    expires_at: float = 0.0


SessionPredicate: TypeAlias = Callable[[SessionInfo], bool]
