"""The end of the audit log, read back for administrators: bounded, whatever is in the file, and safe to show."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from mxgw_core.api import AuditEntry
from mxgw_core.api.errors import DependencyUnavailable

# Some hundred lines as they mostly are; read from the end, so that the size of the file does not matter.
_WINDOW_BYTES = 256 * 1024
_MOST_ENTRIES = 1000


class AuditTail:
    """Reads the file itself, so that what other processes append is there as well. Lives in the event loop."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # What was read last, and of what: looking again costs nothing while nothing was appended.
        self._of: tuple[int, int, int, int] | None = None
        self._entries: Sequence[AuditEntry] = ()
        # By its line: while the log grows, only what is new is taken apart.
        self._known: dict[bytes, AuditEntry] = {}

    def last(self, limit: int) -> Sequence[AuditEntry]:
        """Return the newest entries, at most `limit`, oldest first; of a file just rotated there are few.

        Raises:
            DependencyUnavailable: the file cannot be read.
        """
        try:
            with self._path.open("rb") as file:
                facts = os.fstat(file.fileno())
                of = facts.st_dev, facts.st_ino, facts.st_size, limit
                if of != self._of:
                    start = max(0, facts.st_size - _WINDOW_BYTES)
                    file.seek(start)
                    lines = _lines(file.read(_WINDOW_BYTES), limit, is_cut=start > 0)
                    self._known = {line: self._known.get(line) or _entry(line) for line in lines}
                    self._entries = tuple(self._known[line] for line in lines)
                    self._of = of
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise DependencyUnavailable(f"the audit log cannot be read: {error.strerror}") from error
        return self._entries


def _lines(data: bytes, limit: int, *, is_cut: bool) -> Sequence[bytes]:
    # Behind the last line end is nothing, or a line that is not whole yet.
    lines = data.split(b"\n")[1 if is_cut else 0 : -1]
    wanted = max(0, min(limit, _MOST_ENTRIES))
    # Nothing stands between two line ends where somebody else wrote an empty line.
    return [line for line in lines[max(0, len(lines) - wanted) :] if line]


def _entry(line: bytes) -> AuditEntry:
    try:
        facts = json.loads(line)
        time_ns = int(datetime.fromisoformat(facts["time"]).timestamp() * 1e9)
    except (ValueError, KeyError, TypeError):
        # Where records are missing, or somebody else wrote into the file: that is worth seeing.
        return AuditEntry(
            0, "?", "?", "?", reason="no whole record: its process was killed as it wrote, or it is not of this log"
        )

    def text(name: str) -> str:
        return shown(str(facts.get(name, "")))

    return AuditEntry(
        time_ns,
        text("actor"),
        text("action"),
        text("decision"),
        text("reason"),
        text("peer"),
        text("session"),
        text("tag"),
        text("detail"),
        text("correlation"),
    )


def shown(text: str) -> str:
    """Return the text with everything that is not printable escaped, as in a Python string."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
