"""What a plugin may say about who may do what."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, TypeVar, overload, runtime_checkable

from google.protobuf.message import Message

from mxgw.v1.commands_pb2 import BrowseNode, MxCommand
from mxgw_core.api.types import Identity, ItemRecord, Peer, SessionInfo

T = TypeVar("T")

# The scope (`GrpcService.scopes`) of methods that only administrators may call; also the role of an `Operator` who is
# one. No such method may name a session of the gateway's own: core refuses it.
ADMINISTRATOR = "administrator"


@dataclass(frozen=True, slots=True)
class AuthenticationRequest:
    """A call before anything is known of its caller. `metadata` may hold credentials: never log it.

    `certificate_names` are the common name and the subject alternative names of the client certificate; the TLS layer
    has verified it. `scope` is what the service declares for the method (`GrpcService.scopes`), "" when nothing.
    """

    method: str
    peer: Peer
    metadata: Mapping[str, str] = field(repr=False)
    certificate_names: Sequence[str] = ()
    scope: str = ""


class Moment(enum.Enum):
    """When an authorization is asked for."""

    # Before the call runs.
    CALL = 1
    # Again, in the step in which a stream attaches.
    ATTACH = 2
    # Whether a session may stand in a list that the caller asked for.
    LIST = 3


@dataclass(frozen=True, slots=True)
class AccessRequest:
    """A call by a known caller, before it runs.

    `method` is the full gRPC name ("/mxgw.v1.SessionService/OpenSession"). `session` is the session that the call
    names; None when it names none, or one that is not there (then `session_id` has the name). It may have ended. For an
    OpenSession that repeats an earlier call (by its request id) it is the session that one opened: no other begins.
    `request` is the call's message, None in a list; it may hold passwords and tag values: never log it. `scope` is what
    the service declares for the method, "" when nothing. `items` are those that guards were asked about, in the order
    of the command's inputs; None while none was asked.
    """

    method: str
    identity: Identity
    peer: Peer
    session_id: str = ""
    session: SessionInfo | None = None
    request: Message | None = field(default=None, repr=False)
    scope: str = ""
    moment: Moment = Moment.CALL
    items: Sequence[ItemRecord | None] | None = None


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

    def denied(self, command: MxCommand, items: Sequence[ItemRecord | None]) -> Mapping[int, str]:
        """Return the denied inputs by index with their reason; index 0 is the command itself when it is not bulk.

        `items` has, for a command that uses item handles, the item of each in the order of its inputs; None where the
        handle stands for no item. When a handle has come to stand for another item until the worker makes the call, the
        worker refuses that input with ITEM_CHANGED: what is judged here is what is done.

        A bulk command with many inputs comes in several parts, one after the other, each a command with a few of the
        inputs: between them other calls are served. A `GatewayError` refuses the whole command and is what the caller
        sees; any other exception denies it.
        """


class OfInputs(Sequence[T]):
    """Something for each input of a bulk command, made when it is asked for: there may be thousands."""

    def __init__(self, inputs: Sequence[Any], of: Callable[[Any], T]) -> None:
        self._inputs = inputs
        self._of = of

    def __len__(self) -> int:
        return len(self._inputs)

    @overload
    def __getitem__(self, index: int) -> T: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...

    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        if isinstance(index, slice):
            return [self._of(one) for one in self._inputs[index]]
        return self._of(self._inputs[index])


def used_handles(command: MxCommand) -> Sequence[tuple[int, int]]:
    """Return server handle and item handle of each input of a command that uses item handles, in their order; read
    from the command when they are asked for.
    """
    match command.WhichOneof("command"):
        case "write_bulk":
            server_handle = command.write_bulk.server_handle
            return OfInputs(command.write_bulk.writes, lambda write: (server_handle, write.item_handle))
        case "unsubscribe_bulk":
            server_handle = command.unsubscribe_bulk.server_handle
            return OfInputs(command.unsubscribe_bulk.item_handles, lambda item_handle: (server_handle, item_handle))
        case (
            "write"
            | "write2"
            | "write_secured"
            | "write_secured2"
            | "remove_item"
            | "advise"
            | "advise_supervisory"
            | "un_advise"
            | "suspend"
            | "activate"
        ) as kind:
            used = getattr(command, kind)
            return [(used.server_handle, used.item_handle)]
        case _:
            return []


@runtime_checkable
class BrowseGuard(Protocol):
    """A guard that also judges what Browse may show."""

    def shows(self, node: BrowseNode) -> bool:
        """Return whether the caller may see this node."""


class ItemAccess(Protocol):
    """What a caller may do with items by their references, outside of any session."""

    def may_read(self, reference: str) -> bool:
        """Return whether the caller may know of this item."""

    def may_write(self, reference: str) -> bool:
        """Return whether the caller may change this item."""

    def decided(self, action: str, allowed: Sequence[str], denied: Sequence[str]) -> None:
        """A service is about to do `action` on these, and refuses it on those for lack of rights: for the record.

        A `GatewayError` refuses all of it.
        """


@dataclass(frozen=True, slots=True)
class OperatorCredentials:
    """A person's login at the dashboard.

    `user` has no blanks around it. Failed logins are counted for this very name, so it is the one to ask a directory
    for; refuse one of more than `LONGEST_NAME` characters, since all such names share a count.
    """

    user: str
    password: str = field(repr=False)
    peer: Peer

    def __post_init__(self) -> None:
        object.__setattr__(self, "user", self.user.strip())


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


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One line of an audit log, for those who may administer the gateway and nobody else.

    `time_ns` is wall clock, nanoseconds since 1970; `correlation_id` is that of the call, "" when no call caused it.
    Every text is printable: what is not was escaped by the plugin that keeps the log.
    """

    time_ns: int
    actor: str
    action: str
    decision: str
    reason: str = ""
    peer: str = ""
    session_id: str = ""
    tag: str = ""
    detail: str = ""
    correlation_id: str = ""


def as_operator(identity: Identity) -> Operator | None:
    """Return the operator that a caller is: by a login, or by what its plugin gives it without one; None for none.

    The latter is called `<kind>:<id>`, has no token, and sees what `mxgw_operator_sessions` says of that name.
    """
    if identity.kind == "operator":
        return identity.claims if isinstance(identity.claims, Operator) else None
    return Operator(f"{identity.kind}:{identity.id}", identity.roles) if identity.roles else None


SessionPredicate: TypeAlias = Callable[[SessionInfo], bool]
