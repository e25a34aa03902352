"""A stream whose events are held back by what plugins say of its reader's pace."""

from __future__ import annotations

from collections.abc import Sequence

from mxgw_core.api.events import StreamPace
from mxgw_core.events.items import Progress
from mxgw_core.events.log import Chunk, LogGap
from mxgw_core.events.subscriber import Subscriber

# Such a stream is sent pieces of about this size, a few dozen events, so that few go out at once.
PACED_BYTES = 4 * 1024
# It looks again this often, because it may end, or owe a heartbeat.
_LONGEST_HOLD_S = 0.25


class Pacing:
    """The slowest pace of all; without any, nothing is held back."""

    def __init__(self, paces: Sequence[StreamPace], subscriber: Subscriber) -> None:
        self._paces = paces
        self._subscriber = subscriber

    def __bool__(self) -> bool:
        return bool(self._paces)

    def held_s(self) -> float:
        """Return how long to hold events back now; 0 also for what is left when the stream ends."""
        if not self._paces or self._subscriber.end is not None:
            return 0.0
        return min(_LONGEST_HOLD_S, max(pace.wait_s() for pace in self._paces))

    def sent(self, item: Chunk | LogGap | Progress) -> None:
        """Count what went out."""
        if isinstance(item, Chunk):
            for pace in self._paces:
                pace.sent(item.events)
