"""The data of a key: its scopes, its constraints and how long it is valid. Secrets are present as hashes only."""

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


# Every limit of a key must be below this number, because the 64-bit integers of the contract cannot hold more.
_NO_LIMIT = 2**63
# The tags of a key without --tag, and of a key that an earlier release stored without tags: any tag, or none.
ANY_TAG = ("*",)
_MIB = 1024 * 1024


class Scope(enum.Enum):
    """What a key may do. Each value is the word for the scope on the command line and in `GrpcService.scopes`."""

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
    """The limits of a key, in addition to its scopes. An empty or None field means that there is no such limit."""

    readable: ItemPatterns = field(default_factory=ItemPatterns)
    writable: ItemPatterns = field(default_factory=ItemPatterns)
    networks: Sequence[str] = ()
    maximum_sessions: int | None = None
    maximum_subscribers: int | None = None
    maximum_detached: int | None = None
    # The limit for all streams of the key together.
    maximum_events_per_s: float | None = None
    # How many bytes of events the gateway may keep for each session of the key.
    maximum_buffer_bytes: int | None = None
    # Globs for the tags of the key's sessions. At least one glob must match the tag; a session without a tag has the
    # tag "".
    tags: Sequence[str] = ANY_TAG

    @property
    def are_usable(self) -> bool:
        """Whether every limit is a number in the allowed range. A damaged database can contain other values (NaN)."""
        counts = (self.maximum_sessions, self.maximum_subscribers, self.maximum_detached)
        sizes = (self.maximum_events_per_s, self.maximum_buffer_bytes)
        return all(count is None or 0 <= count < _NO_LIMIT for count in counts) and all(
            size is None or 0 < size < _NO_LIMIT for size in sizes
        )

    @property
    def limits_items(self) -> bool:
        """Whether the key is limited to certain items."""
        return bool(self.readable or self.writable)

    def summary(self) -> Sequence[str]:
        """Return a few words for each limit, without the items and networks themselves."""
        counts = {
            "session": self.maximum_sessions,
            "stream": self.maximum_subscribers,
            "detached session": self.maximum_detached,
        }
        words = ["items"] * self.limits_items + ["networks"] * bool(self.networks)
        words += [f"{n} {what}{'' if n == 1 else 's'}" for what, n in counts.items() if n is not None]
        if self.maximum_events_per_s is not None:
            words.append(f"{self.maximum_events_per_s:g}/s")
        if self.maximum_buffer_bytes is not None:
            words.append(f"{self.maximum_buffer_bytes / _MIB:g} MiB")
        return words

    def may_read(self, reference: str) -> bool:
        """Return whether the key may see values of the item."""
        return not self.readable or self.readable.permit(reference)

    def may_write(self, reference: str) -> bool:
        """Return whether the constraints permit writing the item; the scopes are checked elsewhere.

        A key with patterns for reading and none for writing may write only the items that it may read.
        """
        limits = self.writable or self.readable
        return not limits or limits.permit(reference)

    @cached_property
    def _networks(self) -> tuple[Network, ...]:
        return tuple(ipaddress.ip_network(text, strict=False) for text in self.networks)

    def may_set(self, tag: str) -> bool:
        """Return whether the key may open a session with this tag; "" stands for a session without a tag."""
        return ItemPatterns(self.tags).permit(tag)

    @property
    def limits_tags(self) -> bool:
        """Whether the key is limited to certain tags."""
        return not any(set(glob.strip()) == {"*"} for glob in self.tags)

    def may_come_from(self, peer: Peer) -> bool:
        """Return whether the key may be used from this peer. A peer on a Unix socket has the address 127.0.0.1 here."""
        if not self.networks:
            return True
        try:
            address = peer_address(peer)
        except ValueError:
            return False
        return any(address in network for network in self._networks)

    def to_json(self) -> str:
        """Return the constraints as JSON text, which `from_json` reads again."""
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
        """Return the constraints from JSON text that `to_json` made.

        Raises:
            ValueError: the text is not JSON, or it has an unknown limit, which must not be ignored.
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
    # Whether the sessions of the key are closed when the key is revoked; with None the settings decide.
    closes_sessions: bool | None = None
    constraints: Constraints = field(default_factory=Constraints)
    certificate_names: Sequence[str] = ()
    hashes: Sequence[SecretHash] = field(default=(), repr=False)

    def why_dead(self, now: float) -> str:
        """Return "revoked", "expired" or "unusable" (see `are_usable`) for an invalid key, and "" for a valid key."""
        if self.revoked_at is not None:
            return "revoked"
        if self.expires_at is not None and not now < self.expires_at:
            return "expired"
        return "" if self.constraints.are_usable else "unusable"


@dataclass(frozen=True, slots=True)
class SecretHash:
    """The stored hash of a secret. `expires_at` is None until the secret is replaced by a new one."""

    digest: bytes
    created_at: float
    expires_at: float | None = None
