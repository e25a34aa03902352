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

# Whoever has waited as long as was said must not be a rounding error too early.
_ROUNDING = 1e-9
# Names that are counted.
_CAPACITY = 10_000
# Names that find no place of their own share one of so many.
_SHARED = 256
# A table without a free place is looked through at most this often: that takes a step per name in it.
_SWEEP_S = 1.0
# Characters that the name of an operator may have; who claims a longer one shares a count with all who do.
LONGEST_NAME = 256
# With the kind before it.
_LONGEST_FOLDED = LONGEST_NAME + 16
# Characters that directories leave out when they compare names (RFC 4518 2.2), and marks such as accents, which some
# (Active Directory) leave out as well: formats, controls, and marks of three kinds.
_IGNORED = frozenset({"Cf", "Cc", "Mn", "Me", "Mc"})


class TokenBucket:
    """Holds at most `capacity` tokens and gets `per_s` a second back; it begins full. Not safe between threads."""

    __slots__ = ("_at", "_clock", "_tokens", "capacity", "per_s")

    def __init__(self, per_s: float, capacity: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_s = per_s
        self.capacity = capacity
        self._clock = clock
        self._tokens = capacity
        self._at = clock()

    @property
    def is_full(self) -> bool:
        """Whether it is as good as a new one."""
        return self._filled() >= self.capacity

    def wait_s(self) -> float:
        """Return how many seconds from now a whole token is there; 0 when one is."""
        missing = 1 - self._filled()
        return missing / self.per_s if missing > _ROUNDING else 0.0

    def spend(self, tokens: float = 1.0) -> None:
        """Take tokens; what is not there is owed."""
        self._tokens = self._filled() - tokens

    def give_back(self, tokens: float = 1.0) -> None:
        """Put tokens back that were taken, up to the capacity."""
        self._tokens = min(self.capacity, self._filled() + tokens)

    def _filled(self) -> float:
        now = self._clock()
        self._tokens = min(self.capacity, self._tokens + (now - self._at) * self.per_s)
        self._at = now
        return self._tokens


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt, counted as failed until it has succeeded."""

    _buckets: Sequence[TokenBucket]

    def succeeded(self) -> None:
        """Take it out of the count. Call it once; failures before it still count."""
        for bucket in self._buckets:
            bucket.give_back()


class Attempts:
    """Counts attempts by peer and by name: `burst` at once, then `per_minute`. Lives in the event loop.

    Memory is bounded. A name that has failed keeps its count until the time that makes it new, however many others
    come: where the table is full, further names share counts.
    """

    def __init__(
        self, per_minute: float, burst: int, *, clock: Callable[[], float] = time.monotonic, capacity: int = _CAPACITY
    ) -> None:
        self._per_s = per_minute / 60
        self._burst = burst
        self._clock = clock
        self._capacity = capacity
        # By a hash of each name: whoever comes chooses how long names are.
        self._buckets: dict[bytes, TokenBucket] = {}
        self._swept_at = -_SWEEP_S

    def __len__(self) -> int:
        return len(self._buckets)

    def begin(self, peer: Peer, name: str = "") -> Attempt:
        """Count an attempt before it is known how it ends, so that many at once do not pass the limit together.

        `name` is whom the caller claims to be, with its kind ("user anna"); "" when nobody. All peers on a Unix socket
        look alike, so for them the kinds are counted apart: what fails with bad keys does not keep operators out.

        Raises:
            TooManyAttempts: of this peer, or for this name; this one is not counted.
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
        """Return under what an attempt is counted."""
        place = blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        if place in self._buckets or len(self._buckets) + 2 <= self._capacity:
            return place
        # Hashes of text are salted per process, so nobody outside can choose whose count to share.
        return b"shared %d" % (hash(name) % _SHARED)

    def _sweep(self) -> None:
        """Forget whoever is as good as new."""
        now = self._clock()
        if now - self._swept_at >= _SWEEP_S:
            self._swept_at = now
            self._buckets = {name: bucket for name, bucket in self._buckets.items() if not bucket.is_full}


def folded_name(name: str) -> str:
    """Return one text for all spellings of a name that a directory may take for the same.

    Case, width and composition of characters, accents, invisible characters and the number of spaces do not count; nor
    does what follows after `LONGEST_NAME` characters, and a kind before them ("user anna").
    Source: RFC 4518 (string preparation of LDAP).
    """
    decomposed = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", name[:_LONGEST_FOLDED]).casefold())
    spaced = "".join(" " if c.isspace() else c for c in decomposed)
    kept = "".join(c for c in spaced if unicodedata.category(c) not in _IGNORED)
    return " ".join(kept.split())[:_LONGEST_FOLDED]


def peer_host(peer: Peer) -> str:
    """Return what stands for the peer's machine where attempts are counted: its address without the port.

    An IPv6 peer owns at least a /64, so that is what counts.
    """
    try:
        address = peer_address(peer)
    except ValueError:
        return peer.address
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)
