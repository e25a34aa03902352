"""The streaming calls that are being served: ended from outside one by one, or all when the gateway shuts down."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from mxgw_core.api.calls import OpenStream
from mxgw_core.api.errors import GatewayDraining, GatewayError
from mxgw_core.events.frames import draining_frame
from mxgw_core.events.subscriber import Subscriber


@dataclass(slots=True)
class _Ending:
    cutoff: asyncio.Timeout
    error: GatewayError | None = None


class OpenStreams:
    """All streaming calls of the gateway, each of which can be ended: a key is revoked, a login is over.

    Lives in the event loop.
    """

    def __init__(self) -> None:
        self._open: dict[OpenStream, _Ending] = {}

    def all(self) -> Sequence[OpenStream]:
        """Return them, oldest first."""
        return tuple(self._open)

    @asynccontextmanager
    async def serving(self, stream: OpenStream) -> AsyncIterator[None]:
        """Count `stream` as open while the block runs. Entering does not wait.

        Raises:
            GatewayError: the stream was ended; what the block was waiting for is given up.
        """
        ending = _Ending(asyncio.timeout(None))
        try:
            async with ending.cutoff:
                self._open[stream] = ending
                yield
        except Exception:
            # Also what the block raises by itself because it noticed why the stream is ended, a moment before.
            if ending.error is None:
                raise
            raise ending.error from None
        finally:
            self._open.pop(stream, None)

    def end(self, stream: OpenStream, error: GatewayError) -> bool:
        """End a stream at once; return False when it has ended, or is ending, already."""
        ending = self._open.get(stream)
        if ending is None or ending.error is not None:
            return False
        ending.error = error
        ending.cutoff.reschedule(asyncio.get_running_loop().time())
        return True


def drain(subscribers: Sequence[Subscriber], retry_after_s: float, deadline_s: float) -> None:
    """Ask clients to come back later, and end each stream behind what is in the log."""
    frame = draining_frame(retry_after_s, deadline_s)
    error = GatewayDraining(
        "the gateway is shutting down: come back later with your last position", retry_after_s=retry_after_s
    )
    for subscriber in subscribers:
        subscriber.send(frame)
        subscriber.finish(error)


class OpenCount:
    """How many streams are served, and waiting for none to be left."""

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
        """Return once no stream is left, or after `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._none_left.wait()
        except TimeoutError:
            pass
