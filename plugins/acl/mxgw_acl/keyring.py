"""The keys in memory. Credentials are compared with them in constant time and without reading the disk.

At each call and at an interval, the keys are read again if the key database has changed.
"""

from __future__ import annotations

import hmac
import logging
import sqlite3
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mxgw_acl.keyformat import KeyText
from mxgw_acl.keys import Key, Scope
from mxgw_acl.rules import Role
from mxgw_acl.store import KeyStore, Use
from mxgw_core.api import Identity, Peer
from mxgw_core.api.errors import DependencyUnavailable

log = logging.getLogger(__name__)

# The largest number of valid secrets of a key. Each check compares this many secrets, even if the key has fewer: so all
# checks take the same time.
_SECRETS = 2
_NO_DIGEST = bytes(32)


def _roles(key: Key) -> tuple[str, ...]:
    return (Role.ADMINISTRATOR.value,) if Scope.ADMIN in key.scopes else ()


@dataclass(frozen=True, slots=True)
class Verified:
    """The result of checking credentials: the identity of the caller, or the reason of the refusal.

    The reason is for the audit log only; the caller must not see it.
    """

    identity: Identity | None
    reason: str = ""


class Keyring:
    """All keys of one key store, and the ended logins of operators. Used in the event loop.

    There are few keys, so that reading all of them again takes only milliseconds.
    """

    def __init__(self, store: KeyStore, *, now: Callable[[], float] = time.time) -> None:
        self._store = store
        self._now = now
        self._version: int | None = None
        self._is_failing = False
        self._identities: dict[str, Identity] = {}
        self._keys: Mapping[str, Key] = {}
        self._by_certificate: dict[str, str] = {}
        self._uses: dict[str, Use] = {}
        self._ended_logins: set[str] = set()
        self._cuts: Mapping[str, float] = {}

    def refresh(self) -> None:
        """Read the keys again when another process has changed the database; otherwise take only microseconds.

        Raises:
            DependencyUnavailable: the database cannot be read, so no key can be checked.
        """
        try:
            version = self._store.version()
            if version != self._version:
                self._take(self._store.keys())
                self._ended_logins = set(self._store.ended_logins())
                self._cuts = self._store.login_cuts()
                self._version = version
        except (sqlite3.Error, ValueError, KeyError, TypeError) as error:
            if not self._is_failing:
                log.error("the key database cannot be read, so every call is refused: %s", error)  # noqa: TRY400  no traceback: the text says it all
            self._is_failing = True
            raise DependencyUnavailable("the gateway cannot verify keys at the moment", retry_after_s=5.0) from None
        if self._is_failing:
            log.info("the key database can be read again")
        self._is_failing = False

    def _take(self, keys: Mapping[str, Key]) -> None:
        # A key that has not changed keeps its `Identity` object, because guards and caches refer to that object.
        self._identities = {
            key_id: known
            if (known := self._identities.get(key_id)) is not None and known.claims == key
            else Identity(id=key_id, kind="key", display_name=key.name, claims=key, roles=_roles(key))
            for key_id, key in keys.items()
        }
        self._keys = keys
        now = self._now()
        self._by_certificate = {
            name: key_id for key_id, key in keys.items() if not key.why_dead(now) for name in key.certificate_names
        }

    def verify(self, text: KeyText) -> Verified:
        """Check a key that a caller sent. The check takes the same time, whatever is wrong with the key."""
        key = self._keys.get(text.key_id)
        digest = self._store.digest(text.key_id, text.secret)
        now = self._now()
        hashes = key.hashes if key is not None else ()
        matches = is_live = False
        for index in range(_SECRETS):
            stored = hashes[index] if index < len(hashes) else None
            same = hmac.compare_digest(digest, stored.digest if stored is not None else _NO_DIGEST)
            if stored is not None and same:
                matches = True
                is_live = stored.expires_at is None or now < stored.expires_at
        if key is None:
            return Verified(None, "unknown key")
        if key.revoked_at is not None:
            return Verified(None, "key revoked")
        if not matches or key.environment != text.environment:
            return Verified(None, "wrong secret")
        if not is_live:
            return Verified(None, "secret replaced")
        if why := key.why_dead(now):
            return Verified(None, f"key {why}")
        return Verified(self._identities[key.id])

    def by_certificate(self, names: tuple[str, ...]) -> Verified:
        """Look for a valid key that belongs to one of these names of a client certificate; return the result."""
        for name in names:
            key_id = self._by_certificate.get(name)
            if key_id is not None and not self._keys[key_id].why_dead(self._now()):
                return Verified(self._identities[key_id])
        return Verified(None, "no key has this certificate name")

    def why_dead(self, key_id: str) -> str:
        """Return why a key is no longer valid (see `Key.why_dead`); "" for a valid key."""
        key = self._keys.get(key_id)
        return "revoked" if key is None else key.why_dead(self._now())

    def key(self, key_id: str) -> Key | None:
        """Return the key with this id, valid or not; None when no key has this id."""
        return self._keys.get(key_id)

    # logins of operators

    def is_login_ended(self, login_id: str) -> bool:
        """Return whether a login was ended by a logout."""
        return login_id in self._ended_logins

    def logins_ended_before(self, name: str) -> float:
        """Return a time: all logins of this person that began before it have ended. 0 when no logins were ended."""
        return self._cuts.get(name.casefold(), 0.0)

    def end_login(self, login_id: str, expires_at: float) -> None:
        """End a login, and store this, so that the login stays ended after a restart of the gateway."""
        self._ended_logins.add(login_id)
        try:
            self._store.end_login(login_id, expires_at)
        except sqlite3.Error as error:
            log.warning("that a login ended could not be written: %s", error)

    # the last use of each key

    def used(self, key_id: str, peer: Peer) -> None:
        """Remember when and from where a key was used; `write_uses` stores this later."""
        self._uses[key_id] = Use(self._now(), peer.address)

    def write_uses(self) -> None:
        """Store the remembered uses of keys. After a failure, the next call tries again."""
        if not self._uses:
            return
        try:
            self._store.note_uses(self._uses)
        except sqlite3.Error as error:
            log.warning("when keys were used last could not be written: %s", error)
        else:
            self._uses = {}
