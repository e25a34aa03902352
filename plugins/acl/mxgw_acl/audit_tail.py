"""Reads the newest entries of the audit log for administrators, in bounded time and memory.

All texts that it returns are printable.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from mxgw_core.api import AuditEntry
from mxgw_core.api.errors import DependencyUnavailable

# How much of the end of the file is read, whatever its size: enough for some hundred typical lines.
_WINDOW_BYTES = 256 * 1024
_MOST_ENTRIES = 1000


class AuditTail:
    """Reads the end of the file of the audit log. Used in the event loop.

    The entries come from the file and not from memory, because other processes append to the file as well.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # `_of` has the identity and the size that the file had when it was last read, and the limit of that call.
        # `_entries` has the entries that were read. A call that finds the same identity, size and limit returns them.
        self._of: tuple[int, int, int, int] | None = None
        self._entries: Sequence[AuditEntry] = ()
        # Key: a line of the file. Value: its entry. Only lines that are not in this dict are parsed.
        self._known: dict[bytes, AuditEntry] = {}

    def last(self, limit: int) -> Sequence[AuditEntry]:
        """Return the newest entries of the file, at most `limit`, oldest first. After a log rotation there can be few.

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
    # The first line is left out when its beginning was not read. The text after the last line end is left out as well:
    # it is empty, or a line that is still being written.
    lines = data.split(b"\n")[1 if is_cut else 0 : -1]
    wanted = max(0, min(limit, _MOST_ENTRIES))
    # Another program can have written empty lines.
    return [line for line in lines[max(0, len(lines) - wanted) :] if line]


def _entry(line: bytes) -> AuditEntry:
    try:
        facts = json.loads(line)
        time_ns = int(datetime.fromisoformat(facts["time"]).timestamp() * 1e9)
    except (ValueError, KeyError, TypeError):
        # The line is damaged, or another program has written it. It is shown as an entry, because administrators should
        # see that the file has such a line.
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
    """Return the text with all unprintable characters escaped, as in a Python string."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
