"""Frames between gateway and worker: a 4-byte big-endian length, and then that number of bytes. This module does no
I/O.
"""

from __future__ import annotations

from struct import Struct

_LENGTH = Struct(">I")
HEADER_BYTES = _LENGTH.size


class FrameError(Exception):
    """The bytes of the peer are not frames within the limits. Nothing after them can be trusted, so the connection must
    be cut.
    """


def frame(*parts: bytes) -> bytes:
    """Return a frame with the parts as its payload. Each part is copied once.

    Only an empty payload is refused here. The sender has to know the size limit of the receiver.

    Raises:
        FrameError: the payload is empty.
    """
    size = sum(map(len, parts))
    if not size:
        raise FrameError("a frame holds at least one byte")
    return b"".join((_LENGTH.pack(size), *parts))


class FrameDecoder:
    """Cuts a stream of bytes into frames. The bytes can arrive in pieces of any size.

    All complete frames of a buffer are cut in one call, and every byte is copied at most twice, so the cost is linear
    in the number of bytes. Memory is used for bytes that have arrived, but never for a length that a peer has only
    declared.
    """

    def __init__(self, maximum_bytes: int) -> None:
        self._maximum_bytes = maximum_bytes
        # The start of a frame that is not complete yet, including its length.
        self._partial = bytearray()
        # The size of `_partial` when its frame is complete; 0 while the length of the frame is not known.
        self._wanted_bytes = 0
        self._error: str | None = None

    def feed(self, data: bytes | bytearray | memoryview) -> list[bytes]:
        """Return the payloads that `data` completes, in order.

        Raises:
            FrameError: a declared length is 0 or above the limit; the decoder then refuses everything that follows.
        """
        if self._error is not None:
            raise FrameError(self._error)
        view = memoryview(data)
        size = len(view)
        frames: list[bytes] = []
        offset = self._complete_partial(view, frames) if self._partial else 0
        while size - offset >= HEADER_BYTES:
            start = offset + HEADER_BYTES
            end = start + self._checked_length(view, offset)
            if end > size:
                self._wanted_bytes = end - offset
                break
            frames.append(bytes(view[start:end]))
            offset = end
        if offset < size:
            self._partial += view[offset:]
        return frames

    def end(self) -> None:
        """Handle the end of the stream.

        Raises:
            FrameError: the stream ended inside a frame.
        """
        if self._partial and self._error is None:
            wanted = f"{self._wanted_bytes - HEADER_BYTES} payload bytes" if self._wanted_bytes else "its length"
            raise FrameError(f"the stream ended inside a frame: {len(self._partial)} bytes came, with {wanted} awaited")

    def _complete_partial(self, view: memoryview, frames: list[bytes]) -> int:
        """Move bytes of `view` into the unfinished frame, and return the number of these bytes."""
        partial = self._partial
        taken = 0
        if not self._wanted_bytes:
            taken = min(HEADER_BYTES - len(partial), len(view))
            partial += view[:taken]
            if len(partial) < HEADER_BYTES:
                return taken
            self._wanted_bytes = HEADER_BYTES + self._checked_length(partial, 0)
        rest = min(self._wanted_bytes - len(partial), len(view) - taken)
        partial += view[taken : taken + rest]
        if len(partial) == self._wanted_bytes:
            with memoryview(partial) as whole:
                frames.append(bytes(whole[HEADER_BYTES:]))
            self._partial = bytearray()
            self._wanted_bytes = 0
        return taken + rest

    def _checked_length(self, data: memoryview | bytearray, offset: int) -> int:
        (length,) = _LENGTH.unpack_from(data, offset)
        if 0 < length <= self._maximum_bytes:
            return int(length)
        if length == 0:
            self._error = "a frame of length 0 was announced; the peer does not speak this protocol"
        else:
            self._error = (
                f"a frame of {length} bytes was announced, the limit is {self._maximum_bytes}; "
                "raise workers.frame_bytes, or the peer does not speak this protocol"
            )
        self._partial = bytearray()
        raise FrameError(self._error)
