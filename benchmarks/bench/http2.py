"""A gRPC client of one streaming call that only counts bytes, with the least of HTTP/2 that a server accepts.

It announces the windows and frame sizes that a gRPC client on a fast link announces after a while (4 MiB windows,
frames up to 1 MiB). It enlarges the window as it reads, answers pings, and divides the stream into messages by their
length prefix. In a message of events it reads the first sequence. It parses nothing else while it runs.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass, field

from bench.counting import StrideCounter, WrongStream
from bench.events import RECORD_BYTES, SEQUENCE, SEQUENCE_AT

WINDOW_BYTES = 4 * 1024 * 1024
FRAME_BYTES = 1024 * 1024
_GIVE_BACK_BYTES = WINDOW_BYTES // 4

_HEADER_BYTES = 9
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _ACK, _END_HEADERS, _PADDED = 1, 1, 4, 8
_STREAM = 1
_SETTING = struct.Struct(">HI")
_INITIAL_WINDOW, _MAX_FRAME = 4, 5
_LENGTH = struct.Struct(">I")
# The tag of StreamEventsResponse.events.
_EVENTS_TAG = 0x12
# So many bytes at the start of a message contain its first sequence: two tags, two lengths, the sequence and its tag.
_HEAD_BYTES = 24
# When events differ in size, one of so many messages is kept, and parsed after the run.
_SAMPLE_EVERY = 32


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + _LENGTH.pack(stream) + payload


def _text(value: bytes) -> bytes:
    assert len(value) < 127
    return bytes((len(value),)) + value


def _headers(path: str, metadata: dict[str, str]) -> bytes:
    """Return a block of HPACK headers without Huffman coding or indexing. Source: RFC 7541, static table."""
    block = b"\x83\x86\x04" + _text(path.encode()) + b"\x01" + _text(b"localhost")
    block += b"\x0f\x10" + _text(b"application/grpc") + b"\x00" + _text(b"te") + _text(b"trailers")
    for name, value in metadata.items():
        block += b"\x00" + _text(name.encode()) + _text(value.encode())
    return block


@dataclass(slots=True)
class Kept:
    """A message that was kept: the time at which it was complete, its bytes, and the first sequence of the next
    message.

    `next_sequence` is 0 when it is not known.
    """

    arrived_ns: int
    message: bytes
    next_sequence: int = 0


def first_record(message: bytes | bytearray) -> int:
    """Return the place of the first record in a StreamEventsResponse; 0 when the message has no events."""
    if message[0] != _EVENTS_TAG:
        return 0
    at = 1
    while message[at] & 0x80:
        at += 1
    return at + 1


def _sequence_at(message: bytes | bytearray, record: int) -> int:
    at = record + 1
    while message[at] & 0x80:
        at += 1
    return int(SEQUENCE.unpack_from(message, at + 2)[0])


@dataclass(slots=True)
class GrpcFeed:
    """Divides the bytes of one connection into messages and counts their events.

    With `stride` all records have the same size, so that every record is checked. With `keep_all` every message is
    kept, for runs with few messages. Otherwise only some of the messages are kept.
    """

    connection: socket.socket
    # The answers to settings and pings can wait until the end of the run. The window is enlarged long before it is used
    # up.
    answers = False
    stride: bool = False
    keep_all: bool = False
    arrived_ns: int = 0
    sequence: int = 0
    first_sequence: int = 0
    messages: int = 0
    events_bytes: int = 0
    kept: list[Kept] = field(default_factory=list)
    _counter: StrideCounter = field(default_factory=lambda: StrideCounter(RECORD_BYTES, SEQUENCE_AT))
    _partial: bytearray = field(default_factory=bytearray)
    _data_left: int = 0
    _control: tuple[int, int, int] | None = None
    _head: bytearray = field(default_factory=bytearray)
    _message_left: int = 0
    _keeping: bytearray | None = None
    _is_events: bool = False
    _unreturned: int = 0

    def start(self, path: str, request: bytes, metadata: dict[str, str]) -> None:
        """Open the only stream of the connection."""
        settings = _SETTING.pack(_INITIAL_WINDOW, WINDOW_BYTES) + _SETTING.pack(_MAX_FRAME, FRAME_BYTES)
        message = b"\x00" + _LENGTH.pack(len(request)) + request
        self.connection.sendall(
            _PREFACE
            + _frame(_SETTINGS, 0, 0, settings)
            + _frame(_WINDOW_UPDATE, 0, 0, _LENGTH.pack(WINDOW_BYTES - 65535))
            + _frame(_HEADERS, _END_HEADERS, _STREAM, _headers(path, metadata))
            + _frame(_DATA, _END_STREAM, _STREAM, message)
        )

    def feed(self, buffer: bytearray, start: int, end: int) -> None:
        """Process received bytes.

        Raises:
            WrongStream: the stream ended, a Gap came, or sequences are missing.
        """
        at = start
        while at < end:
            if self._data_left:
                until = min(end, at + self._data_left)
                self._data_left -= until - at
                self._body(buffer, at, until)
                at = until
                continue
            wanted = self._control[0] if self._control else _HEADER_BYTES
            until = min(end, at + wanted - len(self._partial))
            self._partial += buffer[at:until]
            at = until
            if len(self._partial) == wanted:
                self._frame_part()
        if self._unreturned >= _GIVE_BACK_BYTES:
            update = _LENGTH.pack(self._unreturned)
            self.connection.sendall(_frame(_WINDOW_UPDATE, 0, 0, update) + _frame(_WINDOW_UPDATE, 0, _STREAM, update))
            self._unreturned = 0

    def _frame_part(self) -> None:
        """Process a complete frame header, or the complete payload of a frame that is not DATA."""
        part, self._partial = bytes(self._partial), bytearray()
        if self._control is None:
            length, kind, flags = int.from_bytes(part[:3], "big"), part[3], part[4]
            if kind == _DATA:
                if flags & _PADDED:
                    raise WrongStream("padded frames are not understood")
                self._data_left = length
                self._unreturned += length
            elif length:
                self._control = (length, kind, flags)
            else:
                self._act(kind, flags, b"")
            return
        _, kind, flags = self._control
        self._control = None
        self._act(kind, flags, part)

    def _act(self, kind: int, flags: int, payload: bytes) -> None:
        if kind == _SETTINGS and not flags & _ACK:
            self.connection.sendall(_frame(_SETTINGS, _ACK, 0, b""))
        elif kind == _PING and not flags & _ACK:
            self.connection.sendall(_frame(_PING, _ACK, 0, payload))
        elif kind in (_RESET, _GOAWAY) or (kind == _HEADERS and flags & _END_STREAM):
            raise WrongStream(f"the stream ended: {payload!r}")

    def _body(self, buffer: bytearray, start: int, end: int) -> None:
        at = start
        while at < end:
            if not self._message_left:
                until = min(end, at + self._head_missing())
                self._head += buffer[at:until]
                at = until
                if not self._head_missing():
                    head, self._head = self._head, bytearray()
                    self._begin_message(head[5:], int(_LENGTH.unpack_from(head, 1)[0]))
                continue
            until = min(end, at + self._message_left)
            self._message_left -= until - at
            if self._is_events and self.stride:
                self._counter.feed(buffer, at, until)
            if self._keeping is not None:
                self._keeping += buffer[at:until]
            at = until
            if not self._message_left:
                self._end_message()

    def _head_missing(self) -> int:
        """Return how many bytes of the message's head have not come yet, as far as this is known."""
        have = len(self._head)
        return 5 - have if have < 5 else 5 + min(_LENGTH.unpack_from(self._head, 1)[0], _HEAD_BYTES) - have

    def _begin_message(self, head: bytearray, length: int) -> None:
        record = first_record(head)
        self._is_events = bool(record)
        self._keeping = None
        if record:
            sequence = _sequence_at(head, record)
            if self.kept and not self.kept[-1].next_sequence:
                self.kept[-1].next_sequence = sequence
            if sequence <= self.sequence and self.messages:
                raise WrongStream(f"event {sequence} came after {self.sequence}")
            self.first_sequence = self.first_sequence or sequence
            self.sequence = sequence
            self.messages += 1
            self.events_bytes += length
            if self.stride:
                self._counter.feed(head, record, len(head))
        if self.keep_all or not record or (not self.stride and self.messages % _SAMPLE_EVERY == 1):
            self._keeping = bytearray(head)
        self._message_left = length - len(head)
        if not self._message_left:
            self._end_message()

    def _end_message(self) -> None:
        if self._is_events and self.stride:
            self.sequence = self._counter.sequence
        if self._keeping is not None:
            self.kept.append(Kept(self.arrived_ns, bytes(self._keeping)))
            self._keeping = None
