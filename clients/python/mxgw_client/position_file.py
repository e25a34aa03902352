"""Stores the position of a stream in a file, so that the next run of a program goes on where this run stopped.

The file contains the session id and the position. Each time, a new file is written, synced to the disk and renamed to
the old name. The file is therefore never half written: after a crash it has the old or the new position.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from mxgw.private_files import create_private
from mxgw_client.errors import PositionFileError
from mxgw_client.position import Position

log = logging.getLogger(__name__)

T = TypeVar("T")

# The default time between two writes of the position, in seconds. After a program was killed, its next run can get the
# events of the last such interval a second time.
POSITION_INTERVAL_S = 0.2

_VERSION = 1
_KEY = "mxgw_position_file"
# A position file has less than 1 KiB. A file larger than this limit is some other file.
_LARGEST_BYTES = 4096
# How often a step that Windows refuses is tried again, and the time in seconds between two attempts.
_ATTEMPTS, _AGAIN_S = 10, 0.05


@dataclass(frozen=True, slots=True)
class StoredPosition:
    """The content of a position file: the next run resumes the session `session_id` after `position`.

    `snapshot_owed` is True when the stream was stopped in the middle of a snapshot. The next stream must then begin
    with a complete snapshot.
    """

    session_id: str
    position: Position
    snapshot_owed: bool = False


def read_position_file(path: Path | str) -> StoredPosition | None:
    """Return the content of a position file; None when there is no such file.

    Raises:
        PositionFileError: the file cannot be read, or is no position file; the text says what to do.
    """
    path = Path(path)
    try:
        raw = _patiently(lambda: _beginning_of(path))
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
    except (ValueError, RecursionError):  # the file is not JSON, not UTF-8, or its position is malformed
        return None


class PositionFile:
    """Keeps a file with the newest position that was passed to `note`. `close` writes the last position.

    A separate thread writes the file, at most once per `interval_s` seconds, so that `note` does not wait for the disk.
    With `interval_s` 0 there is no thread: `note` writes the file itself and returns when the position is on the disk.
    When a write fails, the next call of `note` or `close` raises the error.
    """

    def __init__(self, path: Path | str, session_id: str, interval_s: float) -> None:
        """Read the file if it exists. The attribute `stored` is its content, or None when there is no file.

        Raises:
            PositionFileError: the file is unreadable, has other content, or belongs to another session; its directory
                cannot be written to; or `interval_s` is negative.
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
        if not self.path.parent.is_dir() or not os.access(self.path.parent, os.W_OK | os.X_OK):
            raise PositionFileError(f"no file can be written in {self.path.parent.absolute()}: is it a directory?")
        self._latest = self._written = self.stored
        self._failure: PositionFileError | None = None
        self._writing = threading.Lock()
        # Wakes the thread that writes. `note` sets it when there is a new position, and `close` to end the thread.
        self._wanted = threading.Event()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        # Closes the file when the stream is garbage collected; None until `close_when_dropped` is called.
        self._finalizer: weakref.finalize[..., object] | None = None

    def close_when_dropped(self, stream: object) -> None:
        """Arrange that the file is closed when `stream` is garbage collected, unless `end` is called before that."""
        self._finalizer = weakref.finalize(stream, _close_quietly, self)

    def note(self, position: Position | None, *, snapshot_owed: bool = False) -> None:
        """Store `position`, because the application has processed everything up to it.

        The position reaches the file at the next write (see the class). None is ignored.

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
        """Write the last position and end the thread; idempotent. Any thread is allowed to call this.

        Raises:
            PositionFileError: the position could not be written.
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
        """Pass the last position to `note`, unless it is None, and close the file.

        Raises:
            PositionFileError: the position could not be written.
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
    """Close the file of a stream that was garbage collected. A failure is logged, as no caller could handle it."""
    try:
        file.close()
    except PositionFileError as error:
        log.warning("%s", error)


def _beginning_of(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_LARGEST_BYTES + 1)


def _patiently(step: Callable[[], T]) -> T:
    """Return the result of a step, which Windows perhaps refuses at first.

    A file cannot be replaced while another program has it open, for example a virus scanner, nor be opened while it is
    replaced.
    """
    for _ in range(_ATTEMPTS if os.name == "nt" else 0):
        try:
            return step()
        except PermissionError:
            _pause()
    return step()


def _pause() -> None:
    time.sleep(_AGAIN_S)


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
    try:
        with os.fdopen(create_private(new), "w", encoding="utf-8") as file:
            json.dump(document, file, indent=1)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        _patiently(lambda: new.replace(path))
    except OSError:
        with contextlib.suppress(OSError):
            new.unlink(missing_ok=True)
        raise
    # Sync the directory too, because the rename is stored there. (Windows cannot open a directory for this.)
    if os.name != "nt":
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
