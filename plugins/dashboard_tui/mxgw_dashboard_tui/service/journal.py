"""The journal: what happened since the gateway started. Only the newest entries are kept, and only in memory."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from mxgw.convert import timestamp_from_ns
from mxgw.dashboard.v1 import dashboard_service_pb2 as pb
from mxgw_core.api import SessionInfo, SessionPredicate

_ENDED_SESSIONS = 50


@dataclass(frozen=True, slots=True)
class _Kept:
    message: pb.JournalEntry
    session: SessionInfo | None


class Journal:
    """A bounded list of entries, and the sessions that ended lately. Use it in the event loop only."""

    def __init__(self, limit: int, clock: Callable[[], int] = time.time_ns) -> None:
        self._entries: deque[_Kept] = deque(maxlen=limit)
        self._ended: deque[SessionInfo] = deque(maxlen=_ENDED_SESSIONS)
        self._clock = clock
        self._last = 0

    def add(
        self, kind: pb.JournalKind.ValueType, session: SessionInfo | None, detail: str, operator: str = ""
    ) -> pb.JournalEntry:
        """Add an entry with the present time, and return it."""
        self._last += 1
        entry = pb.JournalEntry(
            number=self._last,
            time=timestamp_from_ns(self._clock()),
            kind=kind,
            session_id=session.session_id if session is not None else "",
            session_name=session.client_name if session is not None else "",
            operator=operator,
            detail=detail[:500],
        )
        self._entries.append(_Kept(entry, session))
        return entry

    def remember_ended(self, session: SessionInfo) -> None:
        """Add a session to the list of sessions that ended lately."""
        self._ended.appendleft(session)

    def ended(self, may_see: SessionPredicate) -> list[SessionInfo]:
        """Return the sessions that ended lately and that `may_see` allows; the session that ended last is the first."""
        return [session for session in self._ended if may_see(session)]

    def ended_session(self, session_id: str) -> SessionInfo | None:
        """Return the session of this id if it ended lately; otherwise None."""
        return next((session for session in self._ended if session.session_id == session_id), None)

    def after(self, number: int, may_see: SessionPredicate, *, administrator: bool) -> Sequence[pb.JournalEntry]:
        """Return the entries after entry `number` that an operator is allowed to see, oldest first.

        An entry about a session is returned only if `may_see` allows the session. Entries about logins, and about
        what operators did, are returned only to an `administrator`.
        """
        return list(self._seen(number, may_see, administrator))

    def of_session(self, session_id: str, *, administrator: bool) -> Sequence[pb.JournalEntry]:
        """Return the entries about one session, oldest first.

        The caller must check first whether the operator is allowed to see the session.
        """
        return [
            kept.message
            for kept in self._entries
            if kept.session is not None
            and kept.session.session_id == session_id
            and (administrator or kept.message.kind not in _FOR_ADMINISTRATORS)
        ]

    def _seen(self, number: int, may_see: SessionPredicate, administrator: bool) -> Iterator[pb.JournalEntry]:
        # The search begins at the newest entry, because usually few entries are new.
        newer = []
        for kept in reversed(self._entries):
            if kept.message.number <= number:
                break
            newer.append(kept)
        for kept in reversed(newer):
            if kept.message.kind in _FOR_ADMINISTRATORS and not administrator:
                continue
            if kept.session is None or may_see(kept.session):
                yield kept.message


_FOR_ADMINISTRATORS = frozenset({pb.JOURNAL_KIND_LOGIN, pb.JOURNAL_KIND_OPERATOR_ACTION})
