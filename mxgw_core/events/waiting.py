"""One task waits, others let it go on: at once, or when its time has come."""

from __future__ import annotations

import asyncio
from typing import Protocol


class Cancellable(Protocol):
    """A timer."""

    def cancel(self) -> None:
        """Let it not fire."""


class Waiter:
    """Used by one waiting task at a time."""

    def __init__(self) -> None:
        # Completed by `wake`, awaited by `wait`.
        self._future: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether somebody waits, or was woken and has not had its turn yet."""
        return self._future is not None

    @property
    def has_time(self) -> bool:
        """Whether somebody waits who will be woken by the clock."""
        return self._timer is not None

    async def wait(self, at_most_s: float | None = None) -> None:
        """Return once `wake` is called, or after `at_most_s`."""
        loop = asyncio.get_running_loop()
        self._future = loop.create_future()
        if at_most_s is not None:
            self._timer = loop.call_later(max(0.0, at_most_s), self.wake)
        try:
            await self._future
        finally:
            self._future = None
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def wake(self) -> None:
        """Let `wait` return."""
        if self._future is not None and not self._future.done():
            self._future.set_result(None)
