"""Limits of rates: token buckets, and counts of failed attempts. For plugins that check credentials or limit a rate."""

from __future__ import annotations

import ipaddress
import time
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from mxgw_core.api.errors import TooManyAttempts
from mxgw_core.api.types import UNIX_PEER, Peer, peer_address

# A token counts as whole when only this much is missing, so that a caller who has waited for `wait_s` is not refused
# because of a rounding error.
_ROUNDING = 1e-9
# How many names can have a separate count of failed attempts.
_CAPACITY = 10_000
# How many counts all further names share, when the table of names is full.
_SHARED = 256
# The shortest time in seconds between two sweeps of the table. A sweep looks at every name, so it must not happen
# often.
_SWEEP_S = 1.0
# The longest name of an operator, in characters. All longer names together have one count.
LONGEST_NAME = 256
# The longest name with its kind before it, for example "user anna".
_LONGEST_FOLDED = LONGEST_NAME + 16
# The Unicode categories of characters that are ignored in names. Directories ignore format characters and control
# characters when they compare names (Source: RFC 4518 2.2), and some, such as Active Directory, also marks, for example
# accents.
_IGNORED = frozenset({"Cf", "Cc", "Mn", "Me", "Mc"})


class TokenBucket:
    """A token bucket: it begins with `capacity` tokens, which is also the most it can have, and gets `per_s` new tokens
    per second. Not thread-safe.
    """

    __slots__ = ("_at", "_clock", "_tokens", "capacity", "per_s")

    def __init__(self, per_s: float, capacity: float, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self.per_s = per_s
        self.capacity = capacity
        self._clock = clock
        self._tokens = capacity
        self._at = clock()

    @property
    def is_full(self) -> bool:
        """Whether the bucket has as many tokens as a new bucket."""
        return self._filled() >= self.capacity

    def wait_s(self) -> float:
        """Return after how many seconds the bucket has a whole token; 0 when it has one now."""
        missing = 1 - self._filled()
        return missing / self.per_s if missing > _ROUNDING else 0.0

    def spend(self, tokens: float = 1.0) -> None:
        """Take tokens out of the bucket. When it has too few, the number of its tokens becomes negative."""
        self._tokens = self._filled() - tokens

    def give_back(self, tokens: float = 1.0) -> None:
        """Put back tokens that were taken, up to the capacity."""
        self._tokens = min(self.capacity, self._filled() + tokens)

    def _filled(self) -> float:
        now = self._clock()
        self._tokens = min(self.capacity, self._tokens + (now - self._at) * self.per_s)
        self._at = now
        return self._tokens


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt to authenticate. It counts as failed until `succeeded` is called."""

    _buckets: Sequence[TokenBucket]

    def succeeded(self) -> None:
        """Do not count this attempt as failed. Earlier failures still count. Call this only once."""
        for bucket in self._buckets:
            bucket.give_back()


class Attempts:
    """Limits failed attempts to authenticate, for each peer and for each name: `burst` attempts at once, and
    `per_minute` in the long run. Use it in the event loop only.

    The memory is limited: when the table of counts is full, new names share counts with each other. But a name that has
    a count keeps it until its bucket is full again, so nobody can clear a count by sending many other names.
    """

    def __init__(
        self,
        per_minute: float,
        burst: int,
        *,
        clock: Callable[[], float] = time.perf_counter,
        capacity: int = _CAPACITY,
    ) -> None:
        self._per_s = per_minute / 60
        self._burst = burst
        self._clock = clock
        self._capacity = capacity
        # Key: a hash of a name, because callers choose how long names are. Value: the token bucket of the name.
        self._buckets: dict[bytes, TokenBucket] = {}
        self._swept_at = -_SWEEP_S

    def __len__(self) -> int:
        return len(self._buckets)

    def begin(self, peer: Peer, name: str = "") -> Attempt:
        """Count an attempt.

        When the check of the credentials waits for something, for example for a directory, call this before the check,
        so that attempts at the same time cannot exceed the limit together; then call `succeeded` when the credentials
        are right, and also when they could not be checked. When the check is one function call that does not wait, as
        in `mxgw_authenticate`, call this only after a failed check: no other attempt can come between, and a caller
        with the right credentials is not refused because of the failures of others.

        `name` is the name that the caller claims, with its kind before it, for example "user anna"; "" when there is no
        name. All peers on a Unix socket have the same address. So for this address each kind has a separate count, and
        failed attempts with API keys do not prevent logins of operators.

        Raises:
            TooManyAttempts: there were too many failed attempts by this peer or for this name. This attempt does not
                count.
        """
        kind, _, who = name.partition(" ")
        names = [f"peer unix {kind}" if peer.address == UNIX_PEER else f"peer {peer_host(peer)}"]
        if name:
            names.append(folded_name(name) if len(who) <= LONGEST_NAME else f"long {kind}")
        if len(self._buckets) + len(names) > self._capacity:
            self._sweep()
        places = {self._place(known_as) for known_as in names}
        buckets = {
            place: self._buckets.get(place) or TokenBucket(self._per_s, self._burst, clock=self._clock)
            for place in places
        }
        if (wait_s := max(bucket.wait_s() for bucket in buckets.values())) > 0:
            raise TooManyAttempts(
                "too many failed attempts: check the key, or name and password, and try again later",
                retry_after_s=wait_s,
            )
        for bucket in buckets.values():
            bucket.spend()
        self._buckets |= buckets
        return Attempt(tuple(buckets.values()))

    def _place(self, name: str) -> bytes:
        """Return the key under which attempts of this name are counted."""
        place = blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        if place in self._buckets or len(self._buckets) + 2 <= self._capacity:
            return place
        # The hash of a text is different in each process, so callers cannot choose with which names they share a count.
        return b"shared %d" % (hash(name) % _SHARED)

    def _sweep(self) -> None:
        """Remove the names whose token buckets are full again, but not more often than every `_SWEEP_S` seconds."""
        now = self._clock()
        if now - self._swept_at >= _SWEEP_S:
            self._swept_at = now
            self._buckets = {name: bucket for name, bucket in self._buckets.items() if not bucket.is_full}


def folded_name(name: str) -> str:
    """Return the same text for all spellings of a name that a directory can treat as the same name.

    Differences in case, in width and composition of characters, in accents, invisible characters and the number of
    spaces are ignored. So is everything after `LONGEST_NAME` characters, not counting a kind before the name.
    Source: RFC 4518 (string preparation of LDAP).
    """
    decomposed = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", name[:_LONGEST_FOLDED]).casefold())
    spaced = "".join(" " if c.isspace() else c for c in decomposed)
    kept = "".join(c for c in spaced if unicodedata.category(c) not in _IGNORED)
    return " ".join(kept.split())[:_LONGEST_FOLDED]


def peer_host(peer: Peer) -> str:
    """Return a text that identifies the machine of a peer, for counting attempts: its IP address without the port.

    For an IPv6 address it is the /64 network of the address, because one machine can usually use all addresses of such
    a network. For a peer without an IP address it is the whole address.
    """
    try:
        address = peer_address(peer)
    except ValueError:
        return peer.address
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)
