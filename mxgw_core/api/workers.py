"""What a plugin may know and say about worker processes."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from pathlib import Path

from mxgw_core.api.types import CloseReason


@dataclass(frozen=True, slots=True)
class WorkerSpawn:
    """A worker about to be started; no process knows of it yet. `secret` proves both ends to each other.

    `owner`, `owner_kind` and `owner_name` are those of the identity that opened the session; `opened_at` is wall
    clock, seconds since 1970. `data_dir_id` is `Gateway.data_dir_id` of the gateway that starts it. `request_key` and
    `request_digest` are hashes by which a repeat of the OpenSession call is known (empty when it had no request id):
    keep them with the worker, so that they outlive the gateway as it does.
    """

    session_id: str
    backend: str
    endpoint: Path
    secret: bytes = field(repr=False)
    owner: str
    tag: str
    client_name: str
    lease_s: float
    owner_kind: str = ""
    owner_name: str = ""
    opened_at: float = 0.0
    data_dir_id: str = ""
    request_key: bytes = field(default=b"", repr=False)
    request_digest: bytes = field(default=b"", repr=False)


def same_data_dir(known: str, now: str) -> bool:
    """Return whether a `data_dir_id` that was written down names the same directory as one of now.

    Devices may get other numbers as the machine boots, so after a boot the inode alone counts: no worker lives then.
    """
    (known_device, known_inode, known_boot), (device, inode, boot) = _parts(known), _parts(now)
    return known_inode == inode and (known_device == device or known_boot != boot)


def _parts(data_dir_id: str) -> tuple[str, str, str]:
    device, _, rest = data_dir_id.partition(":")
    inode, _, boot = rest.partition(":")
    return device, inode, boot


@dataclass(frozen=True, slots=True)
class WorkerIdentity:
    """A worker process. `start_ticks` (since boot) and `boot_id` defeat reuse of the pid.

    `boot_id` also names the system's set of pids (a container has its own): elsewhere a pid means another process.

    `epoch` is empty and `protocol_version` 0 until the worker proved itself.
    """

    session_id: str
    pid: int
    start_ticks: int
    epoch: bytes
    protocol_version: int
    boot_id: str = ""


@dataclass(frozen=True, slots=True)
class WorkerProof:
    """A worker proved itself and is about to be told so, which makes `secret` the one it proves next.

    One that never hears of it goes on with `former_secret`; its Ready shows that it heard.
    """

    worker: WorkerIdentity
    secret: bytes = field(repr=False)
    former_secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class WorkerRefusal:
    """Something connected to a worker's endpoint and was turned away. None: the platform does not tell."""

    session_id: str
    reason: str
    detail: str
    peer_pid: int | None
    peer_uid: int | None


@dataclass(frozen=True, slots=True)
class WorkerExit:
    """The end of a worker. `exit_code` is negative for a signal, None when it cannot be known.

    `pid` is 0 for one that was announced and never started. `close_reason` and `close_detail` are those of its session.
    """

    session_id: str
    pid: int
    exit_code: int | None
    reason: str
    detail: str
    close_reason: CloseReason = CloseReason.CLIENT
    close_detail: str = ""


@dataclass(frozen=True, slots=True)
class Orphan:
    """A worker of an earlier gateway run that may still be alive.

    `spawn.secret` is the one it should prove now. One that never became ready, or whose end had begun (`closing`, with
    `closing_detail`), is never adopted. `adopt_within_s` is how long it may take to come back. `had_subscriber`: its
    session had one, so that its detach grace begins as it is back.
    """

    spawn: WorkerSpawn
    worker: WorkerIdentity
    former_secret: bytes | None = field(default=None, repr=False)
    was_ready: bool = True
    closing: CloseReason | None = None
    lifetime_s: float = 0.0
    adopt_within_s: float = 10.0
    had_subscriber: bool = False
    closing_detail: str = ""

    @property
    def session_id(self) -> str:
        return self.spawn.session_id


class OrphanVerdict(enum.Enum):
    """What to do with an orphan."""

    ADOPT = "adopt"
    TERMINATE = "terminate"
    IGNORE = "ignore"
