"""The event stream and the alarm stream as iterators, without `await`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from mxgw_client import streams as asynchronous
from mxgw_client.alarms import AlarmItem
from mxgw_client.events import Event, EventBatch
from mxgw_client.frames import Frame, StreamItem, StreamOpened
from mxgw_client.position import Position
from mxgw_client.position_file import PositionFile
from mxgw_client.sync._loop import LoopThread, Waiter


class EventStream(Iterator[StreamItem]):
    """Events and control frames of one session, in order; see `mxgw_client.EventStream`.

    Only one thread at a time is allowed to read. The stream reads at most one batch more than the application has
    asked for, so that the gateway soon notices when the application stops reading. Ctrl-C while the stream waits loses
    no events: iterate again, or resume after `position`.
    """

    def __init__(
        self, loop: LoopThread, stream: asynchronous.EventStream, position_file: PositionFile | None = None
    ) -> None:
        self._loop = loop
        self._stream = stream
        self._frames = Waiter(loop, stream.next_batch)
        self._file = position_file
        if position_file is not None:
            position_file.close_when_dropped(self)
        self._batch: EventBatch | None = None
        # The events of the present batch that the application has not got yet.
        self._views: Iterator[Event] = iter(())
        self._last_event: Event | None = None
        self._position: Position | None = stream.position
        self._snapshot_owed = stream.snapshot_owed

    @property
    def opened(self) -> StreamOpened | None:
        """The newest StreamOpened, also while the stream is cut; None before the first one."""
        return self._stream.opened

    @property
    def is_cut(self) -> bool:
        """True while the stream is cut and not yet open again; the last values are perhaps out of date."""
        return self._stream.is_cut

    @property
    def position(self) -> Position | None:
        """The position of the last event or control frame that the application got.

        It is None when the application got nothing yet and `start` names no position. It moves as soon as an event is
        returned, so store it only after the event is processed.
        """
        return self._position if self._last_event is None else self._last_event.position

    def _note(self) -> None:
        """Store the position in the position file. This is called when the application asks for the next event or
        frame, which shows that it has processed everything before.
        """
        if self._file is not None:
            self._file.note(self.position, snapshot_owed=self._snapshot_owed)

    def __next__(self) -> StreamItem:
        return self.next()

    def next(self, timeout_s: float | None = None) -> StreamItem:
        """Return the next event or control frame. Wait at most `timeout_s` seconds, or without limit when it is None.

        Raises:
            TimeoutError: nothing came in this time. Nothing is lost, and `next` can be called again.
            StopIteration: the application closed the stream.
            MxgwClientError: the stream ended for another reason; in most cases a StreamEnded.
        """
        self._note()
        for event in self._views:
            self._last_event = event
            return event
        frame = self._frames.next(timeout_s)
        if not isinstance(frame, EventBatch):
            self._move()
            return frame
        self._batch, self._views = frame, iter(frame)
        event = self._last_event = next(self._views)
        return event

    def batches(self) -> Iterator[Frame]:
        """Iterate over batches of events and control frames.

        `position` moves to the last event of a batch as soon as the batch is returned.
        """
        self._note()
        batch, last = self._batch, self._last_event
        self._batch, self._views = None, iter(())
        if batch is not None and last is not None and last.sequence < batch.last_sequence:
            self._move()
            yield batch.after(last.sequence)
        while True:
            self._note()
            try:
                frame = self._frames.next(None)
            except StopIteration:
                return
            self._move()
            yield frame

    def _move(self) -> None:
        """Copy the position of the asynchronous stream, which is the position of the last event that it returned."""
        self._last_event, self._position = None, self._stream.position
        self._snapshot_owed = self._stream.snapshot_owed

    def close(self) -> None:
        """End the stream; idempotent.

        Raises:
            PositionFileError: the last position could not be written to the position file.
        """
        self._close(is_done=True)

    def _close(self, *, is_done: bool) -> None:
        """End the stream. `is_done` says whether the application has processed the last event that it got.

        If it has not, the position of that event is not stored in the position file.
        """
        file, self._file = self._file, None
        position = self.position
        self._batch, self._views = None, iter(())
        self._loop.run(self._stream.close())
        if file is not None:
            file.end(position if is_done else None, snapshot_owed=self._snapshot_owed)

    def __enter__(self) -> Self:
        self._loop.run(self._stream.open())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close(is_done=error is None)

    def __del__(self) -> None:
        _close_dropped(self._loop, self._stream)

    def __repr__(self) -> str:
        return f"<sync {self._stream!r}>"


class AlarmStream(Iterator[AlarmItem]):
    """The alarms of the plant, in order; see `mxgw_client.AlarmStream`.

    Only one thread at a time is allowed to read.
    """

    def __init__(self, loop: LoopThread, stream: asynchronous.AlarmStream) -> None:
        self._loop = loop
        self._stream = stream
        self._steps = Waiter(loop, lambda: _step(stream))
        self._position = stream.position

    @property
    def opened(self) -> StreamOpened | None:
        """The newest StreamOpened, also while the stream is cut; None before the first one."""
        return self._stream.opened

    @property
    def position(self) -> Position | None:
        """The position of the last alarm change or control frame that the application got.

        It is None when the application got nothing yet and `start` names no position.
        """
        return self._position

    def __next__(self) -> AlarmItem:
        return self.next()

    def next(self, timeout_s: float | None = None) -> AlarmItem:
        """Return the next alarm change or control frame. Wait at most `timeout_s` seconds; None means without limit.

        Raises:
            TimeoutError: nothing came in this time. Nothing is lost, and `next` can be called again.
            StopIteration: the application closed the stream.
            MxgwClientError: the stream ended for another reason; in most cases a StreamEnded.
        """
        item, self._position = self._steps.next(timeout_s)
        return item

    def close(self) -> None:
        """End the stream; idempotent."""
        self._loop.run(self._stream.close())

    def __enter__(self) -> Self:
        self._loop.run(self._stream.open())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        _close_dropped(self._loop, self._stream)

    def __repr__(self) -> str:
        return f"<sync {self._stream!r}>"


async def _step(stream: asynchronous.AlarmStream) -> tuple[AlarmItem, Position | None]:
    """Return the next alarm change or control frame, and the position of the stream after it.

    The position is read here, in the thread of the loop, because another step could move it before the caller reads it.
    """
    item = await anext(stream)
    return item, stream.position


def _close_dropped(loop: LoopThread, stream: asynchronous.EventStream | asynchronous.AlarmStream) -> None:
    """Close a stream that the application dropped without closing it, for example after `break`.

    The stream is closed in the thread of the loop. This function does not wait for it.
    """
    if not sys.is_finalizing():
        with contextlib.suppress(RuntimeError):
            loop.submit(stream.close())
