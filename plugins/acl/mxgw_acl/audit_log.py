"""The file of the audit log. Each line is a JSON object that says who did what, from where, and what was decided.

The file is private, and lines are only appended. It contains no secrets and no values of items. Line ends and all
characters outside ASCII are escaped, so that no name can begin a new line.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from mxgw_acl.files import check_private
from mxgw_core.api import correlation_id
from mxgw_core.api.errors import SettingsError
from mxgw_core.api.files import lock_file, open_private, unlock_file

log = logging.getLogger(__name__)

AUDIT_FILE = "audit.jsonl"

# The longest text in a field of a record, in characters; `detail` can be longer.
LONGEST_TEXT = 300
# The longest `detail` of a record, in characters. It has room for the items of most bulk calls; a longer list ends with
# the number of items that were left out.
LONGEST_DETAIL = 8 * 1024
# The interval at which `write` checks whether a log rotation has moved the file.
_ROTATION_CHECK_S = 1.0
# How long to wait while another process locks the file, which it normally does for one write only. The gateway waits in
# its event loop, so its limit is short. When a write could not lock the file in time, the next writes give up at once,
# until one of them finds the file unlocked.
GATEWAY_LOCK_WAIT_S, COMMAND_LOCK_WAIT_S = 0.25, 10.0
_LOCK_RETRY_S = 0.005


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """One decision, or one change that was made.

    `actor` is `key:<id>`, `operator:<name>`, `gateway`, `command line`, or, for an identity that was not proved,
    `claimed:<id or name>` or `unknown`. The name of an operator is spelled as in the directory, and a claimed name as
    `folded_name` spells it, so that `actor` does not depend on how a name was typed. `detail` can list items.
    `correlation` is the id of the call that caused the record, "" when no call caused it.
    """

    actor: str
    action: str
    decision: str
    reason: str = ""
    peer: str = ""
    session: str = ""
    tag: str = ""
    detail: str = ""
    correlation: str = field(default_factory=correlation_id)


class AuditLog:
    """Appends records to the file. Any thread can call the methods."""

    def __init__(
        self, path: Path, *, lock_wait_s: float = COMMAND_LOCK_WAIT_S, now: Callable[[], float] = time.time
    ) -> None:
        """Open the file, or create it. A write waits up to `lock_wait_s` while another process locks the file.

        Raises:
            SettingsError: the file cannot be opened for appending, or other users may read it.
        """
        self._path = path
        self._now = now
        self._lock = threading.Lock()
        self._lock_wait_s = lock_wait_s
        # Whether the last write could not lock the file in time.
        self._is_stuck = False
        self._checked_at = time.perf_counter()
        try:
            self._descriptor = self._open()
            check_private(path)
        except OSError as error:
            raise SettingsError(f"plugins.acl: the audit log {path} cannot be written: {error.strerror}") from error

    def _open(self) -> int:
        return open_private(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT)

    def write(self, record: AuditRecord) -> None:
        """Append a record as a line. When only a part of the line can be written, that part is removed again.

        Raises:
            OSError: the record could not be written, for example because another process keeps the file locked.
        """
        facts = {
            "time": datetime.fromtimestamp(self._now(), UTC).isoformat(timespec="milliseconds"),
            "actor": record.actor[:LONGEST_TEXT],
            "peer": record.peer[:LONGEST_TEXT],
            "action": record.action[:LONGEST_TEXT],
            "session": record.session[:LONGEST_TEXT],
            "tag": record.tag[:LONGEST_TEXT],
            "decision": record.decision,
            "reason": record.reason[:LONGEST_TEXT],
            "correlation": record.correlation[:LONGEST_TEXT],
        }
        if record.detail:
            facts["detail"] = record.detail[:LONGEST_DETAIL]
        line = (json.dumps(facts, ensure_ascii=True) + "\n").encode("ascii")
        with self._lock:
            self._follow_rotation()
            with self._alone():
                size = os.fstat(self._descriptor).st_size
                if self._is_torn(size):
                    line = b"\n" + line
                written = 0
                try:
                    written = os.write(self._descriptor, line)
                finally:
                    if written != len(line):
                        os.ftruncate(self._descriptor, size)
        if written != len(line):
            raise OSError(errno.ENOSPC, f"the audit log took {written} of a record's {len(line)} bytes")

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Lock the file during the block. Commands of the command line write to the same file.

        Without the lock, removing a partly written line could remove the record of another process as well.
        """
        until = time.perf_counter() + (0.0 if self._is_stuck else self._lock_wait_s)
        while not lock_file(self._descriptor):
            if time.perf_counter() >= until:
                self._is_stuck = True
                raise OSError(
                    errno.EWOULDBLOCK,
                    f"another process keeps {self._path} locked: look for an `mxgw keys` that is stopped, and "
                    "continue or end it",
                )
            time.sleep(_LOCK_RETRY_S)
        self._is_stuck = False
        try:
            yield
        finally:
            unlock_file(self._descriptor)

    def _is_torn(self, size: int) -> bool:
        """Return whether the last line is incomplete, because a process was killed while it wrote the line."""
        if size == 0:
            return False
        os.lseek(self._descriptor, -1, os.SEEK_END)
        return os.read(self._descriptor, 1) != b"\n"

    def _follow_rotation(self) -> None:
        now = time.perf_counter()
        if now - self._checked_at < _ROTATION_CHECK_S:
            return
        self._checked_at = now
        ours = os.fstat(self._descriptor)
        try:
            there = self._path.stat()
        except FileNotFoundError:
            there = None
        if there is None or (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino):
            fresh = self._open()
            os.close(self._descriptor)
            self._descriptor = fresh

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            os.close(self._descriptor)
