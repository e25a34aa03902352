"""The token of a login. The token is kept in memory only, and renewed long before it expires."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

# The share of a token's lifetime after which it is renewed. The rest of the lifetime is for further attempts, in case
# the gateway cannot reach its directory of operators.
_RENEW_AT = 0.5
_NEVER = float("inf")


class Credentials:
    """The present login, if there is one.

    `number` changes with each login and logout. Code that compares the number before and after it waited learns whether
    the same login still exists. Without a login, `api_key` is sent if it is not "".
    """

    def __init__(self, clock: Callable[[], float], api_key: str = "") -> None:
        self._api_key = api_key
        self._clock = clock
        self._token = ""
        self._renew_at = _NEVER
        self.number = 0
        # Every change of the token, or of the time to renew the token, sets this event. `due` waits for the event.
        self._changed = asyncio.Event()

    @property
    def metadata(self) -> Sequence[tuple[str, str]]:
        """The gRPC metadata that sends the token with a call, or the API key; empty when there is neither."""
        sent = self._token or self._api_key
        return (("authorization", f"Bearer {sent}"),) if sent else ()

    @property
    def is_logged_in(self) -> bool:
        return bool(self._token)

    def begin(self, token: str, valid_s: float) -> None:
        """Store the token of a new login."""
        self.number += 1
        self.renew(token, valid_s)

    def renew(self, token: str, valid_s: float) -> None:
        """Store the next token of the same login. A token whose lifetime is unknown is not renewed."""
        self._token = token
        self._renew_at = self._clock() + valid_s * _RENEW_AT if valid_s > 0 else _NEVER
        self._changed.set()

    def postpone(self, seconds: float) -> None:
        """Put the renewal of the token off: `due` returns after this time."""
        self._renew_at = self._clock() + seconds
        self._changed.set()

    def forget(self) -> None:
        """Forget the token, because the login has ended."""
        if self._token:
            self.number += 1
        self._token = ""
        self._renew_at = _NEVER
        self._changed.set()

    async def due(self) -> None:
        """Wait until it is time to renew the token."""
        while True:
            self._changed.clear()
            left_s = None if self._renew_at == _NEVER else self._renew_at - self._clock()
            if left_s is not None and left_s <= 0:
                return
            try:
                async with asyncio.timeout(left_s):
                    await self._changed.wait()
            except TimeoutError:
                return
