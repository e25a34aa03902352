"""Checks the rows of a manifest and converts them to the types of `mxgw_core.api`.

After a fault of the disk or of a program, a file that SQLite can read can still contain impossible values. An
impossible value is never used: a wrong pid could belong to another process, and a time after the year 9999 cannot be
sent in a message.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mxgw_core.api import CloseReason, EndedSession, Orphan, SessionInfo, SessionState, WorkerIdentity, WorkerSpawn

# The largest value of the type pid_t. On Linux a pid is at most 2**22 (PID_MAX_LIMIT).
_LARGEST_PID = 2**31 - 1
# The end of the year 9999, in seconds since 1970: the latest time that google.protobuf.Timestamp can hold.
_LATEST_S = 253_402_300_799.0
# The longest accepted duration: what the settings accept as the longest lease, 100 years.
_LONGEST_S = 36_525 * 86_400.0
_LONGEST_TEXT = 65_536
_LONGEST_ID = 256
_EPOCH_BYTES, _SECRET_BYTES, _HASH_BYTES = 16, 32, 32
# The largest accepted number of a row in the table `ended`. SQLite gives a new row the highest number plus one. After a
# damaged row with the number 2**63 - 1, SQLite would choose random numbers instead, and the order of the rows would be
# lost.
_LARGEST_NUMBER = 2**53


def _text(value: Any) -> bool:
    if not isinstance(value, str) or len(value) > _LONGEST_TEXT:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        # The stored bytes were not UTF-8. `opening.py` reads such bytes as surrogates, which cannot be encoded.
        return False
    return True


def _id(value: Any) -> bool:
    return _text(value) and 0 < len(value) <= _LONGEST_ID and value.isascii() and value.isprintable()


def _number(lowest: int, highest: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and lowest <= value <= highest


def _seconds(highest: float) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int | float) and math.isfinite(value) and 0 <= value <= highest


def _bytes(*lengths: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, bytes) and len(value) in lengths


# The columns that the tables `worker` and `ended` have in common. Key: column name. Value: a function that checks a
# value of the column, and the value that replaces an impossible value when the session is recorded as ended.
_SESSION: Mapping[str, tuple[Callable[[Any], bool], Any]] = {
    "session_id": (_id, None),
    "owner": (_text, None),
    "backend": (_text, ""),
    "tag": (_text, ""),
    "client_name": (_text, ""),
    "lease_s": (_seconds(_LONGEST_S), 0.0),
    "opened_at": (_seconds(_LATEST_S), 0.0),
    "epoch": (_bytes(0, _EPOCH_BYTES), b""),
    "request_key": (_bytes(0, _HASH_BYTES), b""),
    "request_digest": (_bytes(0, _HASH_BYTES), b""),
}
_WORKER: Mapping[str, Callable[[Any], bool]] = {
    **{name: check for name, (check, _) in _SESSION.items()},
    "endpoint": _text,
    "owner_kind": _text,
    "owner_name": _text,
    "lifetime_s": _seconds(_LONGEST_S),
    "secret": _bytes(_SECRET_BYTES),
    "former_secret": lambda value: value is None or _bytes(_SECRET_BYTES)(value),
    "pid": _number(0, _LARGEST_PID),
    "start_ticks": _number(0, 2**63 - 1),
    "boot_id": _text,
    "protocol_version": _number(0, 2**32 - 1),
    "close_reason": _text,
    "had_subscriber": _number(0, 1),
}
_ENDED: Mapping[str, Callable[[Any], bool]] = {
    **{name: check for name, (check, _) in _SESSION.items()},
    "number": _number(1, _LARGEST_NUMBER),
    "closed_at": _seconds(_LATEST_S),
    "close_reason": _text,
    "close_detail": _text,
}


def impossible_in_worker(row: sqlite3.Row) -> list[str]:
    """Return the columns that have impossible values in a row of the table `worker`."""
    return [name for name, is_possible in _WORKER.items() if not is_possible(row[name])]


def impossible_in_ended(row: sqlite3.Row) -> list[str]:
    """Return the columns that have impossible values in a row of the table `ended`."""
    return [name for name, is_possible in _ENDED.items() if not is_possible(row[name])]


def rememberable(row: sqlite3.Row) -> dict[str, Any] | None:
    """Return the columns of a session for the table `ended`, with every impossible value replaced.

    Return None when the session id or the owner is impossible, because no client could ask for that session.
    """
    columns = {name: row[name] if check(row[name]) else instead for name, (check, instead) in _SESSION.items()}
    return None if columns["session_id"] is None or columns["owner"] is None else columns


def orphan_of(row: sqlite3.Row, data_dir_id: str, adopt_within_s: float) -> Orphan:
    """Return the orphan that a row of the table `worker` describes."""
    spawn = WorkerSpawn(
        session_id=row["session_id"],
        backend=row["backend"],
        endpoint=Path(row["endpoint"]),
        secret=row["secret"],
        owner=row["owner"],
        tag=row["tag"],
        client_name=row["client_name"],
        lease_s=row["lease_s"],
        owner_kind=row["owner_kind"],
        owner_name=row["owner_name"],
        opened_at=row["opened_at"],
        data_dir_id=data_dir_id,
        request_key=row["request_key"],
        request_digest=row["request_digest"],
    )
    worker = WorkerIdentity(
        session_id=row["session_id"],
        pid=row["pid"],
        start_ticks=row["start_ticks"],
        epoch=row["epoch"],
        protocol_version=row["protocol_version"],
        boot_id=row["boot_id"],
    )
    closing = _reason(row["close_reason"]) if row["state"] == "closing" else None
    return Orphan(
        spawn=spawn,
        worker=worker,
        former_secret=row["former_secret"],
        was_ready=row["state"] != "starting",
        closing=closing,
        lifetime_s=row["lifetime_s"],
        adopt_within_s=adopt_within_s,
        had_subscriber=bool(row["had_subscriber"]),
    )


def ended_of(row: sqlite3.Row) -> EndedSession:
    """Return the ended session that a row of the table `ended` describes."""
    reason = _reason(row["close_reason"])
    info = SessionInfo(
        session_id=row["session_id"],
        state=SessionState.FAULTED if reason.is_fault else SessionState.CLOSED,
        owner=row["owner"],
        client_name=row["client_name"],
        tag=row["tag"],
        backend=row["backend"],
        opened_at=row["opened_at"],
        epoch=row["epoch"],
        head_sequence=0,
        oldest_sequence=0,
        subscribers=0,
        worker_pid=0,
        close_reason=reason,
        close_detail=row["close_detail"],
    )
    return EndedSession(info, row["closed_at"], row["lease_s"], row["request_key"], row["request_digest"])


def _reason(name: str) -> CloseReason:
    """Return the close reason of this name; GATEWAY_SHUTDOWN when this release has no reason of this name."""
    return CloseReason.__members__.get(name, CloseReason.GATEWAY_SHUTDOWN)
