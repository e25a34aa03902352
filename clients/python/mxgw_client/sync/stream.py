"""A session's event stream as a plain iterator."""

from __future__ import annotations

import concurrent.futures
import contextlib
import sys
import weakref
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from mxgw_client import stream as asynchronous
from mxgw_client.batch import EventBatch
from mxgw_client.events import Event
from mxgw_client.frames import Frame, StreamItem, StreamOpened
from mxgw_client.position import Position
from mxgw_client.position_file import PositionFile, close_quietly
from mxgw_client.sync._loop import LoopThread


class EventStream(Iterator[StreamItem]):
    """Like `mxgw_client.EventStream`, without `await`. One thread at a time may read.

    At most one batch is taken over at a time, so a reader that does not read shows as lag at the gateway. An interrupt
    (Ctrl-C) while it waits loses nothing: iterate again, or resume after `position`.
    """

    def __init__(
        self, loop: LoopThread, stream: asynchronous.EventStream, position_file: PositionFile | None = None
    ) -> None:
        self._loop = loop
        self._stream = stream
        self._file = position_file
        # Writes the last place when the stream is dropped without being closed.
        self._finalizer = None if position_file is None else weakref.finalize(self, close_quietly, position_file)
        # The batch under way; the loop thread completes it.
        self._pending: concurrent.futures.Future[Frame] | None = None
        self._batch: EventBatch | None = None
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
        """The place after everything handed to the application so far; see `mxgw_client.EventStream`."""
        return self._position if self._last_event is None else self._last_event.position

    def _note(self) -> None:
        """Whoever asks for more is done with what it has."""
        if self._file is not None:
            self._file.note(self.position, snapshot_owed=self._snapshot_owed)

    def __next__(self) -> StreamItem:
        return self.next()

    def next(self, timeout_s: float | None = None) -> StreamItem:
        """Return the next item, waiting for at most `timeout_s`.

        Raises:
            TimeoutError: nothing came; nothing is lost either.
            StopIteration: the stream was closed here.
            StreamEnded: it ended for another reason.
        """
        self._note()
        for event in self._views:
            self._last_event = event
            return event
        frame = self._next_frame(timeout_s)
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
                frame = self._next_frame(None)
            except StopIteration:
                return
            self._move()
            yield frame

    def _move(self) -> None:
        self._last_event, self._position = None, self._stream.position
        self._snapshot_owed = self._stream.snapshot_owed

    def _next_frame(self, timeout_s: float | None) -> Frame:
        if self._pending is None:
            self._pending = self._loop.submit(self._stream.next_batch())
        pending = self._pending
        try:
            frame = pending.result(timeout_s)
        except StopAsyncIteration:
            self._pending = None
            raise StopIteration from None
        except concurrent.futures.CancelledError:
            self._pending = None
            raise StopIteration from None
        except BaseException as error:
            # A timeout or an interrupt of this wait: the read goes on, and its result is for the next call.
            if pending.done() and pending.exception() is error:
                self._pending = None
            raise
        self._pending = None
        return frame

    def close(self) -> None:
        """End the stream; idempotent.

        Raises:
            PositionFileError: the last place could not be written.
        """
        self._close(is_done=True)

    def _close(self, *, is_done: bool) -> None:
        """`is_done`: the application is done with the last item it was handed."""
        file, self._file = self._file, None
        position = self.position
        self._batch, self._views = None, iter(())
        self._loop.run(self._stream.close())
        if file is not None:
            assert self._finalizer is not None
            self._finalizer.detach()
            try:
                if is_done:
                    file.note(position, snapshot_owed=self._snapshot_owed)
            finally:
                file.close()

    def __enter__(self) -> Self:
        self._loop.run(self._stream.open())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close(is_done=error is None)

    def __del__(self) -> None:
        # Dropped without closing, for example after `break`: end it in its own thread, which must not be this one.
        if not sys.is_finalizing():
            with contextlib.suppress(RuntimeError):
                self._loop.submit(self._stream.close())

    def __repr__(self) -> str:
        return f"<sync {self._stream!r}>"
