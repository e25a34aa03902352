"""Checks one stream: every sequence must come exactly once and in order, as an event or inside a gap.

The check reads the encoded frames, as a client does, and uses none of the gateway's code that makes them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from mxgw.v1 import events_pb2 as e
from mxgw.v1.event_service_pb2 import StreamEventsResponse
from mxgw_core.events.frames import gap_frame
from mxgw_core.events.pieces import Chunk, Gap
from mxgw_core.events.subscriber import Output
from support.events import EPOCH

ItemKey = tuple[int, int]


@dataclass
class Account:
    """Checks the frames of one stream. Pass every frame to it; it raises AssertionError when a frame does not fit.

    `at` is the sequence up to which everything was delivered or lost. Set it to the position at which the stream
    begins.
    """

    at: int = 0
    events: dict[int, e.Event] = field(default_factory=dict)
    # Key: a lost sequence. Value: the reason of the gap that names it.
    lost: dict[int, int] = field(default_factory=dict)
    gaps: list[e.Gap] = field(default_factory=list)
    # The sequences inside a gap's range that are not lost and must still come as events.
    _owed: set[int] = field(default_factory=set)
    _last_event: int = 0
    _last_lost: int = 0

    def take(self, items: Iterable[Output]) -> None:
        """Check the chunks and gaps that a subscriber returned."""
        for item in items:
            if isinstance(item, Chunk):
                self.frame(StreamEventsResponse.FromString(item.frame))
            elif isinstance(item, Gap):
                self.frame(StreamEventsResponse.FromString(gap_frame(EPOCH, item)))

    def frame(self, message: StreamEventsResponse) -> None:
        """Check one frame."""
        if message.HasField("gap"):
            self._gap(message.gap)
        elif message.HasField("events"):
            self._batch(message.events.events)

    def _batch(self, events: Iterable[e.Event]) -> None:
        for event in events:
            sequence = event.sequence
            if self._owed:
                assert sequence in self._owed or sequence > self._last_lost, f"{sequence} came amid {self._owed}"
                assert sequence > self._last_event
            else:
                assert sequence == self.at + 1, f"{sequence} came after {self.at}"
            self.events[sequence] = event
            self._last_event = sequence
            self._owed.discard(sequence)
            self._advance()

    def _gap(self, gap: e.Gap) -> None:
        assert gap.epoch == EPOCH or gap.epoch
        assert not self._owed, f"a gap came before {self._owed}"
        assert gap.first_lost == self.at + 1, f"a gap from {gap.first_lost} came after {self.at}"
        assert gap.last_lost >= gap.first_lost
        self.gaps.append(gap)
        self._last_lost = gap.last_lost
        runs = list(gap.runs) or [gap.last_lost - gap.first_lost + 1]
        assert len(runs) % 2 == 1
        assert sum(runs) == gap.last_lost - gap.first_lost + 1
        if gap.runs:
            assert gap.count == sum(runs[::2])
        first = gap.first_lost
        for index, length in enumerate(runs):
            assert length > 0
            for sequence in range(first, first + length):
                if index % 2 == 0:
                    self.lost[sequence] = gap.reason
                else:
                    self._owed.add(sequence)
            first += length
        self._advance()

    def _advance(self) -> None:
        while self.at + 1 in self.events or self.at + 1 in self.lost:
            self.at += 1
            assert not (self.at in self.events and self.at in self.lost), f"{self.at} is lost and delivered"

    def lost_for(self, reason: int) -> set[int]:
        """Return all sequences that were lost for this reason."""
        return {sequence for sequence, why in self.lost.items() if why == reason}


@dataclass
class Produced:
    """What a worker produced. Key: a sequence. Value: its event, or None when the sequence has no event."""

    happened: dict[int, e.Event | None] = field(default_factory=dict)

    @property
    def head(self) -> int:
        return max(self.happened, default=0)

    @property
    def events(self) -> dict[int, e.Event]:
        return {sequence: event for sequence, event in self.happened.items() if event is not None}

    def newest(self, until: int) -> dict[ItemKey, int]:
        """Return the sequence of the newest data change of each item, up to the sequence `until`."""
        found: dict[ItemKey, int] = {}
        for sequence, event in self.events.items():
            if sequence <= until and event.kind == e.EVENT_KIND_DATA_CHANGE:
                found[event.server_handle, event.item_handle] = sequence
        return found

    def check(self, account: Account, after: int = 0) -> None:
        """Assert that the account fits what was produced after the sequence `after`.

        Every event that is not lost was delivered unchanged, and the count of every gap of a policy is right.
        """
        expected = {s: event for s, event in self.events.items() if after < s <= account.at and s not in account.lost}

        assert account.events == expected
        assert set(account.events) | set(account.lost) == set(range(after + 1, account.at + 1))

        for gap in account.gaps:
            if gap.reason in (e.GAP_REASON_QUEUE_DROPPED, e.GAP_REASON_CONFLATED):
                runs = list(gap.runs) or [gap.last_lost - gap.first_lost + 1]
                first, events = gap.first_lost, 0
                for index, length in enumerate(runs):
                    events += sum(s in self.events for s in range(first, first + length)) if index % 2 == 0 else 0
                    first += length

                assert gap.count == events, gap
