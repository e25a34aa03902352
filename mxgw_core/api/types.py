"""Types of callers, sessions and items that plugins and the gateway pass to each other."""

from __future__ import annotations

import enum
import ipaddress
from dataclasses import dataclass, field
from typing import NamedTuple

from mxgw_core.api.texts import check_texts


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a stream. Sequences of different epochs must not be compared."""

    epoch: bytes
    sequence: int


class ItemRecord(NamedTuple):
    """What the worker reported of an item. The handle of an item can later be the handle of another item.

    No other item in the epoch of the session has the same `serial`. `item_definition` and `item_context` are the
    arguments of the command that added the item.

    A record is a tuple, because all plugins get the same record: so none of them can change what another one sees.
    `record._replace(serial=2)` returns a changed copy.
    """

    serial: int
    server_handle: int
    item_handle: int
    item_definition: str
    item_context: str = ""
    buffered: bool = False


class SessionState(enum.Enum):
    """The states of a session.

    They are CREATING, READY, CLOSING and CLOSED, in this order. A failure makes a session FAULTED. A session that waits
    for its worker after a restart of the gateway is ADOPTING, then READY.
    """

    CREATING = 1
    READY = 2
    CLOSING = 3
    CLOSED = 4
    FAULTED = 5
    ADOPTING = 6

    @property
    def is_ended(self) -> bool:
        return self in (SessionState.CLOSED, SessionState.FAULTED)


class CloseReason(enum.Enum):
    """Why a session ended. The values are the numbers of the enum in the contract."""

    CLIENT = 1
    LEASE_EXPIRED = 2
    DETACH_GRACE_EXPIRED = 3
    WORKER_EXITED = 4
    WORKER_SILENT = 5
    WORKER_PROTOCOL_ERROR = 6
    WORKER_START_FAILED = 7
    OVERFLOW_FAIL_FAST = 8
    KILLED_BY_OPERATOR = 9
    OWNER_REVOKED = 10
    GATEWAY_SHUTDOWN = 11

    @property
    def is_fault(self) -> bool:
        """Whether this reason is a failure: the session is then FAULTED and not CLOSED."""
        return self in _FAULTS


_FAULTS = frozenset(
    {
        CloseReason.WORKER_EXITED,
        CloseReason.WORKER_SILENT,
        CloseReason.WORKER_PROTOCOL_ERROR,
        CloseReason.WORKER_START_FAILED,
        CloseReason.OVERFLOW_FAIL_FAST,
    }
)


# `Peer.address` of all peers that are connected over a Unix socket.
UNIX_PEER = "unix"


@dataclass(frozen=True, slots=True)
class Peer:
    """The program at the other end of a call's connection.

    `address` has printable characters only. `is_local` is true for connections over loopback or a Unix socket.
    """

    address: str
    is_local: bool


def peer_address(peer: Peer) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return the IP address of a peer; 127.0.0.1 when the peer is connected over a Unix socket.

    Raises:
        ValueError: the address of the peer contains no IP address.
    """
    if peer.address == UNIX_PEER:
        return ipaddress.ip_address("127.0.0.1")
    host = peer.address.rpartition(":")[0].strip("[]").partition("%")[0]
    address = ipaddress.ip_address(host)
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped or address


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a caller is.

    `kind` is "anonymous", "key" or "operator", or another word that the authenticating plugin chooses. `claims` are
    data that only this plugin understands. `roles` are roles of an operator that the caller has without a login (see
    `as_operator`).

    Raises:
        TypeError: `roles` is a single text.
    """

    id: str
    kind: str
    display_name: str = ""
    claims: object = field(default=None, repr=False, compare=False)
    roles: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_texts("Identity.roles", self.roles)


# The owner of sessions that the gateway opens for itself.
INTERNAL = Identity(id="", kind="gateway", display_name="the gateway")
ANONYMOUS = Identity(id="anonymous", kind="anonymous", display_name="local user")


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """The state of a session at one moment. `opened_at` is wall clock, seconds since 1970."""

    session_id: str
    state: SessionState
    owner: str
    client_name: str
    tag: str
    backend: str
    opened_at: float
    epoch: bytes
    head_sequence: int
    oldest_sequence: int
    subscribers: int
    worker_pid: int
    close_reason: CloseReason | None = None
    close_detail: str = ""
    # Seconds since the last subscriber left; None while the session has a subscriber, and when it never had one.
    detached_s: float | None = None
    # How many seconds of events the log keeps after delivery, at the present rate of events; None when it keeps none,
    # or no events come.
    horizon_s: float | None = None
    # Whether it is a session of the gateway's own (`Gateway.open_internal_session`).
    is_internal: bool = False


@dataclass(frozen=True, slots=True)
class EndedSession:
    """A session that ended in an earlier run of the gateway.

    `closed_at` is when it ended: wall clock, seconds since 1970. `request_key` and `request_digest` are the values of
    the session's `WorkerSpawn`. With them the gateway recognises a repeated OpenSession call, and answers that the
    session has ended.
    """

    info: SessionInfo
    closed_at: float
    lease_s: float
    request_key: bytes = field(default=b"", repr=False)
    request_digest: bytes = field(default=b"", repr=False)


def own_session(session: SessionInfo) -> str:
    """Return the text of the error for a caller who tries to use or end a session of the gateway's own."""
    return (
        f"session {session.session_id} ({session.client_name}) is the gateway's own and ends with what it serves: "
        f"look at it and leave it alone; if its worker hangs, end process {session.worker_pid}, and a new one is opened"
    )
