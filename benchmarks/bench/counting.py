"""Counting events in the bytes of a stream without parsing them, and noticing every lost, repeated or swapped one.

What runs per event runs in C: `bytes` slicing with a step, or `bytes.count`. A wrong stream raises `WrongStream`,
because its figure would mean nothing.
"""

from __future__ import annotations

from bench.events import BLOCK_EVENTS, MARKER, MARKER_AT, SEQUENCE, SEQUENCE_AT

_LOW_BYTES = bytes(range(256))


class WrongStream(Exception):
    """An event was lost, came twice, or came in another order."""


class StrideCounter:
    """Events of one fixed size, `stride` bytes apart, the sequence `offset` bytes behind the start of each.

    The low byte of every sequence is compared with what is due, and now and then the whole of it.
    `noise` is what a server may put between two events unasked; it is skipped.
    """

    answers = False

    def __init__(self, stride: int, offset: int, noise: bytes = b"") -> None:
        self.sequence = 0
        self._stride = stride
        self._offset = offset
        self._noise = noise
        # Bytes until the next low byte.
        self._due = offset
        self._expected = _LOW_BYTES * (2 + (1 << 20) // stride // 256 + 1)

    def feed(self, buffer: bytearray, start: int, end: int) -> None:
        """Count what is in `buffer[start:end]`.

        Raises:
            WrongStream: it is not what follows.
        """
        if self._noise and (at := self._noise_near_an_end(buffer, start, end)) >= 0:
            self._skip(at, buffer, start, end)
            return
        first = start + self._due
        if first >= end:
            self._due = first - end
            return
        low = buffer[first : end : self._stride]
        count = len(low)
        due = (self.sequence + 1) & 0xFF
        if low != self._expected[due : due + count]:
            at = buffer.find(self._noise, start, end) if self._noise else -1
            if at < 0:
                raise WrongStream(f"events {self.sequence + 1} to {self.sequence + count} are not all there in order")
            self._skip(at, buffer, start, end)
            return
        self.sequence += count
        last = first + (count - 1) * self._stride
        self._due = last + self._stride - end
        if last + 8 <= end and SEQUENCE.unpack_from(buffer, last)[0] != self.sequence:
            raise WrongStream(f"event {SEQUENCE.unpack_from(buffer, last)[0]} came where {self.sequence} was due")

    def _noise_near_an_end(self, buffer: bytearray, start: int, end: int) -> int:
        """Return the place of noise that the low bytes of this piece do not show; -1 when there is none."""
        reach = self._stride + len(self._noise)
        at = buffer.find(self._noise, start, min(end, start + reach))
        return at if at >= 0 else buffer.find(self._noise, max(start, end - reach), end)

    def _skip(self, at: int, buffer: bytearray, start: int, end: int) -> None:
        self.feed(buffer, start, at)
        self.feed(buffer, at + len(self._noise), end)


class MarkerCounter:
    """Events of varying size: their markers are counted, and the last one's sequence must agree with the count."""

    answers = False

    def __init__(self) -> None:
        self.sequence = 0
        # What follows the last marker that was counted.
        self.tail = b""

    def feed(self, buffer: bytearray, start: int, end: int) -> None:
        """Count what is in `buffer[start:end]`.

        Raises:
            WrongStream: more or fewer events than the last sequence says.
        """
        data = self.tail + buffer[start:end]
        count = data.count(MARKER)
        if not count:
            self.tail = data
            return
        at = data.rfind(MARKER)
        self.sequence += count
        (sequence,) = SEQUENCE.unpack_from(data, at - MARKER_AT + SEQUENCE_AT)
        if sequence != self.sequence:
            raise WrongStream(f"event {sequence} came where {self.sequence} was due")
        self.before_tail = data[:at]
        self.tail = data[at + len(MARKER) :]


assert len(_LOW_BYTES) == BLOCK_EVENTS
