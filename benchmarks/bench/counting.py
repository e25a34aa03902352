"""Counts events in the bytes of a stream without parsing them, and detects every lost, repeated or swapped event.

The work for each event is done in C, by slicing bytes with a step or by `bytes.count`. A wrong stream raises
`WrongStream`, because its figures would be worthless.
"""

from __future__ import annotations

from bench.events import BLOCK_EVENTS, MARKER, MARKER_AT, SEQUENCE, SEQUENCE_AT

_LOW_BYTES = bytes(range(256))


class WrongStream(Exception):
    """An event was lost, came twice, or came in the wrong order."""


class StrideCounter:
    """Counts events of one fixed size: the distance of two events is `stride` bytes, and a sequence begins at `offset`.

    The lowest byte of every sequence is compared with the expected one, and from time to time the whole sequence.
    `noise` are bytes that the server can send between two events without being asked; they are skipped.
    """

    answers = False

    def __init__(self, stride: int, offset: int, noise: bytes = b"") -> None:
        self.sequence = 0
        self._stride = stride
        self._offset = offset
        self._noise = noise
        # The number of bytes until the lowest byte of the next sequence.
        self._due = offset
        self._expected = _LOW_BYTES * (2 + (1 << 20) // stride // 256 + 1)

    def feed(self, buffer: bytearray, start: int, end: int) -> None:
        """Count the events in `buffer[start:end]`.

        Raises:
            WrongStream: the bytes are not those of the next events.
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
        """Return the place of noise near the begin or the end of this piece; -1 when there is none.

        Elsewhere noise shows because it shifts the low bytes of the sequences; here there are too few of them.
        """
        reach = self._stride + len(self._noise)
        at = buffer.find(self._noise, start, min(end, start + reach))
        return at if at >= 0 else buffer.find(self._noise, max(start, end - reach), end)

    def _skip(self, at: int, buffer: bytearray, start: int, end: int) -> None:
        self.feed(buffer, start, at)
        self.feed(buffer, at + len(self._noise), end)


class MarkerCounter:
    """Counts events of different sizes. Each event contains a marker once, and the markers are counted.

    The number of markers must agree with the sequence of the last event.
    """

    answers = False

    def __init__(self) -> None:
        self.sequence = 0
        # The bytes after the last marker that was counted.
        self.tail = b""

    def feed(self, buffer: bytearray, start: int, end: int) -> None:
        """Count the events in `buffer[start:end]`.

        Raises:
            WrongStream: the number of markers does not agree with the last sequence.
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
