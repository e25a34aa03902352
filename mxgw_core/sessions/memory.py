"""Measures the memory that events of all sessions and large requests use, and keeps it below `limits.memory_bytes`.

Each session has its own limits, but most sessions use only a small part of them. If the gateway reserved the full limit
of every session, it could open few sessions only. So the gateway measures how much memory is really used. When too much
is used, it refuses new sessions and frees memory, beginning with the owner whose sessions use the most.
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

# `relieve` frees memory until a sixteenth of the limit is unused. If it stopped exactly at the limit, the next event
# would exceed the limit again.
_MARGIN = 16
# `relieve` frees this much, some dozens of blocks of events, and then lets other calls run.
_AT_ONCE_BYTES = 1024 * 1024
_RETRY_AFTER_S = 5.0
_REQUESTS_RETRY_AFTER_S = 0.5
# Large requests together are allowed to use a quarter of the limit. This memory is counted apart from the events, so no
# event is dropped to make room for a request.
_REQUESTS_SHARE = 4
# Memory that each decoded message or text in a request uses in addition to its bytes. Source: measured with protobuf 6,
# 48 bytes, rounded up.
PART_BYTES = 64


class GatewayMemory:
    """The memory that all event logs with their readers (distributors) and all large requests use. Use it in the event
    loop only.

    Args:
        limit_bytes: the limit, `limits.memory_bytes`.
        session_bytes: how much a new session can use before it has a subscriber, `events.unattached_bytes`.
        request_ids: a function that returns how many bytes the remembered request ids of each owner use.
    """

    def __init__(
        self, limit_bytes: int, session_bytes: int, request_ids: Callable[[], Mapping[str, int]] = dict
    ) -> None:
        self.limit_bytes = limit_bytes
        self._session_bytes = session_bytes
        self._request_ids = request_ids
        # Key: a distributor, which holds the event log and the readers of one session or feed. Value: the owner of this
        # session or feed.
        self._distributors: WeakKeyDictionary[Distributor, str] = WeakKeyDictionary()
        self._commands: WeakSet[PendingCommands] = WeakSet()
        # Total size of the large requests inside a `holding` block.
        self._requests_bytes = 0
        # How many bytes `relieve` and `require_room` have freed so far.
        self.relieved_bytes = 0
        self._is_relieving = False

    def watch(self, distributor: Distributor, owner: str, commands: PendingCommands | None = None) -> None:
        """Count the memory of a session's or feed's distributor (its event log and readers), as long as that object
        exists.

        The memory is counted for `owner`. The memory of unanswered `commands` is counted too, as large requests.
        """
        self._distributors[distributor] = owner
        if commands is not None:
            self._commands.add(commands)

    def use(self) -> MemoryUse:
        """Return how much memory is used now, by kind."""
        use = MemoryUse(request_ids=sum(self._request_ids().values()))
        for distributor in self._distributors:
            use.add(distributor.memory())
        use.requests = self._requests()
        return use

    @contextmanager
    def holding(self, size: int) -> Iterator[None]:
        """Count `size` bytes as the memory of a large request while the `with` block runs.

        Raises:
            MemoryLimitReached: other large requests use too much memory already.
        """
        used, limit = self._requests(), self.limit_bytes // _REQUESTS_SHARE
        if used and used + size > limit:  # a large request is always accepted when there is no other one
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
        """Make sure that there is memory for another session of this owner.

        When there is too little, memory of other owners is freed, but only of owners who use more than this owner would
        use with the new session.

        Raises:
            MemoryLimitReached: there is still too little memory.
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
        """When more memory than the limit is used, free some in small pieces; other tasks run after each piece.

        The first step drops encoded messages that are kept only so that several readers can share them. They can be
        made again, so no event is lost. If this is not enough, the owner who uses the most loses events, oldest first:
        first events that all subscribers have read, then events that followers hold, and in the end unread events.
        Subscribers and followers get a gap in place of events that they have not got yet.
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
        """Free `excess` bytes of owners that use more than `down_to` bytes, if possible. Return how many were freed."""
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
    """The memory of one owner's sessions, and the functions (steps) that free some of it."""

    def __init__(self, name: str, number: int, distributors: Sequence[Distributor], request_ids_bytes: int) -> None:
        self.name = name
        self.number = number
        held = sorted((-d.memory().total, number, d) for number, d in enumerate(distributors))
        self.held_bytes = request_ids_bytes - sum(negative for negative, _, _ in held)
        # Key: a step, which is a function that frees some memory of one session. Value: a heap of the sessions for
        # which this step can perhaps free memory; the session that uses the most is first.
        self._able = {step: list(held) for step in (*_COSTS_NO_EVENT, *_COSTS_EVENTS)}

    def give(self, steps: Sequence[_Step]) -> int | None:
        """Free some memory. Use the first of the `steps` that can free any, and the session that uses the most.

        Return how many bytes were freed; None when no step can free any memory of this owner.
        """
        for step in steps:
            able = self._able[step]
            while able:
                negative, number, distributor = heapq.heappop(able)
                before = distributor.memory().total
                if before != -negative:  # an earlier step has freed memory of this session: put it back into the heap
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


def _let_go_oldest(distributor: Distributor) -> bool:
    return distributor.let_go_oldest()


def _drop_unread(distributor: Distributor) -> bool:
    return distributor.drop_unread()


_COSTS_NO_EVENT: Sequence[_Step] = (_drop_shared,)
_COSTS_EVENTS: Sequence[_Step] = (_forget_oldest, _let_go_oldest, _drop_unread)
