"""The streaming calls that are being served, so that one can be ended from outside: a key revoked, a login over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from mxgw_core.api.calls import OpenStream
from mxgw_core.api.errors import GatewayError


@dataclass(slots=True)
class _Ending:
    cutoff: asyncio.Timeout
    error: GatewayError | None = None


class OpenStreams:
    """All streaming calls of the gateway; lives in the event loop."""

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
