"""The start-up frame. It is the only frame on a worker's standard input, and has everything that the worker needs,
including its secret.
"""

from __future__ import annotations

import json
from typing import BinaryIO

from google.protobuf.message import DecodeError

from mxgw.worker.v1.worker_pb2 import WorkerStartup
from mxgw_worker.ipc.framing import HEADER_BYTES, FrameDecoder, FrameError, frame
from mxgw_worker.ipc.handshake import PROTOCOL_VERSION, SECRET_BYTES

MAXIMUM_STARTUP_BYTES = 1024 * 1024
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
# The smallest frame size that can be set. A smaller frame could not hold a page of an answer.
MINIMUM_FRAME_BYTES = 4096

_POSITIVE = (
    "outbox_events",
    "outbox_bytes",
    "heartbeat_interval_ms",
    "write_completion_timeout_ms",
    "read_timeout_ms",
    "maximum_items",
    "maximum_reference_bytes",
)


class StartupError(Exception):
    """The start-up frame is missing or invalid. The text names the wrong field, and never shows the content of the
    field.
    """


def write_startup(stream: BinaryIO, startup: WorkerStartup) -> None:
    """Write the start-up frame. The caller must close the stream afterwards.

    Raises:
        StartupError: a field is missing or out of range, or the frame is larger than 1 MiB.
    """
    check_startup(startup)
    payload = startup.SerializeToString()
    if len(payload) > MAXIMUM_STARTUP_BYTES:
        raise StartupError(
            f"the start-up frame has {len(payload)} bytes, the limit is {MAXIMUM_STARTUP_BYTES}; "
            "shorten the backend's options"
        )
    stream.write(frame(payload))
    stream.flush()


def read_startup(stream: BinaryIO) -> WorkerStartup:
    """Read and check the start-up frame. Nothing after the frame is read.

    Raises:
        StartupError: the input ends early, is no frame, is too large, or a field is missing or out of range.
    """
    decoder = FrameDecoder(MAXIMUM_STARTUP_BYTES)
    try:
        header = _read_exactly(stream, HEADER_BYTES)
        decoder.feed(header)
        payloads = decoder.feed(_read_exactly(stream, int.from_bytes(header, "big")))
        decoder.end()
    except FrameError as error:
        raise StartupError(f"standard input holds no start-up frame: {error}") from None
    if not payloads:
        raise StartupError("standard input holds no start-up frame: it is empty; the gateway starts workers")
    startup = WorkerStartup()
    try:
        startup.ParseFromString(payloads[0])
    except DecodeError:
        raise StartupError("the start-up frame is no WorkerStartup message") from None
    check_startup(startup)
    return startup


def check_startup(startup: WorkerStartup) -> None:
    """Check every field of the start-up message.

    Raises:
        StartupError: a field is missing or out of range; the text names the first such field.
    """
    if startup.protocol_version != PROTOCOL_VERSION:
        raise StartupError(
            f"protocol_version is {startup.protocol_version}, this worker speaks {PROTOCOL_VERSION}; "
            "gateway and worker must come from one installation"
        )
    for name in ("session_id", "endpoint", "backend_kind"):
        if not getattr(startup, name):
            raise StartupError(f"{name} is empty")
    if len(startup.secret) != SECRET_BYTES:
        raise StartupError(f"secret has {len(startup.secret)} bytes, it must have {SECRET_BYTES}")
    for name in _POSITIVE:
        if getattr(startup, name) == 0:
            raise StartupError(f"{name} is 0, it must be positive")
    if startup.maximum_frame_bytes < MINIMUM_FRAME_BYTES:
        raise StartupError(
            f"maximum_frame_bytes is {startup.maximum_frame_bytes}, it must be at least {MINIMUM_FRAME_BYTES}"
        )
    if startup.log_level not in LOG_LEVELS:
        raise StartupError(f"log_level {startup.log_level!r} is none of {', '.join(LOG_LEVELS)}")
    backend_options(startup)


def backend_options(startup: WorkerStartup) -> dict[str, object]:
    """Return the backend's options, which can contain credentials.

    Raises:
        StartupError: the options are no JSON object.
    """
    try:
        options = json.loads(startup.backend_options_json or "{}")
    except ValueError as error:
        # The text of the error only names a place in the JSON text. The exception itself holds the whole JSON text, so
        # it is not chained.
        raise StartupError(f"backend_options_json is no JSON: {error}") from None
    if not isinstance(options, dict):
        raise StartupError(f"backend_options_json holds a {type(options).__name__}, it must hold an object")
    return options


def _read_exactly(stream: BinaryIO, count: int) -> bytes:
    """Return `count` bytes, or fewer at the end of the input. Memory is used only for bytes that have arrived."""
    parts: list[bytes] = []
    while count > 0:
        part = stream.read(min(count, 65536))
        if not part:
            break
        parts.append(part)
        count -= len(part)
    return b"".join(parts)
