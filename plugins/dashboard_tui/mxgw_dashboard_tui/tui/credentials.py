"""The token of a login: kept in memory only, and renewed long before it expires."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

# The rest of its life is for further attempts, in case the directory cannot be reached.
_RENEW_AT = 0.5
_NEVER = float("inf")


class Credentials:
    """One login at a time. `number` grows with each login and logout, so that work for an earlier login can be
    recognised.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._token = ""
        self._renew_at = _NEVER
        self.number = 0
        # Set by every change; awaited by `due`.
        self._changed = asyncio.Event()

    @property
    def metadata(self) -> Sequence[tuple[str, str]]:
        """The metadata of a call."""
        return (("authorization", f"Bearer {self._token}"),) if self._token else ()

    @property
    def is_logged_in(self) -> bool:
        return bool(self._token)

    def begin(self, token: str, valid_s: float) -> None:
        """Take the token of a new login."""
        self.number += 1
        self.renew(token, valid_s)

    def renew(self, token: str, valid_s: float) -> None:
        """Take the next token of the same login. A token without a known life is not renewed."""
        self._token = token
        self._renew_at = self._clock() + valid_s * _RENEW_AT if valid_s > 0 else _NEVER
        self._changed.set()

    def postpone(self, seconds: float) -> None:
        """Renew the token after this time."""
        self._renew_at = self._clock() + seconds
        self._changed.set()

    def forget(self) -> None:
        """Forget the login."""
        if self._token:
            self.number += 1
        self._token = ""
        self._renew_at = _NEVER
        self._changed.set()

    async def due(self) -> None:
        """Return when it is time to renew the token."""
        while True:
            self._changed.clear()
            left_s = None if self._renew_at == _NEVER else self._renew_at - self._clock()
            try:
                async with asyncio.timeout(left_s):
                    await self._changed.wait()
            except TimeoutError:
                return
