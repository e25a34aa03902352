"""Frames: whole, byte by byte, and from a peer that means harm."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxgw_worker.ipc.framing import FrameDecoder, FrameError, frame

payload_lists = st.lists(st.binary(min_size=1, max_size=200), max_size=8)


def pieces_of(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in pairwise(places)]


def test_frames_of_one_buffer_are_cut_in_one_call() -> None:
    decoder = FrameDecoder(100)

    assert decoder.feed(frame(b"one") + frame(b"two") + frame(b"three")) == [b"one", b"two", b"three"]


def test_frames_fed_byte_by_byte_come_out_the_same() -> None:
    decoder = FrameDecoder(100)
    stream = frame(b"one") + frame(b"x" * 100)
    frames = [payload for index in range(len(stream)) for payload in decoder.feed(stream[index : index + 1])]
    decoder.end()

    assert frames == [b"one", b"x" * 100]


@given(payloads=payload_lists, cuts=st.lists(st.integers(min_value=0), max_size=12))
def test_however_a_stream_is_chopped_the_frames_are_the_same(payloads: list[bytes], cuts: list[int]) -> None:
    decoder = FrameDecoder(200)
    stream = b"".join(frame(payload) for payload in payloads)
    frames = [payload for piece in pieces_of(stream, cuts) for payload in decoder.feed(memoryview(piece))]
    decoder.end()

    assert frames == payloads


def test_a_frame_needs_a_payload() -> None:
    with pytest.raises(FrameError, match="at least one byte"):
        frame(b"")


def test_a_length_of_zero_is_refused() -> None:
    with pytest.raises(FrameError, match="length 0"):
        FrameDecoder(100).feed(b"\0\0\0\0")


@pytest.mark.parametrize("piece", [1, 2, 3, 4])
def test_a_length_above_the_cap_is_refused_as_soon_as_it_is_known(piece: int) -> None:
    decoder = FrameDecoder(100)
    head = (101).to_bytes(4, "big")
    decoder.feed(head[: piece - 1])

    with pytest.raises(FrameError, match="101 bytes was announced, the limit is 100"):
        decoder.feed(head[piece - 1 :])


def test_a_frame_of_exactly_the_cap_is_taken() -> None:
    assert FrameDecoder(100).feed(frame(b"x" * 100)) == [b"x" * 100]


def test_after_an_error_everything_is_refused() -> None:
    decoder = FrameDecoder(100)
    with pytest.raises(FrameError):
        decoder.feed(b"\xff\xff\xff\xff")

    with pytest.raises(FrameError):
        decoder.feed(frame(b"good"))


@pytest.mark.parametrize("cut", [1, 3, 4, 6])
def test_an_end_inside_a_frame_is_an_error(cut: int) -> None:
    decoder = FrameDecoder(100)
    decoder.feed(frame(b"whole") + frame(b"half")[:cut])

    with pytest.raises(FrameError, match="inside a frame"):
        decoder.end()


def test_a_declared_length_allocates_nothing() -> None:
    decoder = FrameDecoder(1 << 30)
    tracemalloc.start()
    try:
        decoder.feed((1 << 30).to_bytes(4, "big") + b"little")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 64 * 1024


def test_a_large_frame_in_small_pieces_is_not_copied_again_and_again() -> None:
    piece = 1024
    decoder = FrameDecoder(1 << 24)
    stream = memoryview(frame(b"x" * (1 << 23)))
    tracemalloc.start()
    try:
        frames = [one for start in range(0, len(stream), piece) for one in decoder.feed(stream[start : start + piece])]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert len(frames) == 1
    # The frame, its growing buffer and the buffer's slack; a copy per piece would cost thousands of times more time.
    assert peak < 3.5 * len(stream)


@given(data=st.lists(st.binary(max_size=300), max_size=10))
def test_garbage_gives_frames_or_a_frame_error_and_nothing_else(data: list[bytes]) -> None:
    decoder = FrameDecoder(64)
    try:
        for piece in data:
            for payload in decoder.feed(piece):
                assert 0 < len(payload) <= 64
        decoder.end()
    except FrameError:
        pass
