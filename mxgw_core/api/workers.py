"""Worker processes. For plugins that watch them, or keep them over a restart of the gateway."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from pathlib import Path

from mxgw_core.api.types import CloseReason


@dataclass(frozen=True, slots=True)
class WorkerSpawn:
    """A worker that is about to be started. Gateway and worker prove themselves to each other with `secret`.

    `owner`, `owner_kind` and `owner_name` are those of the identity that opened the session; `opened_at` is wall clock,
    seconds since 1970. `data_dir_id` is `Gateway.data_dir_id` of the gateway that starts the worker. `request_key` and
    `request_digest` are hashes by which a repeated OpenSession is recognised (empty when the call had no request id). A
    plugin that keeps workers over a restart of the gateway must store them too.
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
    """Return whether a stored `data_dir_id` names the same directory as a present one.

    Device numbers may change when the machine boots, so after a boot only the inode counts: no worker survives a boot.
    """
    (known_device, known_inode, known_boot), (device, inode, boot) = _parts(known), _parts(now)
    return known_inode == inode and (known_device == device or known_boot != boot)


def _parts(data_dir_id: str) -> tuple[str, str, str]:
    device, _, rest = data_dir_id.partition(":")
    inode, _, boot = rest.partition(":")
    return device, inode, boot


@dataclass(frozen=True, slots=True)
class WorkerIdentity:
    """A worker process. `start_ticks` (since boot) and `boot_id` tell it from a later process with the same pid.

    `boot_id` also names the set of pids (a container has its own), because outside of it the pid is another process.

    `epoch` is empty and `protocol_version` 0 until the worker has proved itself.
    """

    session_id: str
    pid: int
    start_ticks: int
    epoch: bytes
    protocol_version: int
    boot_id: str = ""


@dataclass(frozen=True, slots=True)
class WorkerProof:
    """A worker proved that it knows `former_secret`, and the gateway is about to confirm that: `secret` is its next
    one.

    If the confirmation does not arrive, the worker goes on with `former_secret`; its Ready message shows that it
    arrived.
    """

    worker: WorkerIdentity
    secret: bytes = field(repr=False)
    former_secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class WorkerRefusal:
    """Something connected to a worker's endpoint and was refused. None: the platform does not report it."""

    session_id: str
    reason: str
    detail: str
    peer_pid: int | None
    peer_uid: int | None


@dataclass(frozen=True, slots=True)
class WorkerExit:
    """The end of a worker. `exit_code` is negative for a signal, None when it cannot be known.

    `pid` is 0 for a worker that was announced and never started. `close_reason` and `close_detail` are those of its
    session.
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
    """A worker of an earlier run of the gateway that may still be alive.

    `spawn.secret` is the secret that it should prove now. A worker that never became ready, or whose session was ending
    (`closing`, with `closing_detail`), is never adopted. It has `adopt_within_s` seconds to come back.
    `had_subscriber`: its session had a subscriber, so its detach grace begins when it comes back.
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
