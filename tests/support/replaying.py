"""A gateway with the plugins replay and backpressure, a session under load, and streams that a relay cuts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from mxgw_client import EventBatch, EventStream, Session, errors
from mxgw_core.testing.checker import Lost, RoundRobin, StreamChecker
from mxgw_worker.backends.sim.profiles.load import expected_value
from support.proxy import FaultProxy
from support.recording import Recorder, double_of
from support.waiting import until

ITEMS = 50
# A follower is cut again only when its lag is smaller than this. With a larger lag the log could lose its events.
_BEHIND_EVENTS = 20_000


def replay_settings(rate: int = 5_000, **overrides: object) -> dict[str, object]:
    """Return settings of a gateway under load that retains many events.

    Keys of `overrides` have `__` in place of dots.
    """
    return {
        "plugins.enabled": ["backpressure", "replay"],
        # A half-open connection counts as a subscriber until the gateway notices that it is dead.
        "plugins.backpressure.maximum_subscribers": 64,
        "plugins.replay.events": 200_000,
        "plugins.replay.bytes": 64 * 1024 * 1024,
        "backends.load.kind": "sim",
        "backends.load.profile": "load",
        "backends.load.rate": rate,
        "backends.load.items": ITEMS,
        "backends.default": "load",
        **{key.replace("__", "."): value for key, value in overrides.items()},
    }


async def subscribe_load(session: Session, items: int = ITEMS) -> RoundRobin:
    """Advise the items in one call, and return an object that knows all events that must come."""
    outcomes = await session.subscribe_bulk([f"Load.Item{number:05d}" for number in range(1, items + 1)])
    handles = [(outcome.item.server_handle, outcome.item.handle) for outcome in outcomes if outcome.item]
    epoch = (await session.state()).position.epoch
    return RoundRobin(epoch, handles, lambda index, count: expected_value(index + 1, count))


@dataclass(eq=False)
class Follower:
    """One application that follows a stream, and the checker of this stream."""

    stream: EventStream
    checker: StreamChecker
    recorder: Recorder = field(init=False)

    def __post_init__(self) -> None:
        self.recorder = Recorder(self.checker, double_of)

    @property
    def at(self) -> int:
        """The sequence up to which every event was delivered or named in a gap."""
        return self.checker.position.sequence if self.checker.position is not None else 0

    async def run(self, until: Callable[[], bool]) -> None:
        """Read frames until `until` returns True. It is called after each batch."""
        self.recorder.begin()
        reason = "CLIENT"
        try:
            async for frame in self.stream.batches():
                self.recorder.frame(frame)
                if isinstance(frame, EventBatch) and until():
                    break
        except errors.MxgwClientError as error:
            reason = error.reason or type(error).__name__
            raise
        finally:
            self.recorder.end(reason)
            await self.stream.close()


def follower(oracle: RoundRobin, stream: EventStream, may_lose: Callable[[Lost], bool] | None = None) -> Follower:
    return Follower(stream, StreamChecker(oracle, may_lose=may_lose))


FAULTS: Sequence[Callable[[FaultProxy], int]] = (
    lambda proxy: proxy.reset(),
    lambda proxy: proxy.cut_inside_a_message(3_001),
    lambda proxy: proxy.close_slowly(0.1),
    lambda proxy: proxy.half_open(),
)


async def cut_again_and_again(
    proxy: FaultProxy,
    follower: Follower,
    cuts: int,
    faults: Sequence[Callable[[FaultProxy], int]] = FAULTS,
) -> None:
    """Cut the connection of the follower `cuts` times, each time when its stream is open again.

    Return when the stream is open again after the last cut.
    """

    def is_back(after: int) -> bool:
        opened, at = follower.stream.opened, follower.checker.position
        if opened is None or at is None or follower.stream.is_cut or len(follower.recorder.cuts) < after:
            return False
        return at.sequence >= opened.head_sequence - _BEHIND_EVENTS

    expected = 0
    for number in range(cuts):
        await until(lambda: is_back(expected) and proxy.connections, 60)  # noqa: B023 - asked before it changes
        expected = len(follower.recorder.cuts) + 1
        # Let some events pass between two cuts, each time another number of them.
        await asyncio.sleep(0.02 + 0.013 * (number % 7))
        faults[number % len(faults)](proxy)
    await until(lambda: is_back(expected), 60)
