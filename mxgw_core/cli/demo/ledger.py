"""What became of every sequence number: the demo's own judge of "no event lost in silence"."""

from __future__ import annotations


class SequenceLedger:
    """Follows the sequences of one stream and counts what should not be.

    It trusts neither gateway nor client library: a hole that no gap frame announced counts as a gap as well.
    """

    def __init__(self) -> None:
        self.events = 0
        self.duplicates = 0
        self.out_of_order = 0
        self.announced_gaps = 0
        self.silent_gaps = 0
        self._epoch = b""
        self._last = 0
        self._holes: list[tuple[int, int]] = []  # inclusive ranges below _last that did not arrive

    @property
    def gaps(self) -> int:
        """Announced and silent gaps together."""
        return self.announced_gaps + self.silent_gaps

    @property
    def last_sequence(self) -> int:
        return self._last

    def opened(self, epoch: bytes, from_sequence: int) -> None:
        """The stream starts: the next event is expected right after `from_sequence`."""
        if epoch != self._epoch:
            self._epoch, self._last, self._holes = epoch, from_sequence, []

    def event(self, sequence: int) -> None:
        """Count one event."""
        self.events += 1
        if sequence == self._last + 1:
            self._last = sequence
        elif sequence > self._last:
            self._holes.append((self._last + 1, sequence - 1))
            self.silent_gaps += 1
            self._last = sequence
        elif self._take_from_hole(sequence):
            self.out_of_order += 1
        else:
            self.duplicates += 1

    def gap(self, last_lost: int) -> None:
        """Count an announced gap; the next event is expected after `last_lost` (0: unknown)."""
        self.announced_gaps += 1
        self._last = max(self._last, last_lost)

    def _take_from_hole(self, sequence: int) -> bool:
        for index, (first, last) in enumerate(self._holes):
            if first <= sequence <= last:
                rest = [(first, sequence - 1), (sequence + 1, last)]
                self._holes[index : index + 1] = [(low, high) for low, high in rest if low <= high]
                return True
        return False
