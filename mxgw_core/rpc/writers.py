"""Writers send the messages of a stream to its client. Each kind of transport has a writer class.

To wake a task for each message would take more processor time than the message itself: with eight subscribers and
single events, a third of the gateway's time. So `GrpcStream` runs the coroutine of grpc's write itself, step by step,
inside the callback that has something to send (below this is called driving). This works because grpc's write is
a coroutine, and because a coroutine that waits for a future yields this future. Both are checked when the gateway
starts. If one of the two is not true, each message is written by a task.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Protocol, runtime_checkable

import grpc.aio
from google.protobuf.message import Message

from mxgw_core.api.calls import ResponseStream

log = logging.getLogger(__name__)

# How long the headers of a stream that has to end may take. A client that reads has them within milliseconds.
_HEADERS_S = 3.0


class PeerGone(Exception):
    """The connection of a stream has ended, so that its client gets neither messages nor a status."""


@runtime_checkable
class ResponseWriter(ResponseStream, Protocol):
    """A stream that can be written to without waiting. Its first message must be sent with `write`.

    Attributes:
        on_writable: called when a pending write has ended, with its error or None; not called after `abort`.
        unsent_bytes: how many bytes `try_write` got that are not sent yet; 0 when no write is pending.
    """

    on_writable: Callable[[BaseException | None], None]
    unsent_bytes: int

    def try_write(self, data: bytes) -> bool:
        """Begin to write one message. No other write may be pending.

        Return True if the write has finished at once, so that the caller can write again. After False, `on_writable` is
        called when the write has ended.

        Raises:
            PeerGone: the connection has ended.
        """

    def abort(self) -> None:
        """Give up the pending write, if there is one."""


class WriteDriver:
    """Decides whether grpc's writes are driven (see the module's docstring).

    The object must be made in a running event loop, when the gateway starts.

    Attributes:
        works: whether writes are driven. When a write turns out to be unsuitable, this becomes False, and one warning
            is logged.
    """

    def __init__(self) -> None:
        self.works = True
        if problem := _problem_with_driving():
            self.does_not_fit(problem)

    def does_not_fit(self, problem: str) -> None:
        """Let tasks write all messages from now on, because of this problem."""
        if self.works:
            self.works = False
            log.warning("%s: each message of a stream is written by a task, which takes more processor time", problem)


class GrpcStream:
    """Writes the response messages of one gRPC call. `driver` decides whether this is done without tasks."""

    __slots__ = ("_begun", "_context", "_coroutine", "_driver", "_pending", "on_writable", "unsent_bytes")

    def __init__(self, context: grpc.aio.ServicerContext[Any, Any], driver: WriteDriver) -> None:
        self._context = context
        self._driver = driver
        self._begun = False
        # If the present write is driven, this is the write's coroutine, and `_pending` is the future that the coroutine
        # waits for (None while it only lets other tasks run). If the present write is not driven, `_pending` is the
        # task that writes.
        self._coroutine: Coroutine[Any, Any, None] | None = None
        self._pending: asyncio.Future[Any] | None = None
        self.on_writable: Callable[[BaseException | None], None] = _nobody
        self.unsent_bytes = 0

    async def write(self, message: Message | bytes) -> None:
        data = message if isinstance(message, bytes) else message.SerializeToString()
        try:
            if not self._begun:
                self._begun = True
                # The headers are sent in a step of their own, which is never cancelled. After a cancellation grpc
                # would send them again with the status, this would fail, and the client would wait for ever. This
                # step is short, because flow control delays messages but not headers.
                await _to_its_end(self._context.send_initial_metadata(()))
            await self._context.write(data)
        except Exception as error:  # grpc has no public exception type for an ended connection
            raise PeerGone from error

    def try_write(self, data: bytes) -> bool:
        writing: object = self._context.write(data)
        if self._driver.works:
            if asyncio.iscoroutine(writing):
                self._coroutine = writing
                if self._go_on():
                    return True
                self.unsent_bytes = len(data)
                return False
            self._driver.does_not_fit(f"grpcio {grpc.__version__} does not write in a coroutine")
        self._pending = asyncio.get_running_loop().create_task(_finished(writing), name="grpc:write")
        self._pending.add_done_callback(self._task_ended)
        self.unsent_bytes = len(data)
        return False

    def _go_on(self) -> bool:
        """Run grpc's write until it must wait, or has ended; return whether it has ended."""
        assert self._coroutine is not None
        try:
            waits_for: object = self._coroutine.send(None)
        except StopIteration:
            self._coroutine = None
            return True
        except Exception as error:  # grpc has no public exception type for an ended connection
            self._coroutine = None
            raise PeerGone from error
        if asyncio.isfuture(waits_for):
            self._pending = waits_for
            waits_for.add_done_callback(self._resume)
        elif waits_for is None:  # like asyncio.sleep(0), the coroutine only lets other tasks run
            asyncio.get_running_loop().call_soon(self._resume)
        else:
            self._coroutine = None
            raise RuntimeError(f"grpc's write waits for {type(waits_for).__name__}, which is no future")
        return False

    def _resume(self, _: object = None) -> None:
        if self._coroutine is None:  # the write was aborted meanwhile
            return
        try:
            if not self._go_on():
                return
        except BaseException as error:
            self._ended(error)
        else:
            self._ended(None)

    def _task_ended(self, task: asyncio.Future[Any]) -> None:
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if isinstance(error, Exception):
            lost = PeerGone()
            lost.__cause__ = error
            error = lost
        self._ended(error)

    def _ended(self, error: BaseException | None) -> None:
        self._pending = None
        self.unsent_bytes = 0
        self.on_writable(error)

    def abort(self) -> None:
        self.on_writable = _nobody
        self.unsent_bytes = 0
        coroutine, self._coroutine = self._coroutine, None
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.remove_done_callback(self._task_ended if coroutine is None else self._resume)
            pending.cancel()
        if coroutine is not None:
            with suppress(BaseException):  # this ends the coroutine as if it were a task that is cancelled
                coroutine.throw(asyncio.CancelledError())


async def _finished(writing: Any) -> None:
    """Wait until a write has ended, whatever kind of awaitable it is."""
    await writing


def _problem_with_driving() -> str:
    """Return why a coroutine cannot be driven without a task here; "" when it can."""
    future = asyncio.get_running_loop().create_future()
    waiting = _waiting_for(future)
    try:
        if waiting.send(None) is not future:
            return "a coroutine that waits for a future does not yield it"
        future.set_result(None)
        waiting.send(None)
    except StopIteration:
        return ""
    except Exception as error:
        return f"a coroutine cannot be driven without a task ({type(error).__name__})"
    finally:
        waiting.close()
    return "a coroutine does not go on once its future is done"


async def _waiting_for(future: asyncio.Future[None]) -> None:
    await future


async def _to_its_end(step: Coroutine[Any, Any, None]) -> None:
    """Run a step that should not be cancelled. If the caller is cancelled meanwhile, the caller ends after the step.

    The step is cancelled when it has not ended `_HEADERS_S` after the caller was cancelled: a client that has stopped
    and does not even read its socket must not keep the stream's place, or the gateway, for ever.
    """
    task = asyncio.get_running_loop().create_task(step)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task], timeout=None if cancelled is None else _HEADERS_S)
        except asyncio.CancelledError as error:
            cancelled = error
        else:
            task.cancel()  # has no effect on a step that has ended
    if cancelled is not None and not task.cancelled() and task.exception() is None:
        raise cancelled
    await task


def _nobody(_: BaseException | None) -> None:
    pass
