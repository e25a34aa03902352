"""The tokens of operators: signed, valid for minutes, renewable, and revocable.

A token contains the name, the roles and the session tags of an operator, and the time when it expires. Each token
belongs to one login. When the login is renewed with other roles, the older tokens of the login have these roles too.
When the login ends, all its tokens are invalid.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mxgw_core.api import Operator

PREFIX = "mxgwop_"
_AUDIENCE = "mxgw operator"
_LOGIN_BYTES = 16
# The largest number of logins whose latest token is remembered. For any other login only the content of the sent token
# is used.
_CAPACITY = 10_000


@dataclass(frozen=True, slots=True)
class Login:
    """One login of one person, with its latest token. Times are wall clock, seconds since 1970."""

    login_id: str
    began_at: float
    issued_at: float
    operator: Operator


class Tokens:
    """Issues and checks tokens. Each method can be called in the event loop and in other threads.

    Args:
        ended_before: returns a time for the name of a person; all logins that began before that time have ended.
        is_ended: returns whether the login with this id was ended.
    """

    def __init__(
        self,
        secret: bytes,
        life_s: float,
        *,
        ended_before: Callable[[str], float] = lambda _: 0.0,
        is_ended: Callable[[str], bool] = lambda _: False,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._secret = secret
        self._life_s = life_s
        self._ended_before = ended_before
        self._is_ended = is_ended
        self._now = now
        self._latest: OrderedDict[str, Login] = OrderedDict()

    def issue(self, name: str, roles: Sequence[str], tags: Sequence[str], after: Login | None = None) -> Operator:
        """Return an operator with a new token; `after` is the login to renew, or None for a new login."""
        now = self._now()
        login_id = after.login_id if after is not None else secrets.token_hex(_LOGIN_BYTES)
        began_at = after.began_at if after is not None else now
        expires_at = now + self._life_s
        body = _encode(
            json.dumps(
                {
                    "aud": _AUDIENCE,
                    "login": login_id,
                    "began": began_at,
                    "iat": now,
                    "exp": expires_at,
                    "name": name,
                    "roles": list(roles),
                    "tags": list(tags),
                }
            ).encode()
        )
        token = f"{PREFIX}{body}.{self._signature(body)}"
        operator = Operator(name, tuple(roles), tuple(tags), token, expires_at)
        self._remember(Login(login_id, began_at, now, operator))
        return operator

    def login(self, token: str) -> Login | None:
        """Return the login of a token, with the roles and tags of its latest renewal; None for an invalid token."""
        found = self._read(token)
        if found is None or self._now() >= found.operator.expires_at:
            return None
        if self._is_ended(found.login_id) or found.began_at < self._ended_before(found.operator.name):
            return None
        latest = self._latest.get(found.login_id)
        if latest is not None and latest.issued_at >= found.issued_at:
            return latest
        self._remember(found)
        return found

    def current(self, operator: Operator) -> Operator | None:
        """Return the operator with the roles and tags of the latest renewal; None when the login has ended.

        The token in `operator` may have expired: a stream continues as long as the login that opened it is renewed.
        """
        found = self._read(operator.token)
        if found is None:
            return None
        latest = self._latest.get(found.login_id, found)
        login = self.login(latest.operator.token)
        return login.operator if login is not None else None

    def _remember(self, login: Login) -> None:
        self._latest[login.login_id] = login
        self._latest.move_to_end(login.login_id)
        while len(self._latest) > _CAPACITY:
            self._latest.popitem(last=False)

    def _read(self, token: str) -> Login | None:
        """Return the content of a token, even of an expired one; None when this gateway did not sign the token."""
        body, _, signature = token.removeprefix(PREFIX).partition(".")
        if not token.startswith(PREFIX) or not token.isascii():
            return None
        if not hmac.compare_digest(signature, self._signature(body)):
            return None
        try:
            facts = json.loads(_decode(body))
        except (ValueError, binascii.Error):
            return None
        if facts["aud"] != _AUDIENCE:
            return None
        operator = Operator(facts["name"], tuple(facts["roles"]), tuple(facts["tags"]), token, facts["exp"])
        return Login(facts["login"], facts["began"], facts["iat"], operator)

    def _signature(self, body: str) -> str:
        return _encode(hmac.digest(self._secret, f"{_AUDIENCE}\0{body}".encode(), hashlib.sha256))


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
