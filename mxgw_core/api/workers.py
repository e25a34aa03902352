"""What a plugin may know and say about worker processes."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class WorkerSpawn:
    """A worker about to be started; the process does not exist yet. `secret` proves both ends to each other."""

    session_id: str
    backend: str
    endpoint: Path
    secret: bytes = field(repr=False)
    owner: str
    tag: str
    client_name: str
    lease_s: float


@dataclass(frozen=True, slots=True)
class WorkerIdentity:
    """A worker process that proved itself. `start_ticks` (since boot) defeats reuse of the pid."""

    session_id: str
    pid: int
    start_ticks: int
    epoch: bytes
    protocol_version: int


@dataclass(frozen=True, slots=True)
class WorkerExit:
    """The end of a worker. `exit_code` is negative for a signal, None when it cannot be known."""

    session_id: str
    pid: int
    exit_code: int | None
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Orphan:
    """A worker of an earlier gateway run that may still be alive."""

    session_id: str
    pid: int
    start_ticks: int
    boot_id: str
    endpoint: Path
    owner: str
    tag: str


class OrphanVerdict(enum.Enum):
    """What to do with an orphan."""

    ADOPT = "adopt"
    TERMINATE = "terminate"
    IGNORE = "ignore"
