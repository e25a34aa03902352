"""How messages get to a client: one writer per transport.

Waking a task for each message costs more than the message: with eight subscribers and single events, a third of the
gateway's processor time. `GrpcStream` therefore drives the coroutine of grpc's write itself, from whichever callback
has something to send. That takes two things for granted: grpc's write is a coroutine, and a coroutine that waits for a
future yields this future. Both are checked when the gateway starts. Where one does not hold, each message has a task.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Protocol, runtime_checkable

import grpc.aio
from google.protobuf.message import Message

from mxgw_core.api.calls import ResponseStream

log = logging.getLogger(__name__)


class PeerGone(Exception):
    """The connection of a stream ended: its client gets neither messages nor a status."""


@runtime_checkable
class ResponseWriter(ResponseStream, Protocol):
    """A stream that can be written to without waiting. The first message goes out with `write`.

    Attributes:
        on_writable: called when a pending write has ended, with what went wrong or None; not after `abort`.
        unsent_bytes: what was handed to `try_write` and is still pending.
    """

    on_writable: Callable[[BaseException | None], None]
    unsent_bytes: int

    def try_write(self, data: bytes) -> bool:
        """Begin to write one message, while none is pending.

        Return True when the write finished at once, so that the caller can go on. After False `on_writable` is called.

        Raises:
            PeerGone: the client went away.
        """

    def abort(self) -> None:
        """Give up the pending write, if there is one."""


class GrpcStream:
    """The answers of one gRPC call. `drives`: whether to write without a task, see `can_drive`."""

    __slots__ = ("_begun", "_context", "_coroutine", "_drives", "_pending", "on_writable", "unsent_bytes")

    def __init__(self, context: grpc.aio.ServicerContext[Any, Any], *, drives: bool) -> None:
        self._context = context
        self._drives = drives
        self._begun = False
        # The write under way, when it is driven here; and the future, or else the task, that is waited for.
        self._coroutine: Coroutine[Any, Any, None] | None = None
        self._pending: asyncio.Future[Any] | None = None
        self.on_writable: Callable[[BaseException | None], None] = _nobody
        self.unsent_bytes = 0

    async def write(self, message: Message | bytes) -> None:
        data = message if isinstance(message, bytes) else message.SerializeToString()
        try:
            if not self._begun:
                self._begun = True
                # By themselves, and never broken off: grpc would send them once more with the status, which then
                # fails, and the client would wait for ever. No flow control holds headers up, as it may a message.
                await _to_its_end(self._context.send_initial_metadata(()))
            await self._context.write(data)
        except Exception as error:  # grpc has no public type for it
            raise PeerGone from error

    def try_write(self, data: bytes) -> bool:
        coroutine = self._context.write(data)
        if self._drives:
            self._coroutine = coroutine
            if self._go_on():
                return True
        else:
            self._pending = asyncio.get_running_loop().create_task(coroutine, name="grpc:write")
            self._pending.add_done_callback(self._task_ended)
        self.unsent_bytes = len(data)
        return False

    def _go_on(self) -> bool:
        """Run grpc's write until it waits; return True when it has ended instead."""
        assert self._coroutine is not None
        try:
            future: asyncio.Future[Any] = self._coroutine.send(None)
        except StopIteration:
            return True
        except Exception as error:  # grpc has no public type for it
            raise PeerGone from error
        self._pending = future
        future.add_done_callback(self._resume)
        return False

    def _resume(self, _: asyncio.Future[Any]) -> None:
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
        pending, self._pending = self._pending, None
        self.unsent_bytes = 0
        if pending is None:
            return
        pending.remove_done_callback(self._resume if self._drives else self._task_ended)
        pending.cancel()
        if self._drives and self._coroutine is not None:
            with suppress(BaseException):  # as the cancellation of a task would end it
                self._coroutine.throw(asyncio.CancelledError())


def can_drive() -> bool:
    """Return whether writes can be driven without tasks here; log it when they cannot. Needs a running event loop."""
    problem = _problem_with_driving()
    if problem:
        log.warning("%s: each message of a stream is written by a task, which takes more processor time", problem)
    return not problem


def _problem_with_driving() -> str:
    if not inspect.iscoroutinefunction(getattr(grpc.aio.ServicerContext, "write", None)):
        return f"grpcio {grpc.__version__} does not write in a coroutine"
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
    """Run a step that must not be broken off; a cancellation takes effect behind it."""
    task = asyncio.get_running_loop().create_task(step)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None and not task.cancelled() and task.exception() is None:
        raise cancelled
    await task


def _nobody(_: BaseException | None) -> None:
    pass
