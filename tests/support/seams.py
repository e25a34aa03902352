"""A worker's outbox, the gateways that connect to it one after another, and a history store that is behind the events.

All of this is one numbering of events. It runs without sockets, tasks and timers, step by step as a test decides.
"""

from __future__ import annotations

import asyncio
import types
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Generator
from dataclasses import dataclass, field
from typing import Any

from mxgw.v1.events_pb2 import GAP_REASON_RING_EVICTED, GAP_REASON_SOURCE_OVERFLOW
from mxgw.worker.v1.worker_pb2 import Hello, WorkerEnvelope
from mxgw_core.api.events import HistoryPage, Retention
from mxgw_core.api.types import Position
from mxgw_core.events.distributor import Distributor
from mxgw_core.events.history import BrokenPromises, Older, find_older
from mxgw_core.events.history import Store as CoreStore
from mxgw_core.events.log import EventLog
from mxgw_core.events.pieces import Gap, Piece
from mxgw_core.testing.checker import Hole, Seen
from mxgw_core.workers.intake import Intake
from mxgw_worker.gateway_connection import block_frame
from mxgw_worker.ipc.framing import FrameDecoder, frame
from mxgw_worker.outbox import Block, Outbox
from support.events import EPOCH, Clock, batch

FRAME_BYTES = 1 << 20


@types.coroutine
def pause() -> Generator[None, None, None]:
    """Wait until the test lets this coroutine go on."""
    yield


