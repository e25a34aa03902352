"""A worker process: `python -I -m mxgw_worker`, with a WorkerStartup frame on standard input. The gateway starts it.

With the arguments `spare SIGNAL KIND` the process is started before its session exists. It imports the modules that
backends of this kind need, reports with SIGNAL that it is ready, and waits for the frame. When its input ends without a
frame, because the gateway has ended, the process exits.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
from collections.abc import Callable
from io import BufferedReader
from pathlib import Path
from typing import cast

from mxgw.worker.v1.worker_pb2 import WorkerStartup
from mxgw_worker.backends import backend_factory, create_backend
from mxgw_worker.backends.base import Backend
from mxgw_worker.ipc.startup import StartupError, backend_options, read_startup
from mxgw_worker.platform import StopKind, event_loop_class, ignore_interrupts, on_stop, report_ready
from mxgw_worker.worker import ExitCode, Worker

log = logging.getLogger(__name__)

STUCK_S = 1.0


def main() -> int:
    """Run a worker until it ends, and return its exit code."""
    # Ctrl-C in a terminal is meant for the gateway, which then stops its workers in order.
    ignore_interrupts()
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if len(sys.argv) > 1 and not _waited_as_spare(sys.argv[1:]):
        return ExitCode.STOPPED
    try:
        startup = read_startup(sys.stdin.buffer)
        options = backend_options(startup)
    except StartupError as error:
        log.critical("cannot start: %s", error)
        return ExitCode.BAD_STARTUP
    _close_stdin()
    logging.getLogger().setLevel(startup.log_level)
    log.info("session %s, backend %s, pid %d", startup.session_id, startup.backend_kind, os.getpid())
    # The backend is imported before the handshake. The import needs much processor time, and the gateway limits how
    # many workers are in this phase at a time.
    _import_backend(startup.backend_kind)
    with asyncio.Runner(loop_factory=event_loop_class()) as runner:
        return runner.run(_run(startup, lambda: create_backend(startup.backend_kind, options)))


def _waited_as_spare(arguments: list[str]) -> bool:
    """Import the backend and wait for the start-up frame, as a spare worker, which has no session yet. Return False
    when the input ended without a frame.
    """
    _, ready, kind = arguments
    _import_backend(kind)
    report_ready(ready)
    return bool(cast("BufferedReader", sys.stdin.buffer).peek(1))


def _import_backend(kind: str) -> None:
    try:
        backend_factory(kind)
    except Exception:  # This error is not reported here. `create_backend` raises it again when the backend is created.
        log.debug("backend kind %s cannot be imported", kind, exc_info=True)


async def _run(startup: WorkerStartup, make_backend: Callable[[], Backend]) -> ExitCode:
    worker = Worker(startup, make_backend)
    on_stop(lambda request: worker.stop(request.name), StopKind.TERMINATE)
    return await worker.run(_leave_soon)


def _leave_soon(exit_code: ExitCode) -> None:
    """Make sure that the process exits, even if a call or a thread of the backend never ends."""
    last_resort = threading.Timer(STUCK_S, _leave_now, (exit_code,))
    last_resort.daemon = True
    last_resort.start()


def _leave_now(exit_code: ExitCode) -> None:
    log.error("the backend holds the process; leaving without it")
    logging.shutdown()
    os._exit(exit_code)


def _close_stdin() -> None:
    """Close the pipe through which the secret came. Descriptor 0 stays open, so that no other file gets this number."""
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
