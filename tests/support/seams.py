"""A worker's outbox, the gateways that come and go over it, and a store that lags: one numbering, sans-io."""

from __future__ import annotations

import asyncio
import types
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Generator
from dataclasses import dataclass, field
from typing import Any

from mxgw.v1.events_pb2 import GAP_REASON_SOURCE_OVERFLOW
from mxgw.worker.v1.worker_pb2 import Hello, WorkerEnvelope
from mxgw_core.api.events import HistoryPage, Retention
from mxgw_core.events.distributor import Distributor
from mxgw_core.events.history import Store as CoreStore
from mxgw_core.testing.checker import Hole, Seen
from mxgw_core.workers.intake import Intake
from mxgw_worker.gateway_connection import block_frame
from mxgw_worker.ipc.framing import FrameDecoder, frame
from mxgw_worker.outbox import Block, Outbox
from support.events import EPOCH, Clock, batch

FRAME_BYTES = 1 << 20


@types.coroutine
def pause() -> Generator[None, None, None]:
    """Let others have their turn."""
    yield


class Step:
    """A coroutine that is driven by hand, from one pause to the next."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._coroutine = coroutine
        self.result: Any = None

    def go_on(self) -> bool:
        """Return whether it is done. What it raises is raised here."""
        try:
            self._coroutine.send(None)
        except StopIteration as done:
            self.result = done.value
            return True
        return False

    def cancel(self) -> None:
        """End it as a task that is cancelled ends, with all that it does on its way out.

        Its `close()` would not do: that of an async generator's step leaves the generator where it was.
        """
        try:
            self._coroutine.throw(asyncio.CancelledError())
            while not self.go_on():
                pass
        except (StopIteration, StopAsyncIteration, asyncio.CancelledError):
            pass


class Source:
    """The worker: numbers what happens, keeps it in a real outbox; the oracle of all checkers."""

    def __init__(self, outbox_events: int) -> None:
        self.outbox = Outbox(limit_events=outbox_events, limit_bytes=1 << 30, maximum_frame_bytes=FRAME_BYTES)
        self.outbox.epoch = EPOCH
        # By sequence: the item of an event, None where the source lost something.
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
    """The worker's link to one gateway: Hello, Welcome and frames, in the order in which both ends have them."""

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
        # Every event that this gateway was given.
        self.received: set[int] = set()

    @property
    def is_ready(self) -> bool:
        """Whether the gateway serves the session to clients."""
        return self.is_welcomed and self._intake.is_refilled

    def welcome(self) -> None:
        """The handshake ends; events that happened since the Hello are in the outbox."""
        resume_after = self._intake.resume_after(self._hello)
        self._intake.welcomed(self._hello)
        self._outbox.resume(resume_after)
        self.is_welcomed = True

    def send(self, maximum_bytes: int) -> None:
        """The worker writes one frame of what is to be sent."""
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
        """The gateway takes so many of the frames that are under way, in one turn."""
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
        """What the gateway has is said to be safe there."""
        self._outbox.acknowledge(self._distributor.log.head)

    def catch_up(self) -> None:
        """Everything that is to be sent arrives."""
        if not self.is_welcomed:
            self.welcome()
        while self._distributor.log.head < self._outbox.head_sequence:
            self.send(1 << 20)
            self.receive(1)


class GatewayRun:
    """One run of the gateway as far as it knows the session; `refills` when it is not the first."""

    def __init__(self, source: Source, clock: Clock, retention: Retention, *, refills: bool) -> None:
        self.distributor = Distributor(unattached=Retention(1_000_000, 1 << 30, 0.0), clock=clock)
        self.distributor.retain(retention)
        self.link = Connection(source, self.distributor, refills=refills)
        # As the model sees it: a store promised what comes behind, and nobody was given it since; -1 when none did.
        self.doubted_after = -1


@dataclass
class Store:
    """What a recorder committed. Fails, or pauses, where it is told to.

    Attributes:
        asked: what it had as it was last asked; `run`: what of it a resume may count on.
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
    """A store that is asked in the steps of the reader and in no task: `Step` has no event loop."""

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
