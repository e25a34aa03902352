"""Applies the limits of keys in a running gateway: items, events per second, and bytes of events kept per session."""

from __future__ import annotations

import time
from collections.abc import Callable

from mxgw_acl.item_rights import ItemRights
from mxgw_acl.keyring import Keyring
from mxgw_acl.keys import Key, Scope
from mxgw_core.api import BufferLimit, Gateway, Identity, SessionInfo, TokenBucket

# After a pause, the streams of a key can get as many events at once as the rate allows in this time, but at least one.
_BURST_S = 1.0


class KeyPace:
    """Implements `StreamPace`: one limit of events per second for all streams of a key. Used in the event loop."""

    def __init__(self, events_per_s: float, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self._bucket = TokenBucket(events_per_s, max(1.0, events_per_s * _BURST_S), clock=clock)

    @property
    def events_per_s(self) -> float:
        """The average rate that the streams of the key cannot exceed together."""
        return self._bucket.per_s

    def wait_s(self) -> float:
        """Return for how many seconds no events may be sent; 0 when events may be sent now."""
        return self._bucket.wait_s()

    def sent(self, events: int) -> None:
        """Count events that were sent. When more events than allowed were sent, the next wait is longer."""
        self._bucket.spend(events)


class KeyLimits:
    """Returns the objects that apply a key's limits; all sessions and streams of a key share them.

    Used in the event loop.
    """

    def __init__(self, keyring: Keyring, gateway: Gateway) -> None:
        self._keyring = keyring
        self._gateway = gateway
        self._rights: dict[str, tuple[Key, ItemRights]] = {}
        self._paces: dict[str, KeyPace] = {}

    def item_rights(self, identity: Identity) -> ItemRights | None:
        """Return what a caller may do with items; None when the caller may use all items."""
        key = identity.claims
        if not isinstance(key, Key) or not key.constraints.limits_items:
            return None
        known = self._rights.get(key.id)
        if known is None or known[0] != key:
            writes = bool(key.scopes & {Scope.WRITE, Scope.SECURED_WRITE})
            known = self._rights[key.id] = key, ItemRights(key.constraints, writes=writes)
        return known[1]

    def pace(self, identity: Identity) -> KeyPace | None:
        """Return the pace that all streams of a key share; None when the caller has no limit for events per second."""
        limit = identity.claims.constraints.maximum_events_per_s if isinstance(identity.claims, Key) else None
        if limit is None:
            return None
        known = self._paces.get(identity.id)
        if known is None or known.events_per_s != limit:
            known = self._paces[identity.id] = KeyPace(limit)
        return known

    def buffer(self, session: SessionInfo) -> BufferLimit | None:
        """Return how many bytes of events the gateway may keep for this session.

        Return None when the key that owns the session has no such limit.
        """
        key = self._keyring.key(session.owner)
        limit = key.constraints.maximum_buffer_bytes if key is not None else None
        return BufferLimit(limit, "the key's --max-buffer") if limit is not None else None

    def session_closed(self, session: SessionInfo) -> None:
        """When the last session of a key has ended, forget the remembered results of the key's item checks."""
        if session.owner in self._rights and not any(
            other.owner == session.owner and other.session_id != session.session_id
            for other in self._gateway.sessions()
        ):
            del self._rights[session.owner]

    def forget_dead_keys(self) -> None:
        """Forget the remembered results of the item checks of all keys that were revoked or have expired."""
        for key_id in [key_id for key_id in self._rights if self._keyring.why_dead(key_id)]:
            del self._rights[key_id]
