"""Who callers are and what they may do. For plugins that authenticate, authorize, filter, or keep an audit log."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, TypeAlias, TypeVar, overload, runtime_checkable

from google.protobuf.message import Message

from mxgw.v1.commands_pb2 import BrowseNode, MxCommand
from mxgw_core.api.types import Identity, ItemRecord, Peer, SessionInfo

T = TypeVar("T")

# The scope (`GrpcService.scopes`) of methods for administrators, and the role of an `Operator` who is one. Core refuses
# such a method for a session of the gateway's own.
ADMINISTRATOR = "administrator"


@dataclass(frozen=True, slots=True)
class AuthenticationRequest:
    """A call whose caller is not known yet. `metadata` may hold credentials: never log it.

    `certificate_names` are the common name and the subject alternative names of the client certificate, which the TLS
    layer has verified. `scope` is the scope that the service declares for the method (`GrpcService.scopes`), "" when it
    declares none.
    """

    method: str
    peer: Peer
    metadata: Mapping[str, str] = field(repr=False)
    certificate_names: Sequence[str] = ()
    scope: str = ""


class Moment(enum.Enum):
    """Why an authorization is asked for."""

    # Before the call runs.
    CALL = 1
    # Again, in the step in which a stream attaches.
    ATTACH = 2
    # Whether to show a session in a list that the caller asked for.
    LIST = 3


def _no_session() -> None:
    """Find the session of a call that names none."""


@dataclass(frozen=True)
class AccessRequest:
    """A call by a known caller, before it runs.

    `method` is the full gRPC name ("/mxgw.v1.SessionService/OpenSession"). `find_session` returns the session that the
    call names (see `session`); None when the call names none, or one that does not exist (then `session_id` has the
    name). `request` is the message of the call, None for an entry of a list; it may hold passwords and tag values:
    never log it. `scope` is the scope that the service declares for the method, "" when it declares none. `items` are
    the items about which guards were asked, in the order of the command's inputs; None as long as no guard was asked.
    """

    method: str
    identity: Identity
    peer: Peer
    session_id: str = ""
    find_session: Callable[[], SessionInfo | None] = field(default=_no_session, repr=False)
    request: Message | None = field(default=None, repr=False)
    scope: str = ""
    moment: Moment = Moment.CALL
    items: Sequence[ItemRecord | None] | None = None
    # Whether the session is the gateway's own, which no caller may use.
    is_internal: bool = False

    @cached_property
    def session(self) -> SessionInfo | None:
        """The session that the call names, which may have ended; None when it names none, or one that is not known.

        Made when it is first asked for. For an OpenSession that repeats an earlier call (by its request id) it is the
        session which that call opened.
        """
        return self.find_session()


@dataclass(frozen=True, slots=True)
class Allow:
    """The call may run, as far as this plugin is concerned."""


@dataclass(frozen=True, slots=True)
class Deny:
    """The call must not run. `detail` is shown to the caller: say what is missing, and nothing about other callers."""

    detail: str


Decision: TypeAlias = Allow | Deny


class CommandGuard(Protocol):
    """Decides about the commands of one identity on one session."""

    def denied(self, command: MxCommand, items: Sequence[ItemRecord | None]) -> Mapping[int, str]:
        """Return the denied inputs by index, each with the reason; index 0 is the command itself when it is not a bulk
        command.

        For a command that uses item handles, `items` has the item of each handle in the order of the inputs; None for a
        handle without an item. If a handle belongs to another item by the time the worker makes the call, the worker
        refuses that input with ITEM_CHANGED: the decision holds for exactly these items.

        A bulk command with many inputs comes in parts, one after the other; each part is a command with a few of the
        inputs. Other calls are served between two parts. A `GatewayError` refuses the whole command and is shown to the
        caller; any other exception denies the command.
        """


class OfInputs(Sequence[T]):
    """A value for each input of a bulk command, computed on access because there may be thousands."""

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
    """Return server handle and item handle of each input of a command that uses item handles, in the order of the
    inputs.

    They are read from the command on access.
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
    """A guard that also decides which nodes Browse shows."""

    def shows(self, node: BrowseNode) -> bool:
        """Return whether the caller may see this node."""


class ItemAccess(Protocol):
    """What a caller may do with items by their references, without a session."""

    def may_read(self, reference: str) -> bool:
        """Return whether the caller may know about this item."""

    def may_write(self, reference: str) -> bool:
        """Return whether the caller may change this item."""

    def decided(self, action: str, allowed: Sequence[str], denied: Sequence[str]) -> None:
        """Record that a service is about to do `action` with the `allowed` references, and refuses it for the `denied`
        ones.

        A `GatewayError` refuses all of them.
        """


@dataclass(frozen=True, slots=True)
class OperatorCredentials:
    """A person's login at the dashboard.

    `user` has no blanks around it. Failed logins are counted under exactly this name, so pass it to the directory
    unchanged. Refuse a name of more than `LONGEST_NAME` characters, because all such names share one count.
    """

    user: str
    password: str = field(repr=False)
    peer: Peer

    def __post_init__(self) -> None:
        object.__setattr__(self, "user", self.user.strip())


@dataclass(frozen=True, slots=True)
class Operator:
    """A person at the dashboard: `roles` such as "viewer" or "administrator", and the `tags` of the sessions they may
    see.

    If the plugin gives a `token`, later calls send it as `authorization: Bearer <token>` until `expires_at` (wall
    clock, seconds since 1970). Such calls have an `Identity` of kind "operator" whose `claims` is the `Operator`.
    """

    name: str
    roles: Sequence[str]
    tags: Sequence[str] = ()
    token: str = field(default="", repr=False)
    expires_at: float = 0.0


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One line of an audit log, for administrators of the gateway only.

    `time_ns` is wall clock, nanoseconds since 1970; `correlation_id` is the id of the call, "" when no call caused the
    entry. Every text is printable: the plugin that keeps the log has escaped all other characters.
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
    """Return the operator that a caller is, by a login or by the roles of its identity; None when it is no operator.

    A caller with roles and no login is called `<kind>:<id>`, has no token, and sees the sessions that
    `mxgw_operator_sessions` returns for that name.
    """
    if identity.kind == "operator":
        return identity.claims if isinstance(identity.claims, Operator) else None
    return Operator(f"{identity.kind}:{identity.id}", identity.roles) if identity.roles else None


SessionPredicate: TypeAlias = Callable[[SessionInfo], bool]
