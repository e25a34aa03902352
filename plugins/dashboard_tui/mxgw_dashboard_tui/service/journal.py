"""What happened since the gateway started, in memory: the newest entries, each shown to those who may see it."""

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
    """A bounded list of entries. Lives in the event loop, as the hooks that write to it do."""

    def __init__(self, limit: int, clock: Callable[[], int] = time.time_ns) -> None:
        self._entries: deque[_Kept] = deque(maxlen=limit)
        self._ended: deque[SessionInfo] = deque(maxlen=_ENDED_SESSIONS)
        self._clock = clock
        self._last = 0

    def add(
        self, kind: pb.JournalKind.ValueType, session: SessionInfo | None, detail: str, operator: str = ""
    ) -> pb.JournalEntry:
        """Add an entry with the present time."""
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
        """Remember a session that ended, for the list of sessions that ended lately."""
        self._ended.appendleft(session)

    def ended(self, may_see: SessionPredicate) -> list[SessionInfo]:
        """Return the sessions that ended lately and may be seen, the latest end first."""
        return [session for session in self._ended if may_see(session)]

    def ended_session(self, session_id: str) -> SessionInfo | None:
        """Return a session that ended lately; None when it is not remembered."""
        return next((session for session in self._ended if session.session_id == session_id), None)

    def after(self, number: int, may_see: SessionPredicate, *, administrator: bool) -> Sequence[pb.JournalEntry]:
        """Return the entries after `number` that may be seen, oldest first.

        Entries about a session are for those who may see the session; logins and actions of operators are for
        administrators.
        """
        return list(self._seen(number, may_see, administrator))

    def of_session(self, session_id: str, *, administrator: bool) -> Sequence[pb.JournalEntry]:
        """Return the entries about one session, oldest first. The caller must check whether it may be seen."""
        return [
            kept.message
            for kept in self._entries
            if kept.session is not None
            and kept.session.session_id == session_id
            and (administrator or kept.message.kind not in _FOR_ADMINISTRATORS)
        ]

    def _seen(self, number: int, may_see: SessionPredicate, administrator: bool) -> Iterator[pb.JournalEntry]:
        # From the newest backwards, because usually few entries are new.
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
