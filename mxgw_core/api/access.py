"""Who callers are and what they are allowed to do. For plugins that authenticate, authorize, or keep an audit log."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, TypeAlias, TypeVar, overload, runtime_checkable

from google.protobuf.message import Message

from mxgw.v1.commands_pb2 import BrowseNode, MxCommand
from mxgw_core.api.texts import check_texts
from mxgw_core.api.types import Identity, ItemRecord, Peer, SessionInfo

T = TypeVar("T")

# The scope (`GrpcService.scopes`) of methods that only administrators are allowed to call, and the role of an
# `Operator` who is an administrator. Such a method is always refused for a session of the gateway's own.
ADMINISTRATOR = "administrator"

# The hooks that decide about access. A plugin that implements one of them must be declared in the entry-point group
# `mxgw.access`; the gateway does not start without it, and denies what it decides when it fails later.
# `mxgw_stream_pace` and `mxgw_orphan_verdict` are not among them: without their answers a stream is faster and a worker
# lives or ends, but nobody reads, writes or sees anything more.
ACCESS_HOOKS = frozenset(
    {
        "mxgw_authenticate",
        "mxgw_authorize",
        "mxgw_decided",
        "mxgw_command_guard",
        "mxgw_event_filter",
        "mxgw_item_access",
        "mxgw_authenticate_operator",
        "mxgw_renew_operator",
        "mxgw_operator_left",
        "mxgw_operator_sessions",
    }
)


@dataclass(frozen=True, slots=True)
class AuthenticationRequest:
    """A call whose caller is not known yet. `metadata` can contain credentials, so it must not be logged.

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
    """Why the plugins are asked to authorize."""

    # A call is about to run.
    CALL = 1
    # A stream is about to attach a subscriber. The same call was authorized before, with the moment CALL.
    ATTACH = 2
    # A list is made for the caller, and the question is whether to show this session in the list.
    LIST = 3
    # A unary call that took long has run, and the question is whether the caller may still have the answer: perhaps it
    # was revoked meanwhile. The same call was authorized before, with the moment CALL.
    ANSWER = 4


def _no_session() -> None:
    """Return no session: the default `find_session`, for a call that names no session."""


@dataclass(frozen=True)
class AccessRequest:
    """A call by a known caller, before it runs.

    Attributes:
        method: the full gRPC name, for example "/mxgw.v1.SessionService/OpenSession".
        session_id: the session id in the call, "" when there is none.
        find_session: returns the session; use the property `session`.
        request: the message of the call, a copy for each plugin; None when `moment` is LIST or
            ANSWER. It can contain passwords
            and values of tags, so it must not be logged.
        scope: the scope that the service declares for the method; "" when it declares none.
        items: the items that were passed to the command guards, in the order of the command's inputs; None as long as
            no guard was called.
        is_internal: whether the session is the gateway's own. No caller is allowed to use such a session.
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
    is_internal: bool = False

    @cached_property
    def session(self) -> SessionInfo | None:
        """The session that the call names, live or ended; None when it names no session, or an unknown one.

        For an OpenSession that repeats an earlier call (same request id), it is the session that the earlier call
        opened. The session is looked up at the first access.
        """
        return self.find_session()


@dataclass(frozen=True, slots=True)
class Allow:
    """The plugin allows the call. Another plugin can still deny it."""


@dataclass(frozen=True, slots=True)
class Deny:
    """The call must not run. The caller sees `detail`: say which right is missing, and nothing about other callers."""

    detail: str


Decision: TypeAlias = Allow | Deny


class CommandGuard(Protocol):
    """Decides about the commands of one identity on one session."""

    def denied(self, command: MxCommand, items: Sequence[ItemRecord | None]) -> Mapping[int, str]:
        """Return which inputs of a command are denied. Key: the index of the input. Value: the reason. A command that
        is not a bulk command is itself the input with index 0. `command` is a copy for this guard.

        For a command that uses item handles, `items` has the item of each handle, in the order of the inputs; None when
        no item has the handle. The decision is valid for exactly these items: if a handle belongs to another item when
        the worker runs the command, the worker refuses this input with ITEM_CHANGED.

        For a bulk command with many inputs this method is called several times, each time with a command that has a few
        of the inputs. Other calls are served in between. A `GatewayError` refuses the whole command and is shown to the
        caller; any other exception denies the command.
        """


class OfInputs(Sequence[T]):
    """A sequence with one value for each input of a bulk command. There can be thousands of inputs, so a value is
    computed only when it is accessed.
    """

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
    """Return the server handle and the item handle of each input of a command, in the order of the inputs.

    The sequence is empty for a command that uses no item handles. The handles of a bulk command are read only when they
    are accessed.
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
    """A command guard that also decides which nodes of the source a caller sees when it browses."""

    def shows(self, node: BrowseNode) -> bool:
        """Return whether the caller is allowed to see this node.

        A node without a `reference` is a place, such as an area or an object, with a name and a description. What lies
        below it is not known here, so answer True, or know the source. A hidden place hides nothing below it: each
        node is asked about by itself. Below a hidden item, the caller gets the same empty answer as below a node that
        does not exist.
        """


