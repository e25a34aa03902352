"""The file of the audit log: private, one JSON object per line, appended; who did what, from where, and the decision.

It holds no secrets and no tag values. All characters but printable ASCII are escaped, so that no name can break a line.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from mxgw_acl.files import FILE_MODE, check_private
from mxgw_core.api import correlation_id
from mxgw_core.api.errors import SettingsError

log = logging.getLogger(__name__)

AUDIT_FILE = "audit.jsonl"

# The longest text of a record, in characters.
LONGEST_TEXT = 300
# Room for the items of most bulk calls; a longer list ends with the number of items that were left out.
LONGEST_DETAIL = 8 * 1024
# How often to check whether a log rotation has moved the file.
_ROTATION_CHECK_S = 1.0
# How long to wait while another process keeps the file locked, usually for one write. The gateway waits in its event
# loop, so only briefly, and not a second time while the file stays locked.
GATEWAY_LOCK_WAIT_S, COMMAND_LOCK_WAIT_S = 0.25, 10.0
_LOCK_RETRY_S = 0.005


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """One decision. `actor` is `key:<id>`, `operator:<name>`, or `claimed:<id>` for an identity that was not proved.

    A name has one spelling here, however it was typed: that of the directory, or the folded name of an unproved claim.
    `detail` may list items. `correlation` is the id of the call that caused the decision, "" without one.
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
    """Appends to one file. Any thread may call it."""

    def __init__(
        self, path: Path, *, lock_wait_s: float = COMMAND_LOCK_WAIT_S, now: Callable[[], float] = time.time
    ) -> None:
        """Open the file; a write waits up to `lock_wait_s` for other processes that write to it.

        Raises:
            SettingsError: it cannot be appended to, or other users may read it.
        """
        self._path = path
        self._now = now
        self._lock = threading.Lock()
        self._lock_wait_s = lock_wait_s
        # Whether the last write waited for the lock in vain.
        self._is_stuck = False
        self._checked_at = time.monotonic()
        try:
            self._descriptor = self._open()
            check_private(path)
        except OSError as error:
            raise SettingsError(f"plugins.acl: the audit log {path} cannot be written: {error.strerror}") from error

    def _open(self) -> int:
        return os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, FILE_MODE)

    def write(self, record: AuditRecord) -> None:
        """Append a record on a line of its own. If only a part of it can be written, that part is removed again.

        Raises:
            OSError: it could not be written, for example because another process keeps the file locked.
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
        """Lock the file against other processes (the command line writes to it too), so that no other record is
        removed.
        """
        if sys.platform == "win32":
            yield
            return
        import fcntl

        until = time.monotonic() + (0.0 if self._is_stuck else self._lock_wait_s)
        while True:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= until:
                    self._is_stuck = True
                    raise OSError(
                        errno.EWOULDBLOCK,
                        f"another process keeps {self._path} locked: look for an `mxgw keys` that is stopped, and "
                        "continue or end it",
                    ) from None
                time.sleep(_LOCK_RETRY_S)
        self._is_stuck = False
        try:
            yield
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def _is_torn(self, size: int) -> bool:
        """Return whether the last line is incomplete, because a process was killed while it wrote."""
        if size == 0:
            return False
        os.lseek(self._descriptor, -1, os.SEEK_END)
        return os.read(self._descriptor, 1) != b"\n"

    def _follow_rotation(self) -> None:
        now = time.monotonic()
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
