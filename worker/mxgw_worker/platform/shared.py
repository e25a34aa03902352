"""The parts of the platform layer that are the same on every platform."""

from __future__ import annotations

import contextlib
import enum
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

# What a thread has used so far: seconds of processor time; how often it has slept or waited, None where the system does
# not count this; and how often the system took the processor away from it, 0 where the system does not count this.
ThreadUse: TypeAlias = tuple[float, int | None, int]

# No process id is larger on any platform.
_LARGEST_PID = (1 << 31) - 1


@dataclass(frozen=True, slots=True)
class PeerCredentials:
    """Process id and user of a peer.

    `pid` and `uid` are None on a platform that does not report them; Windows has no numbers of users. `same_user` says
    whether the peer runs as the user of this process. It is also true on a platform that does not report the user; then
    only the proof of the secret keeps other users out.
    """

    pid: int | None
    uid: int | None
    same_user: bool


class StopKind(enum.Enum):
    """In which way a process is asked to stop."""

    INTERRUPT = "interrupt"  # a person pressed Ctrl-C
    TERMINATE = "terminate"  # another program asks: SIGTERM; on Windows Ctrl-Break or the stop event of the process


@dataclass(frozen=True, slots=True)
class StopRequest:
    """A request to stop. `name` is for messages; `exit_code` is for a process that ends at once for this reason."""

    kind: StopKind
    name: str
    exit_code: int


class DirectoryInUse(Exception):
    """Another process has locked the directory. `pid` is its process id, 0 when it is not known."""

    def __init__(self, pid: int) -> None:
        super().__init__(f"locked by process {pid or 'unknown'}")
        self.pid = pid


class LocksUnsupported(Exception):
    """The file system of a directory can lock neither directories nor files."""


def pid_in(lock: Path) -> int:
    """Return the process id in the file with which a directory is locked; 0 when there is none."""
    with contextlib.suppress(OSError), lock.open("rb") as file:
        text = file.read(32).strip()
        if text.isdigit() and int(text) <= _LARGEST_PID:
            return int(text)
    return 0
