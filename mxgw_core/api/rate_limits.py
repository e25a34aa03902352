"""Limits of rates: the token bucket, and failed attempts. For plugins that check credentials, or slow somebody down."""

from __future__ import annotations

import ipaddress
import time
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from mxgw_core.api.errors import TooManyAttempts
from mxgw_core.api.types import UNIX_PEER, Peer, peer_address

# A caller that has waited for `wait_s` must not be too early because of a rounding error.
_ROUNDING = 1e-9
# Names that have a count of their own.
_CAPACITY = 10_000
# When the table is full, further names share this many counts.
_SHARED = 256
# Seconds between two sweeps of a full table; each takes a step per name.
_SWEEP_S = 1.0
# The longest name of an operator, in characters; all longer names share one count.
LONGEST_NAME = 256
# The same with the kind in front ("user anna").
_LONGEST_FOLDED = LONGEST_NAME + 16
# Characters that directories leave out when they compare names (RFC 4518 2.2), and marks such as accents, which some
# (Active Directory) leave out as well: formats, controls, and marks of three kinds.
_IGNORED = frozenset({"Cf", "Cc", "Mn", "Me", "Mc"})


class TokenBucket:
    """Holds at most `capacity` tokens and regains `per_s` tokens a second; it begins full. Not thread-safe."""

    __slots__ = ("_at", "_clock", "_tokens", "capacity", "per_s")

    def __init__(self, per_s: float, capacity: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_s = per_s
        self.capacity = capacity
        self._clock = clock
        self._tokens = capacity
        self._at = clock()

    @property
    def is_full(self) -> bool:
        """Whether it holds as many tokens as a new one."""
        return self._filled() >= self.capacity

    def wait_s(self) -> float:
        """Return in how many seconds there is a whole token; 0 when there is one now."""
        missing = 1 - self._filled()
        return missing / self.per_s if missing > _ROUNDING else 0.0

    def spend(self, tokens: float = 1.0) -> None:
        """Take tokens. When there are too few, the balance becomes negative."""
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
    """One attempt, counted as failed until `succeeded` is called."""

    _buckets: Sequence[TokenBucket]

    def succeeded(self) -> None:
        """Remove this attempt from the count; earlier failures still count. Call it once."""
        for bucket in self._buckets:
            bucket.give_back()


class Attempts:
    """Counts attempts by peer and by name: `burst` at once, then `per_minute`. Lives in the event loop.

    Memory is bounded. The count of a name is kept until its bucket is full again, however many other names come: when
    the table is full, further names share counts.
    """

    def __init__(
        self, per_minute: float, burst: int, *, clock: Callable[[], float] = time.monotonic, capacity: int = _CAPACITY
    ) -> None:
        self._per_s = per_minute / 60
        self._burst = burst
        self._clock = clock
        self._capacity = capacity
        # By a hash of each name, because callers choose the length of names.
        self._buckets: dict[bytes, TokenBucket] = {}
        self._swept_at = -_SWEEP_S

    def __len__(self) -> int:
        return len(self._buckets)

    def begin(self, peer: Peer, name: str = "") -> Attempt:
        """Count an attempt before its outcome is known, so that simultaneous attempts cannot exceed the limit together.

        `name` is the name that the caller claims, with its kind ("user anna"); "" without a name. All peers on a Unix
        socket have the same address, so for them each kind has a count of its own: failures with API keys do not lock
        operators out.

        Raises:
            TooManyAttempts: by this peer, or for this name; this attempt is not counted.
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
        # `hash` of a text is salted per process, so callers cannot choose with whom they share a count.
        return b"shared %d" % (hash(name) % _SHARED)

    def _sweep(self) -> None:
        """Forget the names whose buckets are full again."""
        now = self._clock()
        if now - self._swept_at >= _SWEEP_S:
            self._swept_at = now
            self._buckets = {name: bucket for name, bucket in self._buckets.items() if not bucket.is_full}


def folded_name(name: str) -> str:
    """Return one text for all spellings of a name that a directory may treat as the same name.

    It ignores case, width and composition of characters, accents, invisible characters and the number of spaces, and
    everything after `LONGEST_NAME` characters (a kind in front, as in "user anna", does not count).
    Source: RFC 4518 (string preparation of LDAP).
    """
    decomposed = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", name[:_LONGEST_FOLDED]).casefold())
    spaced = "".join(" " if c.isspace() else c for c in decomposed)
    kept = "".join(c for c in spaced if unicodedata.category(c) not in _IGNORED)
    return " ".join(kept.split())[:_LONGEST_FOLDED]


def peer_host(peer: Peer) -> str:
    """Return the machine of a peer for counting attempts: its address without the port.

    For an IPv6 peer it is the /64 network, because the owner of a machine has at least that many addresses.
    """
    try:
        address = peer_address(peer)
    except ValueError:
        return peer.address
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)
