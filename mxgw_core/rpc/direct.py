"""Events written in the step that appends them, while the stream's own task waits: no task has to be woken for them.

Waking a task costs more than what it then does: with eight subscribers and single events, a third of the processor time
of the gateway. So the task that serves a stream waits for everything that is not plain events, and events go from the
log to gRPC in the callback that brought them; what gathers while a write is under way goes out as that one ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, runtime_checkable

from mxgw_core.api.calls import ResponseStream
from mxgw_core.events.items import Item
from mxgw_core.events.log import Chunk
from mxgw_core.events.subscriber import Subscriber
from mxgw_core.rpc.silence import Silence


class Write(Protocol):
    """A write under way."""

    def abandon(self) -> None:
        """Give it up; what it was to call is not called."""


class DirectStream(Protocol):
    """A stream that can be written to without a task."""

    def begin(self, data: bytes, ended: Callable[[BaseException | None], None]) -> Write | None:
        """Begin to write; `ended` is called later, with what went wrong. None: it is written already.

        Raises:
            BaseException: what `ended` would be told.
        """


@runtime_checkable
class EventStream(ResponseStream, DirectStream, Protocol):
    """What the events of a subscriber are written to."""


class DirectWriter:
    """Serves one subscriber with events while its task is in `wait`. Lives in the event loop.

    Attributes:
        written: everything up to here was written.
    """

    def __init__(self, subscriber: Subscriber, stream: DirectStream, silence: Silence, batch_bytes: int) -> None:
        self._subscriber = subscriber
        self._stream = stream
        self._silence = silence
        self._batch_bytes = batch_bytes
        self.written = subscriber.delivered
        self._write: Write | None = None
        # What is the task's business: an item that is no chunk, or what went wrong.
        self._item: Item | None = None
        self._error: BaseException | None = None
        # Completed when the write under way has ended; awaited by the task.
        self._landed: asyncio.Future[None] | None = None

    def take(self) -> Item | None:
        """Return what comes next, for the task to handle; None when there is nothing."""
        item, self._item = self._item, None
        return item or self._subscriber.take(self._batch_bytes)

    async def wait(self) -> None:
        """Serve events until there is something else to do; nothing is under way then.

        Raises:
            BaseException: a write failed, or the subscriber did.
        """
        subscriber = self._subscriber
        subscriber.on_events = self._appended
        try:
            await subscriber.wait()
            subscriber.on_events = None
            if self._write is not None:
                self._landed = asyncio.get_running_loop().create_future()
                await self._landed
        finally:
            subscriber.on_events = None
            self._landed = None
            if self._write is not None:
                self._write.abandon()
                self._write = None
                subscriber.is_written_to = False
        if self._error is not None:
            raise self._error

    def _appended(self) -> None:
        if self._write is None and self._item is None and self._error is None:
            self._go_on()

    def _go_on(self) -> None:
        """Write what there is until a write does not end at once."""
        subscriber = self._subscriber
        try:
            while subscriber.is_plain:
                item = subscriber.take_plain(self._batch_bytes)
                if item is None:
                    return  # it is level
                if not self._begins(item):
                    return
            if subscriber.end is None:  # else what is left has a deadline, which the task keeps
                while (taken := subscriber.take(self._batch_bytes)) is not None:
                    if not self._begins(taken):
                        return
                if subscriber.is_level:
                    return
        except BaseException as error:
            self._error = error
        subscriber.wake()

    def _begins(self, item: Item) -> bool:
        """Begin to write an item that is a chunk; return whether it is through already, and there may be more."""
        if type(item) is not Chunk:
            self._item = item
            self._subscriber.wake()
            return False
        self._write = self._stream.begin(item.frame, self._ended)
        if self._write is not None:
            self._subscriber.is_written_to = True
            return False
        self._count()
        return True

    def _ended(self, error: BaseException | None) -> None:
        self._write = None
        subscriber = self._subscriber
        subscriber.is_written_to = False
        if error is None:
            self._count()
        self._error = error
        if self._landed is not None:
            if not self._landed.done():
                self._landed.set_result(None)
        elif error is not None:
            subscriber.wake()
        elif subscriber.on_events is not None:
            self._go_on()

    def _count(self) -> None:
        self.written = self._subscriber.delivered
        self._silence.broken()
