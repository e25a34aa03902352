"""What the events of all sessions and the large requests take in the gateway's memory, and the bounds for them.

Everything that is kept is bounded by its session's own limits already, but all of these together would be many times
what sessions usually take: so what is refused or given up goes by what is held at the moment. The owner that holds the
most gives first, so that no other pays for it.
"""

from __future__ import annotations

import heapq
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from weakref import WeakKeyDictionary, WeakSet

from mxgw_core.api.errors import MemoryLimitReached
from mxgw_core.api.slices import turn
from mxgw_core.events.distributor import Distributor
from mxgw_core.events.memory import MemoryUse
from mxgw_core.workers.commands import PendingCommands

log = logging.getLogger(__name__)

# What `relieve` goes below the limit, so that the next event does not call for it again.
_MARGIN = 16
# What is given up at a stretch: some dozens of blocks.
_AT_ONCE_BYTES = 1024 * 1024
_RETRY_AFTER_S = 5.0
_REQUESTS_RETRY_AFTER_S = 0.5
# Large requests may take so much beside the events, and no event is given up for one: this part of the limit.
_REQUESTS_SHARE = 4
# What a message or a text within a request takes once it is decoded, beside its bytes: 48 measured, protobuf 6.
PART_BYTES = 64


class GatewayMemory:
    """Measures and bounds what distributors hold together. Lives in the event loop.

    Args:
        limit_bytes: the bound, `limits.memory_bytes`.
        session_bytes: what a new session may take before anybody reads it.
        request_ids: returns what is remembered of the request ids of each owner, in bytes.
    """

    def __init__(
        self, limit_bytes: int, session_bytes: int, request_ids: Callable[[], Mapping[str, int]] = dict
    ) -> None:
        self.limit_bytes = limit_bytes
        self._session_bytes = session_bytes
        self._request_ids = request_ids
        # The owner of each.
        self._distributors: WeakKeyDictionary[Distributor, str] = WeakKeyDictionary()
        self._commands: WeakSet[PendingCommands] = WeakSet()
        # Of calls that are being served.
        self._requests_bytes = 0
        # Given up so far.
        self.relieved_bytes = 0
        self._is_relieving = False

    def watch(self, distributor: Distributor, owner: str, commands: PendingCommands | None = None) -> None:
        """Count what it holds, for as long as it exists, as its owner's; and what its worker has yet to answer."""
        self._distributors[distributor] = owner
        if commands is not None:
            self._commands.add(commands)

    def use(self) -> MemoryUse:
        """Return what is held now."""
        use = MemoryUse(request_ids=sum(self._request_ids().values()))
        for distributor in self._distributors:
            use.add(distributor.memory())
        use.requests = self._requests()
        return use

    @contextmanager
    def holding(self, size: int) -> Iterator[None]:
        """Count so many bytes of a large request while the block runs.

        Raises:
            MemoryLimitReached: those that are being served take too much.
        """
        used, limit = self._requests(), self.limit_bytes // _REQUESTS_SHARE
        if used and used + size > limit:  # one may always be served
            raise MemoryLimitReached(
                f"the large requests that are being served take {used} bytes, and this one {size} more; {limit} are "
                "allowed, a quarter of limits.memory_bytes: send fewer at once, split them, or raise the limit",
                metadata={
                    "setting": "limits.memory_bytes",
                    "limit": str(limit),
                    "used": str(used),
                    "needed": str(size),
                },
                retry_after_s=_REQUESTS_RETRY_AFTER_S,
            )
        self._requests_bytes += size
        try:
            yield
        finally:
            self._requests_bytes -= size

    def _requests(self) -> int:
        return self._requests_bytes + sum(commands.unanswered_bytes for commands in self._commands)

    def require_room(self, owner: str) -> None:
        """Make sure that another session of this owner has room: who holds more than it would then give some up.

        Raises:
            MemoryLimitReached: there is none all the same.
        """
        used, needed = self.use().events, self._session_bytes
        excess = used + needed - self.limit_bytes
        if excess > 0:
            owners = self._owners()
            own = next((o.held_bytes for o in owners if o.name == owner), 0)
            self._give_up(used, excess, [o for o in owners if o.name != owner], down_to=own + needed)
            used = self.use().events
        if used + needed > self.limit_bytes:
            raise MemoryLimitReached(
                f"the events of all sessions take {used} bytes, and a new session may take {needed} before it is read; "
                f"limits.memory_bytes allows {self.limit_bytes}: close sessions, keep less of each "
                "(plugins.replay.bytes, events.unattached_bytes), or raise the limit",
                metadata={
                    "setting": "limits.memory_bytes",
                    "limit": str(self.limit_bytes),
                    "used": str(used),
                    "needed": str(needed),
                },
                retry_after_s=_RETRY_AFTER_S,
            )

    async def relieve(self) -> None:
        """Bring what is held below the limit: called about once a second, and does nothing while it is. Others have
        their turn in between.

        What was joined goes first; no event is lost by it. Then the owner that holds the most gives up what nobody has
        to read any more, oldest first, and at last what its subscribers have yet to read: gaps stand in their places.
        """
        used = self.use().events
        target = self.limit_bytes - self.limit_bytes // _MARGIN
        if used > self.limit_bytes:
            excess = used - target
            while freed := self._give_up(used, min(excess, _AT_ONCE_BYTES), self._owners()):
                excess -= freed
                if excess <= 0:
                    break
                await turn()
        elif used < target - self.limit_bytes // _MARGIN:
            self._is_relieving = False

    def _owners(self) -> Sequence[_Owner]:
        of: dict[str, list[Distributor]] = defaultdict(list)
        for distributor, owner in self._distributors.items():
            of[owner].append(distributor)
        request_ids = self._request_ids()
        return [_Owner(name, number, of[name], request_ids.get(name, 0)) for number, name in enumerate(of)]

    def _give_up(self, used: int, excess: int, owners: Iterable[_Owner], down_to: int = 0) -> int:
        """Free `excess` bytes, or as many as owners that hold more than `down_to` can give; return how many."""
        left = excess
        heap = [(-owner.held_bytes, owner.number, owner) for owner in owners]
        for steps in (_COSTS_NO_EVENT, _COSTS_EVENTS):
            unable = []
            heapq.heapify(heap)
            while left > 0 and heap and -heap[0][0] > down_to:
                _, number, owner = heapq.heappop(heap)
                freed = owner.give(steps)
                if freed is None:
                    unable.append((-owner.held_bytes, number, owner))
                    continue
                left -= freed
                heapq.heappush(heap, (-owner.held_bytes, number, owner))
            heap += unable
        freed = excess - left
        self.relieved_bytes += freed
        if freed and not self._is_relieving:
            self._is_relieving = True
            log.warning(
                "the events of all sessions took %d bytes of limits.memory_bytes (%d): %d bytes were given up by the "
                "owners that held the most, and more will be while it goes on; gaps tell clients what they lost by it",
                used,
                self.limit_bytes,
                freed,
            )
        return freed


