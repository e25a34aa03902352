"""Worker processes. For plugins that watch workers, or keep workers over a restart of the gateway."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from pathlib import Path

from mxgw_core.api.ranges import check_range
from mxgw_core.api.types import CloseReason


@dataclass(frozen=True, slots=True)
class WorkerSpawn:
    """The properties of a worker that is about to be started. A plugin that keeps workers over a restart of the gateway
    must store all of them.

    Attributes:
        secret: a secret with which gateway and worker prove to each other who they are.
        owner: the id of the identity that opened the session; `owner_kind` and `owner_name` are its kind and its name.
        opened_at: when the session was opened: wall clock, seconds since 1970.
        data_dir_id: the `Gateway.data_dir_id` of the gateway that starts the worker.
        request_key: a hash of the OpenSession call's request id, which identifies a repeated call; empty without an id.
        request_digest: a hash of the call's fields. A repeated call must have the same one.
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
    """Return whether the stored `data_dir_id` `known` and the present one `now` mean the same directory.

    When the machine was booted in between, only the inode is compared, because device numbers can change at a boot.
    This is safe, because no worker survives a boot.
    """
    (known_device, known_inode, known_boot), (device, inode, boot) = _parts(known), _parts(now)
    return known_inode == inode and (known_device == device or known_boot != boot)


def _parts(data_dir_id: str) -> tuple[str, str, str]:
    device, _, rest = data_dir_id.partition(":")
    inode, _, boot = rest.partition(":")
    return device, inode, boot


@dataclass(frozen=True, slots=True)
class WorkerIdentity:
    """Identifies a worker process.

    The pid alone is not enough, because a later process can get the same pid. `start_ticks` is when the process was
    started, in clock ticks since the boot. `boot_id` identifies the boot, and also the pid namespace: inside a
    container the same pid means another process. `epoch` is empty and `protocol_version` is 0 until the worker has
    proved that it knows its secret.
    """

    session_id: str
    pid: int
    start_ticks: int
    epoch: bytes
    protocol_version: int
    boot_id: str = ""


@dataclass(frozen=True, slots=True)
class WorkerProof:
    """A worker proved that it knows its secret, which is `former_secret` now. The gateway is about to confirm this to
    the worker, and from then on the worker's secret is `secret`.

    If the confirmation does not arrive, the worker keeps using `former_secret`. The worker's Ready message, which the
    hook `mxgw_worker_ready` reports, shows that the confirmation has arrived.
    """

    worker: WorkerIdentity
    secret: bytes = field(repr=False)
    former_secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class WorkerRefusal:
    """A refused connection to a worker's socket. `peer_pid` and `peer_uid` are None when the platform does not report
    them.
    """

    session_id: str
    reason: str
    detail: str
    peer_pid: int | None
    peer_uid: int | None


@dataclass(frozen=True, slots=True)
class WorkerExit:
    """The end of a worker.

    `exit_code` is None when it is not known. When a signal ended the process, it is the negative number of the signal.
    `pid` is 0 when the process was never started. `reason` and `detail` say why the worker ended, `close_reason` and
    `close_detail` why its session ended.
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
    """A worker of an earlier run of the gateway that perhaps still lives.

    Attributes:
        spawn: the properties of the worker; `spawn.secret` is the secret that the worker must prove now.
        former_secret: the secret before this one, which is accepted too; None when there is none.
        was_ready: whether the worker was ever ready. If not, it is not adopted.
        closing: why its session was already ending when the earlier gateway stopped; the details are in
            `closing_detail`. None when the session was not ending: only then the orphan can be adopted.
        lifetime_s: how many seconds the worker lives on without a gateway.
        adopt_within_s: how many seconds the gateway waits for the worker to connect.
        had_subscriber: whether its session ever had a subscriber. If so, the detach grace begins at the adoption.

    Raises:
        ValueError: a time is negative or not finite.
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

    def __post_init__(self) -> None:
        check_range("Orphan.lifetime_s", self.lifetime_s)
        check_range("Orphan.adopt_within_s", self.adopt_within_s)

    @property
    def session_id(self) -> str:
        return self.spawn.session_id


class OrphanVerdict(enum.Enum):
    """What a plugin wants to happen to an orphan: adopt it, end it, or leave it alone."""

    ADOPT = "adopt"
    TERMINATE = "terminate"
    IGNORE = "ignore"
