"""Converts what the client library returns into observations for the stream checker."""

from __future__ import annotations

from collections.abc import Hashable, Iterator

from mxgw.v1.events_pb2 import Event
from mxgw_client import (
    EventBatch,
    Gap,
    Heartbeat,
    Progress,
    Snapshot,
    SnapshotEnd,
    StreamCut,
    StreamOpened,
)
from mxgw_client.frames import Frame
from mxgw_core.api.types import Position
from mxgw_core.testing.checker import (
    Content,
    Lost,
    Observation,
    Opened,
    Passed,
    Seen,
    SnapshotDone,
    SnapshotPart,
    StreamChecker,
    seen,
    value_of,
)


def double_of(event: Event) -> Hashable:
    """Return the value of an event of the simulator's profile `load`."""
    return event.data_change.value.double


def observations(frame: Frame, content: Content = value_of) -> Iterator[Observation]:
    """Yield the observations that a frame of `EventStream.batches` contains."""
    match frame:
        case EventBatch():
            yield from seen(frame.raw, content)
        case StreamOpened(position=at):
            yield Opened(
                at.epoch,
                at.sequence,
                frame.head_sequence,
                frame.oldest_sequence,
                frame.was_resuming,
                frame.recovered,
            )
        case Gap():
            yield Lost(frame.epoch, frame.first_lost, frame.last_lost, frame.reason.name, frame.count, frame.runs)
        case Progress(position=at) | Heartbeat(position=at):
            yield Passed(at.epoch, at.sequence)
        case Snapshot(position=at):
            values = [Seen(i.sequence, (i.server_handle, i.item_handle), i.value) for i in frame.items]
            yield SnapshotPart(at.epoch, at.sequence, tuple(values))
        case SnapshotEnd(position=at):
            yield SnapshotDone(at.epoch, at.sequence)


class Recorder:
    """Passes the frames of one `EventStream`, which resumes by itself, to a checker."""

    def __init__(self, checker: StreamChecker, content: Content = value_of) -> None:
        self.checker = checker
        self._content = content
        self.cuts: list[StreamCut] = []
        self.snapshots: list[Snapshot] = []

    def begin(self, start: Position | None = None) -> None:
        """Tell the checker that the application opens the stream."""
        self.checker.attach(start)

    def frame(self, frame: Frame) -> None:
        """Pass a frame to the checker. A StreamCut ends the stream for the checker, and begins another one after it."""
        if isinstance(frame, StreamCut):
            self.cuts.append(frame)
            self.checker.end(frame.error.reason or type(frame.error).__name__)
            at = frame.position
            self.checker.attach(None if at is None else Position(at.epoch, at.sequence))
            return
        if isinstance(frame, Snapshot):
            self.snapshots.append(frame)
        for observation in observations(frame, self._content):
            self.checker.observe(observation)

    def end(self, reason: str) -> None:
        """Tell the checker that the stream has ended."""
        self.checker.end(reason)