class _Owner:
    """What one owner holds, and can give."""

    def __init__(self, name: str, number: int, distributors: Sequence[Distributor], request_ids_bytes: int) -> None:
        self.name = name
        self.number = number
        held = sorted((-d.memory().total, number, d) for number, d in enumerate(distributors))
        self.held_bytes = request_ids_bytes - sum(negative for negative, _, _ in held)
        # By step: the sessions that may still have something to give by it, the one that holds the most first.
        self._able = {step: list(held) for step in (*_COSTS_NO_EVENT, *_COSTS_EVENTS)}

    def give(self, steps: Sequence[_Step]) -> int | None:
        """Let the session that holds the most give by the first step that it can; return the bytes, or None."""
        for step in steps:
            able = self._able[step]
            while able:
                negative, number, distributor = heapq.heappop(able)
                before = distributor.memory().total
                if before != -negative:  # it gave by another step
                    heapq.heappush(able, (-before, number, distributor))
                elif step(distributor):
                    after = distributor.memory().total
                    heapq.heappush(able, (-after, number, distributor))
                    self.held_bytes -= before - after
                    return before - after
        return None


_Step = Callable[[Distributor], bool]


def _drop_shared(distributor: Distributor) -> bool:
    return distributor.log.drop_shared()


def _forget_oldest(distributor: Distributor) -> bool:
    return distributor.forget_oldest()


def _drop_unread(distributor: Distributor) -> bool:
    return distributor.drop_unread()


_COSTS_NO_EVENT: Sequence[_Step] = (_drop_shared,)
_COSTS_EVENTS: Sequence[_Step] = (_forget_oldest, _drop_unread)
