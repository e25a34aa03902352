"""Makes a worker's start-up message from the settings, and encodes it for the standard input of the process."""

from __future__ import annotations

import json

from pydantic import SecretStr

from mxgw.worker.v1.worker_pb2 import WorkerStartup
from mxgw_core.api.workers import WorkerSpawn
from mxgw_core.config.models import Settings
from mxgw_worker.ipc.framing import frame
from mxgw_worker.ipc.handshake import PROTOCOL_VERSION

# The largest encoded start-up message. It must fit into the buffer of the pipe, so that writing never blocks. The
# buffer has 64 KiB on Linux (pipe(7)), and on Windows because `mxgw_worker.platform.spawn` makes it so.
_STARTUP_BYTES = 60 * 1024


class StartupTooLarge(ValueError):
    """The start-up message is too large, because of the options of the backend."""


def startup_payload(startup: WorkerStartup) -> bytes:
    """Return the bytes of a start-up message, for `WorkerProcess.send_startup`.

    Raises:
        StartupTooLarge: the message is too large, because of the options of the backend.
    """
    payload = frame(startup.SerializeToString())
    if len(payload) > _STARTUP_BYTES:
        raise StartupTooLarge(
            f"the worker's start-up settings take {len(payload)} bytes, more than {_STARTUP_BYTES}: "
            "shorten the options of the backend"
        )
    return payload


def startup_for(spawn: WorkerSpawn, settings: Settings, orphan_lifetime_s: float) -> WorkerStartup:
    """Return the start-up message of a worker. The message contains the worker's secret."""
    backend = settings.backends[spawn.backend]
    workers = settings.workers
    return WorkerStartup(
        protocol_version=PROTOCOL_VERSION,
        session_id=spawn.session_id,
        endpoint=str(spawn.endpoint),
        secret=spawn.secret,
        backend_kind=backend.kind or spawn.backend,
        backend_options_json=json.dumps(backend.options(), default=_plain),
        outbox_events=workers.outbox_events,
        outbox_bytes=workers.outbox_bytes,
        maximum_frame_bytes=workers.frame_bytes,
        heartbeat_interval_ms=int(workers.heartbeat_interval_s * 1000),
        write_completion_timeout_ms=int(workers.write_completion_timeout_s * 1000),
        read_timeout_ms=int(workers.read_timeout_s * 1000),
        orphan_lifetime_ms=int(orphan_lifetime_s * 1000),
        log_level=workers.log_level,
        maximum_items=workers.items,
        maximum_reference_bytes=settings.limits.reference_bytes,
    )


def _plain(value: object) -> object:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)
