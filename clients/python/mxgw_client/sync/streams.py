"""The event stream and the alarm stream as plain iterators."""

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
    """Like `mxgw_client.EventStream`, without `await`. One thread at a time may read.

    It fetches at most one batch ahead, so that a reader which stops reading shows as lag at the gateway. An interrupt
    (Ctrl-C) while it waits loses nothing: iterate again, or resume after `position`.
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
        # The events of the batch that were not handed out yet.
        self._views: Iterator[Event] = iter(())
        self._last_event: Event | None = None
        self._position: Position | None = stream.position
        self._snapshot_owed = stream.snapshot_owed

    @property
    def opened(self) -> StreamOpened | None:
        """See `mxgw_client.EventStream`."""
        return self._stream.opened

    @property
    def is_cut(self) -> bool:
        """Whether the stream was cut and is not back yet."""
        return self._stream.is_cut

    @property
    def position(self) -> Position | None:
        """The position after everything handed to the application so far; see `mxgw_client.EventStream`."""
        return self._position if self._last_event is None else self._last_event.position

    def _note(self) -> None:
        """Write down the position: an application that asks for more has processed what it was handed before."""
        if self._file is not None:
            self._file.note(self.position, snapshot_owed=self._snapshot_owed)

    def __next__(self) -> StreamItem:
        return self.next()

    def next(self, timeout_s: float | None = None) -> StreamItem:
        """Return the next event or control frame, waiting for at most `timeout_s`.

        Raises:
            TimeoutError: nothing came; nothing is lost either.
            StopIteration: the stream was closed here.
            StreamEnded: it ended for another reason.
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
        """Iterate over whole batches and control frames; a batch counts as handed out as a whole."""
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
        """Take over the position of the asynchronous stream, which is after the whole batch that it returned."""
        self._last_event, self._position = None, self._stream.position
        self._snapshot_owed = self._stream.snapshot_owed

    def close(self) -> None:
        """End the stream; idempotent.

        Raises:
            PositionFileError: the last position could not be written.
        """
        self._close(is_done=True)

    def _close(self, *, is_done: bool) -> None:
        """`is_done`: the application has processed the last event it was handed."""
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
    """Like `mxgw_client.AlarmStream`, without `await`. One thread at a time may read."""

    def __init__(self, loop: LoopThread, stream: asynchronous.AlarmStream) -> None:
        self._loop = loop
        self._stream = stream
        self._steps = Waiter(loop, lambda: _step(stream))
        self._position = stream.position

    @property
    def opened(self) -> StreamOpened | None:
        """See `mxgw_client.AlarmStream`."""
        return self._stream.opened

    @property
    def position(self) -> Position | None:
        """The position after everything handed to the application so far."""
        return self._position

    def __next__(self) -> AlarmItem:
        return self.next()

    def next(self, timeout_s: float | None = None) -> AlarmItem:
        """Return the next change or control frame, waiting for at most `timeout_s`.

        Raises:
            TimeoutError: nothing came; nothing is lost either.
            StopIteration: the stream was closed here.
            StreamEnded: it ended for another reason.
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
    """Return what comes next with its position, since the stream may read on before the caller can ask for it."""
    item = await anext(stream)
    return item, stream.position


def _close_dropped(loop: LoopThread, stream: asynchronous.EventStream | asynchronous.AlarmStream) -> None:
    """End a stream that was dropped without closing, for example after `break`, in its own thread and not in this."""
    if not sys.is_finalizing():
        with contextlib.suppress(RuntimeError):
            loop.submit(stream.close())
