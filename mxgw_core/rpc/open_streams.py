"""The open calls. Each can be ended by itself; streaming calls also all together when the gateway shuts down."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from mxgw_core.api.calls import OpenStream
from mxgw_core.api.errors import GatewayDraining, GatewayError
from mxgw_core.events.frames import draining_frame
from mxgw_core.events.subscriber import Subscriber

# The outcome of these calls matters to the caller also when it does not get the answer.
_COMMANDS = frozenset({"/mxgw.v1.CommandService/Invoke"})


def without_answer(error: GatewayError, method: str) -> GatewayError:
    """Return the error for a unary call that began to run, and whose caller does not get the answer because of `error`.

    The error of a command says that the outcome is unknown: a command that was sent to the worker is not undone.
    """
    if method not in _COMMANDS:
        return error
    of_command = copy.copy(error)
    of_command.message = f"{error.message} (the command was running: whether it takes effect is unknown)"
    of_command.args = (of_command.message,)
    of_command.metadata = {**error.metadata, "outcome": "unknown"}
    return of_command


@dataclass(slots=True)
class _Ending:
    cutoff: asyncio.Timeout
    error: GatewayError | None = None


class OpenStreams:
    """All open streaming calls of the gateway. Each stream can be ended by itself, for example when its key is revoked.

    Lives in the event loop.
    """

    def __init__(self) -> None:
        self._open: dict[OpenStream, _Ending] = {}

    def all(self) -> Sequence[OpenStream]:
        """Return all open streaming calls, oldest first."""
        return tuple(self._open)

    @asynccontextmanager
    async def serving(self, stream: OpenStream) -> AsyncIterator[None]:
        """Keep `stream` in the list of open streams while the block runs. The block is entered without any wait.

        Raises:
            GatewayError: `end` was called for the stream. The block was cancelled.
        """
        ending = _Ending(asyncio.timeout(None))
        try:
            async with ending.cutoff:
                self._open[stream] = ending
                yield
        except Exception:
            # If the stream is being ended, the error given to `end` replaces any error that the block raised itself.
            if ending.error is None:
                raise
            raise ending.error from None
        else:
            if ending.error is not None:  # the block ended before its cancellation reached it
                raise ending.error
        finally:
            self._open.pop(stream, None)

    def end(self, stream: OpenStream, error: GatewayError) -> bool:
        """End a stream at once; return False when the stream had already ended, or was already being ended."""
        ending = self._open.get(stream)
        if ending is None or ending.error is not None:
            return False
        ending.error = error
        ending.cutoff.reschedule(asyncio.get_running_loop().time())
        return True


def drain(subscribers: Sequence[Subscriber], retry_after_s: float, deadline_s: float) -> None:
    """Ask clients to come back later, and end each stream after the events that are in the log."""
    frame = draining_frame(retry_after_s, deadline_s)
    error = GatewayDraining(
        "the gateway is shutting down: come back later with your last position", retry_after_s=retry_after_s
    )
    for subscriber in subscribers:
        subscriber.send(frame)
        subscriber.finish(error)


class OpenCount:
    """Counts the streams that are served, and can wait until none is left."""

    def __init__(self) -> None:
        self.streams = 0
        # Set while no stream is served.
        self._none_left = asyncio.Event()
        self._none_left.set()

    def __enter__(self) -> None:
        self.streams += 1
        self._none_left.clear()

    def __exit__(self, *exc_info: object) -> None:
        self.streams -= 1
        if not self.streams:
            self._none_left.set()

    async def drained(self, timeout_s: float) -> None:
        """Wait until no stream is left, but not longer than `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._none_left.wait()
        except TimeoutError:
            pass