class ItemAccess(Protocol):
    """What a caller is allowed to do with items that are named by references, in services that need no session."""

    def may_read(self, reference: str) -> bool:
        """Return whether the caller is allowed to read this item, or to know that it exists."""

    def may_write(self, reference: str) -> bool:
        """Return whether the caller is allowed to change this item."""

    def decided(self, action: str, allowed: Sequence[str], denied: Sequence[str]) -> None:
        """Record a decision: a service will do `action` with the references in `allowed`, and refuses it for the
        references in `denied`.

        When this raises a `GatewayError`, the service refuses the action for all of these references.
        """


@dataclass(frozen=True, slots=True)
class OperatorCredentials:
    """A person's login at the dashboard.

    Blanks around `user` are removed. Failed logins are counted for exactly this name, so pass it to the directory
    unchanged. Refuse a name that is longer than `LONGEST_NAME`, because all such names together have only one count of
    failed logins.
    """

    user: str
    password: str = field(repr=False)
    peer: Peer

    def __post_init__(self) -> None:
        object.__setattr__(self, "user", self.user.strip())


@dataclass(frozen=True, slots=True)
class Operator:
    """A person at the dashboard.

    `roles` are roles such as "viewer" or "administrator". `tags` are the tags of the sessions that the person is
    allowed to see. If `token` is not empty, the dashboard sends it with later calls as `authorization: Bearer <token>`,
    until `expires_at` (wall clock, seconds since 1970). The `Identity` of such calls has the kind "operator", and its
    `claims` is this object.

    Raises:
        TypeError: `roles` or `tags` is a single text.
    """

    name: str
    roles: Sequence[str]
    tags: Sequence[str] = ()
    token: str = field(default="", repr=False)
    expires_at: float = 0.0

    def __post_init__(self) -> None:
        check_texts("Operator.roles", self.roles)
        check_texts("Operator.tags", self.tags)


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One line of an audit log, for administrators of the gateway only.

    `time_ns` is wall clock, nanoseconds since 1970. `correlation_id` is the id of the call that caused the entry, ""
    when no call did. All texts are printable, because the plugin that keeps the audit log has escaped other characters.
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
    """Return the operator that a caller is: one who has logged in, or one who has the roles of the identity. None when
    the caller has not logged in as an operator, and the identity has no roles.

    Without a login, the name of the operator is `<kind>:<id>`, and there is no token. The hook `mxgw_operator_sessions`
    decides from this name which sessions the operator sees.
    """
    if identity.kind == "operator":
        return identity.claims if isinstance(identity.claims, Operator) else None
    return Operator(f"{identity.kind}:{identity.id}", identity.roles) if identity.roles else None


SessionPredicate: TypeAlias = Callable[[SessionInfo], bool]
