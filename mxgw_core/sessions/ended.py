"""Remembers the sessions that ended lately, so that a client that comes back gets the close reason."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from mxgw_core.api.errors import SessionGone
from mxgw_core.api.types import SessionInfo
from mxgw_core.sessions.session import Session


@dataclass(frozen=True, slots=True)
class RememberedSession:
    """What is remembered of a session that ended.

    `serial` is the session's number in the order in which sessions were opened. `closed_at` is wall clock, seconds
    since 1970.
    """

    info: SessionInfo
    serial: int
    closed_at: float
    lease_s: float

    @classmethod
    def of(cls, session: Session) -> RememberedSession:
        """Return what to remember of a session that has just ended."""
        return cls(session.info(), session.serial, session.closed_at or time.time(), session.request.lease_s)


class EndedSessions:
    """The last `limit` sessions that ended, in this run of the gateway or in an earlier run."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._by_id: OrderedDict[str, RememberedSession] = OrderedDict()

    def add(self, session: RememberedSession) -> None:
        """Remember a session. When there are more than `limit` sessions, forget the session that was added first."""
        self._by_id[session.info.session_id] = session
        while len(self._by_id) > self._limit:
            self._by_id.popitem(last=False)

    def all(self) -> Sequence[RememberedSession]:
        """Return the remembered sessions, in the order in which they ended."""
        return tuple(self._by_id.values())

    def find(self, session_id: str) -> RememberedSession | None:
        """Return what is remembered of a session; None when the session is not remembered."""
        return self._by_id.get(session_id)

    def check_gone(self, session_id: str) -> None:
        """Make sure that no remembered session has this id.

        Raises:
            SessionGone: a remembered session has this id. The error says why the session ended.
        """
        ended = self._by_id.get(session_id)
        if ended is not None and ended.info.close_reason is not None:
            reason, detail = ended.info.close_reason.name, ended.info.close_detail
            raise SessionGone(
                f"session {session_id} ended ({reason}{f': {detail}' if detail else ''}): open a new one",
                metadata={"close_reason": reason},
            )
