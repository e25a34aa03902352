"""What the events of all sessions and the large requests take in the gateway's memory, and the bounds for them.

Everything that is kept is bounded by its session's own limits already, but all of these together would be many times
what sessions usually take: so what is refused or given up goes by what is held at the moment.
"""

from __future__ import annotations

import heapq
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from weakref import WeakSet

from mxgw_core.api.errors import MemoryLimitReached
from mxgw_core.api.slices import turn
from mxgw_core.events.distributor import Distributor
from mxgw_core.events.memory import MemoryUse
from mxgw_core.workers.commands import PendingCommands

log = logging.getLogger(__name__)

# What `relieve` goes below the limit, so that the next event does not call for it again.
_MARGIN = 16
# What is given up at a stretch, each a block or a backlog.
_STEPS_AT_ONCE = 20
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
    """

    def __init__(self, limit_bytes: int, session_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._session_bytes = session_bytes
        self._distributors: WeakSet[Distributor] = WeakSet()
        self._commands: WeakSet[PendingCommands] = WeakSet()
        # Of calls that are being served.
        self._requests_bytes = 0
        # Given up so far.
        self.relieved_bytes = 0
        self._is_relieving = False

    def watch(self, distributor: Distributor, commands: PendingCommands | None = None) -> None:
        """Count what they hold for as long as there is one."""
        self._distributors.add(distributor)
        if commands is not None:
            self._commands.add(commands)

    def use(self) -> MemoryUse:
        """Return what is held now."""
        use = MemoryUse()
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

    def require_room(self) -> None:
        """Make sure that another session has room.

        Raises:
            MemoryLimitReached: it has none.
        """
        used, needed = self.use().events, self._session_bytes
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

        First goes what was joined, then what nobody has to read any more, oldest first, and at last what subscribers
        have yet to read: gaps stand in their places. Whoever holds the most gives first.
        """
        used = self.use().events
        target = self.limit_bytes - self.limit_bytes // _MARGIN
        if used <= self.limit_bytes:
            if used < target - self.limit_bytes // _MARGIN:
                self._is_relieving = False
            return
        excess = used - target
        for give in (_drop_shared, _forget_oldest, _drop_unread):
            excess = await self._given(excess, give)
        relieved = used - target - excess
        self.relieved_bytes += relieved
        if not self._is_relieving:
            self._is_relieving = True
            log.warning(
                "the events of all sessions took %d bytes, more than limits.memory_bytes (%d): %d bytes were given up, "
                "and more will be while it goes on; gaps tell clients what they lost by it",
                used,
                self.limit_bytes,
                relieved,
            )

    async def _given(self, excess: int, give: Callable[[Distributor], bool]) -> int:
        """Let the one that holds the most give, again and again; return what is still too much."""
        held = [(-d.memory().total, number, d) for number, d in enumerate(self._distributors)]
        heapq.heapify(held)
        steps = 0
        while excess > 0 and held:
            steps += 1
            if steps % _STEPS_AT_ONCE == 0:
                await turn()
            _, number, distributor = heapq.heappop(held)
            before = distributor.memory().total  # there may be more by now
            if give(distributor):
                after = distributor.memory().total
                excess -= before - after
                heapq.heappush(held, (-after, number, distributor))
        return excess


def _drop_shared(distributor: Distributor) -> bool:
    return distributor.log.drop_shared()


def _forget_oldest(distributor: Distributor) -> bool:
    return distributor.forget_oldest()


def _drop_unread(distributor: Distributor) -> bool:
    return distributor.drop_unread()