class Step:
    """A coroutine that a test runs by hand, from one `pause` to the next."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._coroutine = coroutine
        self.result: Any = None

    def go_on(self) -> bool:
        """Run the coroutine to its next pause. Return True when it has ended. Its exception is raised here."""
        try:
            self._coroutine.send(None)
        except StopIteration as done:
            self.result = done.value
            return True
        return False

    def cancel(self) -> None:
        """Cancel the coroutine as a task would be cancelled, and run it to its end.

        `close()` of the coroutine is not enough: when it is a step of an async generator, the generator would stay
        where it was.
        """
        try:
            self._coroutine.throw(asyncio.CancelledError())
            while not self.go_on():
                pass
        except (StopIteration, StopAsyncIteration, asyncio.CancelledError):
            pass


class Source:
    """The worker. It numbers events and keeps them in a real outbox, and it tells the checkers what it produced."""

    def __init__(self, outbox_events: int) -> None:
        self.outbox = Outbox(limit_events=outbox_events, limit_bytes=1 << 30, maximum_frame_bytes=FRAME_BYTES)
        self.outbox.epoch = EPOCH
        # Key: a sequence. Value: the item of the event; None when the source lost events there.
        self.made: dict[int, int | None] = {}

    @property
    def head(self) -> int:
        return self.outbox.head_sequence

    def event(self, item: int, text: str) -> None:
        self.outbox.append(batch([self.head + 1], item_handle=item, text=text))
        self.made[self.head] = item

    def gap(self) -> None:
        self.outbox.append_gap(GAP_REASON_SOURCE_OVERFLOW, "the source lost something", 0)
        self.made[self.head] = None

    def produced(self, epoch: bytes, sequence: int) -> Seen | Hole | None:
        if epoch != EPOCH or sequence not in self.made:
            return None
        item = self.made[sequence]
        return Hole.HOLE if item is None else Seen(sequence, (1, item))


class Connection:
    """The connection of the worker to one gateway. Both ends get Hello, Welcome and frames in the same order."""

    def __init__(self, source: Source, distributor: Distributor, *, refills: bool) -> None:
        self._outbox = source.outbox
        self._intake = Intake(distributor, refills=refills)
        self._distributor = distributor
        self._hello = Hello(
            epoch=EPOCH, head_sequence=self._outbox.head_sequence, outbox_oldest=self._outbox.oldest_sequence
        )
        self._wire: deque[bytes] = deque()
        self._decoder = FrameDecoder(FRAME_BYTES)
        self.is_welcomed = False
        # The sequences of all events that this gateway has received.
        self.received: set[int] = set()

    @property
    def is_ready(self) -> bool:
        """True when the gateway serves the session to clients."""
        return self.is_welcomed and self._intake.is_refilled

    def welcome(self) -> None:
        """End the handshake. Events that happened after the Hello wait in the outbox."""
        resume_after = self._intake.resume_after(self._hello)
        self._intake.welcomed(self._hello)
        self._outbox.resume(resume_after)
        self.is_welcomed = True

    def send(self, maximum_bytes: int) -> None:
        """Let the worker write its next frame to the connection."""
        if not self.is_welcomed:
            return
        match self._outbox.take(maximum_bytes):
            case None:
                pass
            case Block() as block:
                self._wire.append(block_frame(block))
            case gap:
                self._wire.append(frame(WorkerEnvelope(gap=gap).SerializeToString()))

    def receive(self, frames: int) -> None:
        """Let the gateway read so many frames at once."""
        data = b"".join(self._wire.popleft() for _ in range(min(frames, len(self._wire))))
        for payload in self._decoder.feed(data):
            envelope = WorkerEnvelope.FromString(payload)
            if envelope.WhichOneof("body") == "gap":
                self._intake.gap(envelope.gap)
            else:
                self._intake.events(envelope.events)
                self.received.update(range(envelope.events.first_sequence, envelope.events.last_sequence + 1))
        if data:
            self._distributor.flush()

    def acknowledge(self) -> None:
        """Acknowledge to the worker everything that the gateway has in its log."""
        self._outbox.acknowledge(self._distributor.log.head)

    def catch_up(self) -> None:
        """Send and receive until the gateway has all events."""
        if not self.is_welcomed:
            self.welcome()
        while self._distributor.log.head < self._outbox.head_sequence:
            self.send(1 << 20)
            self.receive(1)


class GatewayRun:
    """One run of the gateway, limited to what concerns the session. `refills` is True when it is not the first run."""

    def __init__(self, source: Source, clock: Clock, retention: Retention, *, refills: bool) -> None:
        self.distributor = Distributor(unattached=Retention(1_000_000, 1 << 30, 0.0), clock=clock)
        self.distributor.retain(retention)
        self.connection = Connection(source, self.distributor, refills=refills)
        # The model's record of doubt: a store promised the events after this sequence, and no reader has got them
        # since; -1 when there is no such promise.
        self.doubted_after = -1


@dataclass
class Store:
    """The history store, with the events that a recorder has committed. It fails, or pauses, where a test wants this.

    Attributes:
        asked: the sequences that the store had when it was last asked for its span.
        run: the newest of them without a hole, on which a resume can rely.
    """

    events: dict[int, int] = field(default_factory=dict)
    fails_when_asked: bool = False
    fails_after_pages: int | None = None
    page_events: int = 3
    asked: set[int] = field(default_factory=set)
    run: set[int] = field(default_factory=set)

    async def span(self, epoch: bytes) -> tuple[int, int] | None:
        await pause()
        if self.fails_when_asked:
            raise OSError("the disk is gone")
        held = sorted(self.events)
        self.asked = set(held)
        while held and held[-1] - held[0] >= len(held):
            held.pop(0)
        self.run = set(held)
        await pause()
        return (held[0], held[-1]) if held else None

    async def read(self, epoch: bytes, after: int, until: int) -> AsyncIterator[HistoryPage]:
        pages = 0
        while True:
            await pause()
            if pages == self.fails_after_pages:
                raise OSError("the disk is gone")
            run = [s for s in sorted(self.events) if after < s <= until][: self.page_events]
            while run and run[-1] - run[0] >= len(run):
                run.pop()
            if not run:
                return
            after = run[-1]
            pages += 1
            records = b"".join(batch([s], item_handle=self.events[s]) for s in run)
            yield HistoryPage(run[0], run[-1], records)


class Stepped(CoreStore):
    """A store that is called in the steps of a reader and not in tasks, because `Step` has no event loop."""

    async def span(self, epoch: bytes) -> tuple[int, int] | None:
        return await self.history.span(epoch)

    async def read(
        self,
        epoch: bytes,
        after: int,
        until: int,
        is_ending: Callable[[], bool],
    ) -> AsyncGenerator[HistoryPage | None, None]:
        async for page in self.history.read(epoch, after, until):
            yield page


def stepped(store: Store | None) -> Stepped | None:
    return None if store is None else Stepped(store, "a test", page_s=1, last_page_s=1)


async def failed_to_say(store: CoreStore) -> bool:
    """Ask a store which events it has behind event 3. Return whether it is taken for a store that has failed."""
    log = EventLog(Clock())
    log.start_after(9)
    older = await find_older(lambda: store, log, EPOCH, Position(EPOCH, 3), BrokenPromises())
    return older is not None and older.has_failed and older.reach == 3


def read_from(store: CoreStore, after: int, until: int, **options: Any) -> AsyncGenerator[Piece, None]:
    """Read the events of a store with `after < sequence <= until`."""
    older = Older(store, until, BrokenPromises())
    return older.in_place_of(Gap(after + 1, until, GAP_REASON_RING_EVICTED), EPOCH, **options)
