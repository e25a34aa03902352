"""The position of a stream in a file, so that a new process goes on where the old one stopped.

The file names session and position. It is replaced as a whole (a new file is written, synced and renamed), so a reader
finds the old position or the new one, even after a crash of the machine.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import logging
import os
import threading
import weakref
from dataclasses import dataclass
from pathlib import Path

from mxgw_client.errors import PositionFileError
from mxgw_client.position import Position

log = logging.getLogger(__name__)

# How often the position is written by default. A program that was killed may get the events of that time again.
POSITION_INTERVAL_S = 0.2

_VERSION = 1
_KEY = "mxgw_position_file"
# A position file is far smaller; a larger one is some other file.
_LARGEST_BYTES = 4096


@dataclass(frozen=True, slots=True)
class StoredPosition:
    """The content of a position file: resume `session_id` after `position`.

    `snapshot_owed`: the stream was stopped before the end of a snapshot, so the next one must begin with a whole one.
    """

    session_id: str
    position: Position
    snapshot_owed: bool = False


def read_position_file(path: Path | str) -> StoredPosition | None:
    """Return the content of a position file; None when there is no such file.

    Raises:
        PositionFileError: the file cannot be read or has other content; the text says what to do.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            raw = file.read(_LARGEST_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise PositionFileError(f"the position file {path} cannot be read: {error.strerror or error}") from error
    stored = _stored_in(raw)
    if stored is None:
        raise PositionFileError(
            f"{path} is no position file of this release: restore it from a copy, or delete it to begin anew, which "
            "may skip or repeat events"
        )
    return stored


def _stored_in(raw: bytes) -> StoredPosition | None:
    try:
        document = json.loads(raw) if len(raw) <= _LARGEST_BYTES else None
        if not isinstance(document, dict) or document.get(_KEY) != _VERSION:
            return None
        session_id, text = document.get("session_id"), document.get("position")
        if not isinstance(session_id, str) or not session_id or not isinstance(text, str):
            return None
        return StoredPosition(session_id, Position.from_text(text), document.get("snapshot_owed") is True)
    except (ValueError, RecursionError):  # no JSON, no text, or no position
        return None


class PositionFile:
    """Writes positions to a file, at most one per `interval_s` seconds, and the last one at `close`.

    A thread of its own writes and waits for the disk, so that `note` returns at once. With `interval_s` 0 `note` itself
    writes, and returns when the position is safe on disk. A failure to write is raised by the next `note` or `close`.
    """

    def __init__(self, path: Path | str, session_id: str, interval_s: float) -> None:
        """Read the file, if there is one; its content is in `stored`.

        Raises:
            PositionFileError: the file is unreadable, has other content, or belongs to another session; or there is no
                directory to write it to.
        """
        self.path = Path(path)
        self._session_id = session_id
        self._interval_s = interval_s
        if interval_s < 0:
            raise PositionFileError(f"position_interval_s is {interval_s}; it must not be negative")
        self.stored = read_position_file(self.path)
        if self.stored is not None and self.stored.session_id != session_id:
            raise PositionFileError(
                f"the position file {self.path} belongs to session {self.stored.session_id}, not to {session_id}: "
                f"attach to that one with gateway.attach_session({self.stored.session_id!r}), take another file, or "
                "delete this one to begin anew"
            )
        if not os.access(self.path.parent, os.W_OK | os.X_OK):
            raise PositionFileError(f"no file can be written in {self.path.parent.absolute()}: is it a directory?")
        self._latest = self._written = self.stored
        self._failure: PositionFileError | None = None
        self._writing = threading.Lock()
        # Wakes the thread: set when there is a position to write, and by `close`.
        self._wanted = threading.Event()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        # Set by `close_when_dropped`.
        self._finalizer: weakref.finalize[..., object] | None = None

    def close_when_dropped(self, stream: object) -> None:
        """Write the last position and close once `stream` is garbage collected, unless `end` was called before."""
        self._finalizer = weakref.finalize(stream, _close_quietly, self)

    def note(self, position: Position | None, *, snapshot_owed: bool = False) -> None:
        """Keep `position` for the next write: the application has processed everything up to it.

        Raises:
            PositionFileError: this position, or an earlier one, could not be written.
        """
        if self._failure is not None:
            raise self._failure
        if position is None or self._closed.is_set():
            return
        latest = self._latest
        if latest is not None and latest.position == position and latest.snapshot_owed == snapshot_owed:
            return
        self._latest = StoredPosition(self._session_id, position, snapshot_owed)
        if self._interval_s == 0:
            self._write()
            if self._failure is not None:
                raise self._failure
        elif not self._wanted.is_set():
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="mxgw-client-position", daemon=True)
                self._thread.start()
            self._wanted.set()

    def _serve(self) -> None:
        while not self._closed.is_set():
            self._wanted.wait()
            self._wanted.clear()
            self._write()
            self._closed.wait(self._interval_s)

    def close(self) -> None:
        """Write the last position and stop; idempotent. May be called in any thread.

        Raises:
            PositionFileError: it could not be written.
        """
        self._closed.set()
        self._wanted.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        self._write()
        if self._failure is not None:
            raise self._failure

    def end(self, position: Position | None, *, snapshot_owed: bool) -> None:
        """Note the last position, unless it is None, and close.

        Raises:
            PositionFileError: it could not be written.
        """
        if self._finalizer is not None:
            self._finalizer.detach()
        try:
            if position is not None:
                self.note(position, snapshot_owed=snapshot_owed)
        finally:
            self.close()

    def _write(self) -> None:
        with self._writing:
            latest = self._latest
            if latest is None or latest is self._written:
                return
            try:
                _replace(self.path, latest)
            except OSError as error:
                self._failure = PositionFileError(
                    f"the position file {self.path} cannot be written: {error.strerror or error}. Events after "
                    f"{self._written.position.to_text() if self._written else 'the start'} may come again in a new run"
                )
            else:
                self._written, self._failure = latest, None


def _close_quietly(file: PositionFile) -> None:
    """Close the file of a stream that was garbage collected, where no caller could handle an error."""
    try:
        file.close()
    except PositionFileError as error:
        log.warning("%s", error)


def _replace(path: Path, stored: StoredPosition) -> None:
    document = {
        _KEY: _VERSION,
        "session_id": stored.session_id,
        "position": stored.position.to_text(),
        "saved_at": dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds"),
    }
    if stored.snapshot_owed:
        document["snapshot_owed"] = True
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0)
    try:
        with os.fdopen(os.open(new, flags, 0o600), "w", encoding="utf-8") as file:
            json.dump(document, file, indent=1)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            new.unlink(missing_ok=True)
        raise
    if os.name != "nt":  # the rename is safe on disk once the directory is
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
