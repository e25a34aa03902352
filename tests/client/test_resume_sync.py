"""Streams without `await` come back too. Their position is that of the last event handed out, not of its batch."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.background import Run, in_background
from support.proxy import FaultProxy, fault_proxy

from mxgw_client import (
    DataChange,
    EventBatch,
    Gap,
    Position,
    StreamCut,
    StreamOpened,
    errors,
    read_position_file,
    sync,
)

TAGS = [f"Load.Item{number:05d}" for number in range(1, 21)]


class ThreadedProxy:
    """A fault proxy whose event loop runs in a thread."""

    def __init__(self, proxy: FaultProxy, run: Run) -> None:
        self.target = proxy.target
        self._proxy = proxy
        self._run = run

    def reset(self) -> int:
        async def reset() -> int:
            return self._proxy.reset()

        return self._run(reset())


@contextmanager
def proxied(upstream: str) -> Iterator[ThreadedProxy]:
    with in_background(lambda: fault_proxy(upstream)) as (proxy, run):
        yield ThreadedProxy(proxy, run)


def test_a_plain_loop_goes_on_over_cuts_and_misses_nothing(replaying_gateway_process: str) -> None:
    with (
        proxied(replaying_gateway_process) as proxy,
        sync.connect(proxy.target) as gateway,
        gateway.open_session() as session,
    ):
        session.subscribe_bulk(TAGS)
        sequences: list[int] = []
        others: list[object] = []
        for item in session.events():
            if isinstance(item, DataChange):
                sequences.append(item.sequence)
                if len(sequences) % 400 == 0:
                    proxy.reset()
                if len(sequences) == 2_000:
                    break
            else:
                others.append(type(item))

        assert sequences == list(range(1, 2_001))
        assert others[:3] == [StreamOpened, StreamCut, StreamOpened]
        assert others.count(StreamCut) == others.count(StreamOpened) - 1 >= 3
        assert Gap not in others


def test_batches_go_on_over_cuts_and_miss_nothing(replaying_gateway_process: str) -> None:
    with (
        proxied(replaying_gateway_process) as proxy,
        sync.connect(proxy.target) as gateway,
        gateway.open_session() as session,
    ):
        session.subscribe_bulk(TAGS)
        events = session.events()
        sequences: list[int] = []
        cuts = 0
        for frame in events.batches():
            if isinstance(frame, StreamCut):
                cuts += 1
                assert events.is_cut
            if isinstance(frame, EventBatch):
                if len(sequences) > 500 > 500 - len(frame) and not cuts:
                    proxy.reset()
                sequences += [event.sequence for event in frame]
            if cuts and len(sequences) > 1_000 and not events.is_cut:
                break
        events.close()

        assert sequences == list(range(1, len(sequences) + 1))


def test_it_can_be_switched_off(replaying_gateway_process: str) -> None:
    with (
        proxied(replaying_gateway_process) as proxy,
        sync.connect(proxy.target) as gateway,
        gateway.open_session() as session,
    ):
        events = session.events(resume=None)
        next(events)
        proxy.reset()
        with pytest.raises(errors.ConnectionLost):
            events.next(10)


def test_the_file_has_the_place_of_the_application_inside_a_batch(
    replaying_gateway_process: str, tmp_path: Path
) -> None:
    path = tmp_path / "place"
    with sync.connect(replaying_gateway_process) as gateway, gateway.open_session(keep=True) as session:
        session.subscribe_bulk(TAGS)
        deadline = time.monotonic() + 60
        while session.info().head.sequence < 200:  # so that the first batch is a long one
            assert time.monotonic() < deadline
        seen: list[int] = []
        for item in session.events(position_file=path, position_interval_s=0):
            if isinstance(item, DataChange):
                seen.append(item.sequence)
                before = read_position_file(path)
                assert before is not None
                assert before.position.sequence == item.sequence - 1
            if len(seen) == 25:
                break
        # The stream was dropped, not closed. The events before the last one count as processed: the next was asked for.
        stored = read_position_file(path)

        assert stored is not None
        assert stored.session_id == session.session_id
        assert stored.position.sequence == 24
    with sync.connect(replaying_gateway_process) as gateway:
        with gateway.attach_session(stored.session_id) as session:
            with session.events(position_file=path) as events:
                assert events.position == stored.position
                for item in events:
                    if isinstance(item, DataChange):
                        assert item.sequence == 25
                        break
            done = read_position_file(path)

            assert done is not None
            assert done.position == Position(stored.position.epoch, 25)
        gateway.close_session(stored.session_id)


def test_an_application_that_fails_is_handed_its_last_item_again(
    replaying_gateway_process: str, tmp_path: Path
) -> None:
    path = tmp_path / "place"
    with sync.connect(replaying_gateway_process) as gateway, gateway.open_session() as session:
        session.subscribe_bulk(TAGS)

        def fail() -> None:
            with session.events(position_file=path, position_interval_s=3600) as events:
                for item in events:
                    if isinstance(item, DataChange) and item.sequence == 7:
                        raise LookupError

        with pytest.raises(LookupError):
            fail()
        stored = read_position_file(path)

        assert stored is not None
        assert stored.position.sequence == 6
