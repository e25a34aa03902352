"""A key as the gateway knows it: its scopes, constraints and validity, but not its secret."""

from __future__ import annotations

import enum
import ipaddress
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from mxgw_acl.patterns import ItemPatterns
from mxgw_core.api import Peer, peer_address

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


# Counts and sizes must fit the numbers of the contract.
_NO_LIMIT = 2**63
# For keys that were created before tags could be limited.
ANY_TAG = ("*",)


class Scope(enum.Enum):
    """What a key may do. The values are the words of the command line and of `GrpcService.scopes`."""

    OPEN = "open"
    READ = "read"
    WRITE = "write"
    SECURED_WRITE = "secured-write"
    EVENTS = "events"
    ALL_SESSIONS = "all-sessions"
    ADMIN = "admin"


SCOPE_MEANINGS: Mapping[Scope, str] = {
    Scope.OPEN: "open and close sessions",
    Scope.READ: "read values, browse, see the state of a session",
    Scope.WRITE: "write values",
    Scope.SECURED_WRITE: "write values with the secured methods",
    Scope.EVENTS: "follow the events of a session",
    Scope.ALL_SESSIONS: "use sessions of other keys as well",
    Scope.ADMIN: "make the dashboard's calls as an administrator, for all sessions",
}


@dataclass(frozen=True)
class Constraints:
    """Limits within the scopes. Empty and None mean that there is no limit of that kind."""

    readable: ItemPatterns = field(default_factory=ItemPatterns)
    writable: ItemPatterns = field(default_factory=ItemPatterns)
    networks: Sequence[str] = ()
    maximum_sessions: int | None = None
    maximum_subscribers: int | None = None
    maximum_detached: int | None = None
    # For all streams of the key together.
    maximum_events_per_s: float | None = None
    # Bytes of events that are kept for each of its sessions.
    maximum_buffer_bytes: int | None = None
    # Globs for the tags of its sessions; one must match, also the empty tag of a session without one.
    tags: Sequence[str] = ANY_TAG

    @property
    def are_usable(self) -> bool:
        """Whether every limit is a number that can be exceeded; a damaged store may hold "not a number"."""
        counts = (self.maximum_sessions, self.maximum_subscribers, self.maximum_detached)
        sizes = (self.maximum_events_per_s, self.maximum_buffer_bytes)
        return all(count is None or 0 <= count < _NO_LIMIT for count in counts) and all(
            size is None or 0 < size < _NO_LIMIT for size in sizes
        )

    @property
    def limits_items(self) -> bool:
        """Whether the key is limited to certain items."""
        return bool(self.readable or self.writable)

    def may_read(self, reference: str) -> bool:
        """Return whether the key may see values of the item."""
        return not self.readable or self.readable.permit(reference)

    def may_write(self, reference: str) -> bool:
        """Return whether the key may write the item. A key that may read only some items may write only those."""
        limits = self.writable or self.readable
        return not limits or limits.permit(reference)

    @cached_property
    def _networks(self) -> tuple[Network, ...]:
        return tuple(ipaddress.ip_network(text, strict=False) for text in self.networks)

    def may_set(self, tag: str) -> bool:
        """Return whether a session may be opened with this tag; "" is a session without one."""
        return ItemPatterns(self.tags).permit(tag)

    @property
    def limits_tags(self) -> bool:
        """Whether the key is limited to certain tags."""
        return not any(set(glob.strip()) == {"*"} for glob in self.tags)

    def may_come_from(self, peer: Peer) -> bool:
        """Return whether calls from this peer are accepted; a Unix socket counts as 127.0.0.1."""
        if not self.networks:
            return True
        try:
            address = peer_address(peer)
        except ValueError:
            return False
        return any(address in network for network in self._networks)

    def to_json(self) -> str:
        """Return the constraints as text for `from_json`."""
        document: dict[str, Any] = {
            "readable": {"globs": list(self.readable.globs), "subtrees": list(self.readable.subtrees)},
            "writable": {"globs": list(self.writable.globs), "subtrees": list(self.writable.subtrees)},
            "networks": list(self.networks),
            "maximum_sessions": self.maximum_sessions,
            "maximum_subscribers": self.maximum_subscribers,
            "maximum_detached": self.maximum_detached,
            "maximum_events_per_s": self.maximum_events_per_s,
            "maximum_buffer_bytes": self.maximum_buffer_bytes,
            "tags": list(self.tags),
        }
        return json.dumps(document)

    @classmethod
    def from_json(cls, text: str) -> Constraints:
        """Return the constraints from the text that was stored.

        Raises:
            ValueError: the text has an unknown limit, which must not be ignored.
        """
        document = json.loads(text)
        known = {"readable", "writable", "networks", "maximum_sessions", "maximum_subscribers", "maximum_detached"}
        later = {"maximum_events_per_s", "maximum_buffer_bytes", "tags"}
        if not known <= set(document) <= known | later:
            raise ValueError(f"constraints with other fields than {', '.join(sorted(known | later))}")
        return cls(
            readable=ItemPatterns(**{k: tuple(v) for k, v in document.pop("readable").items()}),
            writable=ItemPatterns(**{k: tuple(v) for k, v in document.pop("writable").items()}),
            networks=tuple(document.pop("networks")),
            tags=tuple(document.pop("tags", ANY_TAG)),
            **document,
        )


@dataclass(frozen=True)
class Key:
    """One API key. Times are wall clock, seconds since 1970."""

    id: str
    name: str
    environment: str
    scopes: frozenset[Scope]
    created_at: float
    expires_at: float | None = None
    revoked_at: float | None = None
    # Whether its sessions are closed when it is revoked; None: as the settings say.
    closes_sessions: bool | None = None
    constraints: Constraints = field(default_factory=Constraints)
    certificate_names: Sequence[str] = ()
    hashes: Sequence[SecretHash] = field(default=(), repr=False)

    def why_dead(self, now: float) -> str:
        """Return "revoked", "expired", "unusable" (a limit is not a number), or "" for a valid key."""
        if self.revoked_at is not None:
            return "revoked"
        if self.expires_at is not None and not now < self.expires_at:
            return "expired"
        return "" if self.constraints.are_usable else "unusable"


@dataclass(frozen=True, slots=True)
class SecretHash:
    """A secret as it is stored. `expires_at` is set when the secret was replaced."""

    digest: bytes
    created_at: float
    expires_at: float | None = None
