"""OpenSession calls with a request id: a repeated call gets the session of the first call, and opens no second one."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mxgw_core.api.errors import RequestIdLimitReached, RequestIdReused, SessionGone
from mxgw_core.api.types import CloseReason, EndedSession
from mxgw_core.sessions.session import Session, SessionRequest

# How long a request id is remembered after the end of its session, as the contract promises.
REMEMBERED_S = 600.0
# How many sessions with a request id are remembered of each owner. An owner who opens and closes 8 sessions a second
# for ten minutes reaches this number.
_LIMIT = 5_000
# Memory that one remembered session uses. It is always about the same, because ids and digests have fixed lengths.
_ENDED_BYTES = 500
# When all callers stopped waiting while the session started, the session waits this long for a repeated call.
UNCLAIMED_S = 60.0


class Opening:
    """A session, and the OpenSession calls that wait until the session is READY.

    Attributes:
        was_opened: whether the session was ever READY, at this gateway or at an earlier one.
    """

    def __init__(self, session: Session, *, was_opened: bool) -> None:
        self.session = session
        self._was_opened = was_opened
        self._callers = 0
        self._is_claimed = was_opened

    @property
    def was_opened(self) -> bool:
        opened = self.session.opened
        return self._was_opened or (opened.done() and opened.exception() is None)

    @property
    def has_failed(self) -> bool:
        """Whether the session ended without ever being READY. A repeated call then opens another session."""
        return self.session.opened.done() and not self.was_opened

    async def wait(self) -> Session:
        """Wait until the session is READY, and return it.

        When the last caller stops waiting, a session that was opened with a request id ends only if no call is repeated
        within a minute.

        Raises:
            SessionGone: the session was opened, and has ended since.
            GatewayError: the session could not be opened.
        """
        session = self.session
        if self._was_opened:
            await asyncio.wait((session.opened,))
            session.require_ready()
            return session
        self._callers += 1
        try:
            await asyncio.shield(session.opened)
        except asyncio.CancelledError:
            if self._callers == 1 and session.request.key:
                asyncio.get_running_loop().call_later(UNCLAIMED_S, self._end_unclaimed)
            raise
        finally:
            self._callers -= 1
        self._is_claimed = True
        session.require_ready()
        return session

    def _end_unclaimed(self) -> None:
        if not self._callers and not self._is_claimed:
            self.session.close(CloseReason.CLIENT, f"nobody asked for it again within {UNCLAIMED_S:g} s")


@dataclass(frozen=True, slots=True)
class _Ended:
    session_id: str
    owner: str
    digest: bytes
    reason: CloseReason
    at: float


class Openings:
    """Remembers the request ids of live sessions, and of sessions that ended lately.

    `clock` returns monotonic seconds. `limit` is how many sessions of one owner are remembered, live and ended.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter, limit: int = _LIMIT) -> None:
        self._clock = clock
        self._limit = limit
        self._live: dict[bytes, Opening] = {}
        # Key: the request key. The entries are in the order in which the sessions ended.
        self._ended: dict[bytes, _Ended] = {}
        # Key: the owner. Value: how many ended sessions of this owner are remembered.
        self._ended_of: Counter[str] = Counter()

    def find(self, request: SessionRequest, owner: str) -> Opening | None:
        """Return the opening of the earlier call that this request repeats.

        Return None when the request has no request id, when the id is new, or when the earlier call failed.

        Raises:
            RequestIdReused: the id was used for a request with other fields.
            SessionGone: the session of the earlier call has ended.
            RequestIdLimitReached: the id is new, and too many sessions of this owner are remembered already.
        """
        if not request.key:
            return None
        self._forget_old()
        opening = self._live.get(request.key)
        if opening is not None and not opening.has_failed:
            _check_same(opening.session.request.digest, request)
            return opening
        ended = self._ended.get(request.key)
        if ended is not None:
            _check_same(ended.digest, request)
            raise SessionGone(
                f"session {ended.session_id}, which this request_id opened, ended ({ended.reason.name}): open another "
                "one with a new request_id",
                metadata={"close_reason": ended.reason.name, "session_id": ended.session_id},
            )
        live = sum(opening.session.owner.id == owner for opening in self._live.values())
        if live + self._ended_of[owner] >= self._limit:
            raise RequestIdLimitReached(
                f"this caller opened and ended {self._limit} sessions with a request_id within {REMEMBERED_S / 60:g} "
                "minutes, as many as are remembered: open sessions less often, or without request_id"
            )
        return None

    def session_of(self, key: bytes) -> Session | None:
        """Return the live session that a request with this key has opened or is opening; None when there is none."""
        opening = self._live.get(key)
        return None if opening is None or opening.has_failed else opening.session

    def bytes_by_owner(self) -> Mapping[str, int]:
        """Return for each owner how many bytes the remembered ended sessions use."""
        self._forget_old()
        return {owner: count * _ENDED_BYTES for owner, count in self._ended_of.items()}

    def add(self, session: Session, *, was_opened: bool = False) -> Opening:
        """Return the opening of a session. It is remembered when the session's request has an id."""
        opening = Opening(session, was_opened=was_opened)
        if session.request.key:
            self._live[session.request.key] = opening
        return opening

    def over(self, session: Session) -> None:
        """Move a session that is over to the ended sessions, or forget it when it was never READY."""
        key = session.request.key
        opening = self._live.get(key)
        if opening is None or opening.session is not session:
            return
        del self._live[key]
        if opening.was_opened and session.close_reason is not None:
            self._keep(
                key,
                _Ended(session.id, session.owner.id, session.request.digest, session.close_reason, self._clock()),
            )

    def remember(self, session: EndedSession) -> None:
        """Remember a session that ended in an earlier run of the gateway.

        Call this in the order in which the sessions ended. Sessions without a request id are
        ignored, and so are sessions that ended more than ten minutes ago.
        """
        reason, age_s = session.info.close_reason, max(0.0, time.time() - session.closed_at)
        if session.request_key and reason is not None and age_s < REMEMBERED_S:
            info = session.info
            self._keep(
                session.request_key,
                _Ended(info.session_id, info.owner, session.request_digest, reason, self._clock() - age_s),
            )

    def _keep(self, key: bytes, ended: _Ended) -> None:
        self._drop(key)
        self._ended[key] = ended
        self._ended_of[ended.owner] += 1

    def _drop(self, key: bytes) -> None:
        ended = self._ended.pop(key, None)
        if ended is None:
            return
        self._ended_of[ended.owner] -= 1
        if not self._ended_of[ended.owner]:
            del self._ended_of[ended.owner]

    def _forget_old(self) -> None:
        oldest_kept = self._clock() - REMEMBERED_S
        while self._ended:
            key, ended = next(iter(self._ended.items()))
            if ended.at > oldest_kept:
                return
            self._drop(key)


def _check_same(digest: bytes, request: SessionRequest) -> None:
    if digest != request.digest:
        raise RequestIdReused(
            "this request_id was used for an OpenSession with other fields: use a new one for each session, and the "
            "same only to repeat a call as it was",
            metadata={"field": "request_id"},
        )
