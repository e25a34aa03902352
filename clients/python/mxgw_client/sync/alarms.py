"""The stream of alarms as a plain iterator."""

from __future__ import annotations

import concurrent.futures
import contextlib
import sys
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from mxgw_client import alarm_stream as asynchronous
from mxgw_client.alarms import AlarmItem
from mxgw_client.frames import StreamOpened
from mxgw_client.position import Position
from mxgw_client.sync._loop import LoopThread


class AlarmStream(Iterator[AlarmItem]):
    """Like `mxgw_client.AlarmStream`, without `await`. One thread at a time may read."""

    def __init__(self, loop: LoopThread, stream: asynchronous.AlarmStream) -> None:
        self._loop = loop
        self._stream = stream
        # The item under way; the loop thread completes it.
        self._pending: concurrent.futures.Future[tuple[AlarmItem, Position | None]] | None = None
        self._position = stream.position

    @property
    def opened(self) -> StreamOpened | None:
        """See `mxgw_client.AlarmStream`."""
        return self._stream.opened

    @property
    def position(self) -> Position | None:
        """The place after everything handed to the application so far."""
        return self._position

    def __next__(self) -> AlarmItem:
        return self.next()

    def next(self, timeout_s: float | None = None) -> AlarmItem:
        """Return the next item, waiting for at most `timeout_s`.

        Raises:
            TimeoutError: nothing came; nothing is lost either.
            StopIteration: the stream was closed here.
            StreamEnded: it ended for another reason.
        """
        if self._pending is None:
            self._pending = self._loop.submit(_step(self._stream))
        pending = self._pending
        try:
            item, self._position = pending.result(timeout_s)
        except (StopAsyncIteration, concurrent.futures.CancelledError):
            self._pending = None
            raise StopIteration from None
        except BaseException as error:
            # A timeout or an interrupt of this wait: the read goes on, and its result is for the next call.
            if pending.done() and pending.exception() is error:
                self._pending = None
            raise
        self._pending = None
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
        # Dropped without closing, for example after `break`: end it in its own thread, which must not be this one.
        if not sys.is_finalizing():
            with contextlib.suppress(RuntimeError):
                self._loop.submit(self._stream.close())

    def __repr__(self) -> str:
        return f"<sync {self._stream!r}>"


async def _step(stream: asynchronous.AlarmStream) -> tuple[AlarmItem, Position | None]:
    """Return the next item, and the place behind it."""
    item = await anext(stream)
    return item, stream.position
