"""Values that plugins and core exchange about callers, sessions and items."""

from __future__ import annotations

import enum
import ipaddress
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a session's stream. Sequences of different epochs cannot be compared."""

    epoch: bytes
    sequence: int


@dataclass(frozen=True, slots=True)
class ItemRecord:
    """An item of a session, as its worker knows it. A record never changes, but a handle may later belong to another
    item.

    No other item of the session's epoch has the same `serial`. `item_definition` and `item_context` are those of the
    command that added the item.
    """

    serial: int
    server_handle: int
    item_handle: int
    item_definition: str
    item_context: str = ""
    buffered: bool = False


class SessionState(enum.Enum):
    """Life of a session: CREATING -> READY -> CLOSING -> CLOSED; FAULTED from any live state; ADOPTING -> READY."""

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
    """Why a session ended. The values are the numbers of the contract."""

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
        """Whether the session is FAULTED afterwards, rather than CLOSED."""
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


# The address of every peer on a Unix socket.
UNIX_PEER = "unix"


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a call. `address` is printable; `is_local` is true on loopback and Unix sockets."""

    address: str
    is_local: bool


def peer_address(peer: Peer) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return the IP address of a peer; 127.0.0.1 for a Unix socket.

    Raises:
        ValueError: the peer has no IP address.
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

    `kind` is "anonymous", "key", "operator" or a word of the plugin that authenticated; `claims` is that plugin's own
    data. `roles` are the roles of an operator that the caller has without a login (see `as_operator`).
    """

    id: str
    kind: str
    display_name: str = ""
    claims: object = field(default=None, repr=False, compare=False)
    roles: tuple[str, ...] = ()


# The owner of sessions that the gateway opens for itself.
INTERNAL = Identity(id="", kind="gateway", display_name="the gateway")
ANONYMOUS = Identity(id="anonymous", kind="anonymous", display_name="local user")


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """A session at one moment. Times are wall clock, seconds since 1970."""

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
    # Seconds without a subscriber; None while the session has one, and when it never had one.
    detached_s: float | None = None
    # Seconds that the log reaches back at the present rate of events; None while the rate is not known.
    horizon_s: float | None = None
    # Whether it is a session of the gateway's own (`Gateway.open_internal_session`).
    is_internal: bool = False


@dataclass(frozen=True, slots=True)
class EndedSession:
    """A session that ended in an earlier run of the gateway; its end was at `closed_at`, wall clock in seconds since
    1970.

    `request_key` and `request_digest` are those of its `WorkerSpawn`: an OpenSession that is repeated is answered with
    the end of this session.
    """

    info: SessionInfo
    closed_at: float
    lease_s: float
    request_key: bytes = field(default=b"", repr=False)
    request_digest: bytes = field(default=b"", repr=False)


def own_session(session: SessionInfo) -> str:
    """Return the text that refuses to use or end a session of the gateway's own."""
    return (
        f"session {session.session_id} ({session.client_name}) is the gateway's own and ends with what it serves: "
        f"look at it and leave it alone; if its worker hangs, end process {session.worker_pid}, and a new one is opened"
    )
