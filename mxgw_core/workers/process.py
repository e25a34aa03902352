"""Worker processes: starting, watching, signalling and ending them.

A worker process is a child of this gateway, or an earlier gateway started it. A child reads the start-up message from
its standard input. A worker of an earlier gateway is found again by its pid, its start time and the id of the boot;
after that an open process identifies it (`mxgw_worker.platform.watched.OpenProcess`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from mxgw.worker.v1.worker_pb2 import Goodbye
from mxgw_core.api.workers import WorkerIdentity
from mxgw_core.printable import printable
from mxgw_core.workers.interpreter import python_command
from mxgw_worker.platform import (
    ReadySignal,
    boot_id,
    can_hold_processes,
    pid_scope,
    spawn,
    start_ticks,
)
from mxgw_worker.platform.watched import OpenProcess, WatchedChild

log = logging.getLogger(__name__)


class ProcessHandle(Protocol):
    """A worker process, whether this gateway started it or an earlier one did."""

    @property
    def pid(self) -> int:
        """The process id. Do not send signals to this id: after the end of the worker another process can get it."""

    @property
    def start_ticks(self) -> int:
        """When the process was started, see `mxgw_worker.platform.start_ticks`."""

    @property
    def exited(self) -> asyncio.Future[int | None]:
        """Completed when the process has ended. The result is the exit code, or None when the code is not known."""

    def terminate(self) -> None:
        """Ask the process to exit."""

    def kill(self) -> None:
        """End the process at once."""

    def leave(self) -> None:
        """Stop watching the process without ending it."""


class WorkerProcess:
    """A worker process that this gateway started. Make one with `launch`, in the event loop.

    `close` releases the handle of the process.
    """

    def __init__(self, child: WatchedChild) -> None:
        self._child = child
        self.pid = child.pid
        self.start_ticks = child.start_ticks
        # Completed by `child`, with the exit code, when the process has ended.
        self.exited = child.exited

    @classmethod
    def launch(
        cls, log_file: Path, *arguments: str, python: Path | None = None, ready: ReadySignal | None = None
    ) -> WorkerProcess:
        """Start a process that becomes a worker when `send_startup` is called. `python` is `workers.python`.

        The process belongs to an operating system session of its own, and its output is appended to `log_file`, which
        only the gateway's user can read. When this gateway ends before it sends the start-up message, the standard
        input of the process is closed and the process exits.

        Raises:
            OSError: the process could not be started.
        """
        command, environment = python_command(python, "-m", "mxgw_worker", *arguments)
        return cls(WatchedChild(spawn(command, log_file, ready=ready, environment=environment)))

    def send_startup(self, payload: bytes, on_started: Callable[[WorkerProcess], None] = lambda _: None) -> None:
        """Send the start-up message, which makes the process a worker. `payload` comes from `startup_payload`.

        `on_started` is called before the message is sent. So if this gateway dies during `on_started`, the process gets
        no message and exits. When `on_started` raises an error, the process is killed and the error is raised again.
        """
        try:
            on_started(self)
        except BaseException:
            self.kill()
            self._child.reap()
            raise
        self._child.send(payload)

    def dismiss(self) -> None:
        """Close the standard input of a process that got no start-up message. The process then exits by itself."""
        self._child.send(b"")

    def is_alive(self) -> bool:
        """Return whether the process runs. This asks the system, because `exited` is completed only after the event
        loop has run again.
        """
        self._child.check()
        return not self.exited.done()

    def terminate(self) -> None:
        """Ask the process to exit."""
        self._child.terminate()

    def kill(self) -> None:
        """End the process at once."""
        self._child.kill()

    def leave(self) -> None:
        """Stop watching the process. The process goes on when this gateway ends."""
        self._child.leave()

    def close(self) -> None:
        """Stop watching the process. The process itself is not changed."""
        self._child.close()


def found_again(worker: WorkerIdentity) -> OpenProcess | None:
    """Return the process with this identity, which an earlier gateway started. Call it in the event loop.

    Return None when the process has ended, also when another process has its pid now, or when the platform cannot hold
    a process.
    """
    if worker.pid <= 0 or not worker.start_ticks or worker.boot_id not in (pid_scope(), boot_id()):
        return None
    if not can_hold_processes():
        log.warning("cannot find worker %d again: this platform cannot hold a process", worker.pid)
        return None
    found = OpenProcess.open(worker.pid, worker.start_ticks)
    if found is None and start_ticks(worker.pid):
        log.warning("process %d is not the worker of session %s: left alone", worker.pid, worker.session_id)
    return found


async def end_process(
    process: ProcessHandle, *, ask: Callable[[], None] | None, grace_s: float, is_stuck: bool
) -> None:
    """End the process, and return when it has ended.

    The process is asked to exit by calling `ask`, which sends a message over the worker's connection. When `ask` is
    None because there is no connection, `process.terminate` is called. The process is killed when it has not exited
    after `grace_s` seconds, and at once when `is_stuck` is true.
    """
    if process.exited.done():
        return
    try:
        if not is_stuck:
            if ask is not None:
                ask()
            else:
                process.terminate()
            await asyncio.wait((process.exited,), timeout=grace_s)
            if not process.exited.done():
                log.warning("worker %d did not leave within %.1f s and is killed", process.pid, grace_s)
        process.kill()
        await asyncio.wait((process.exited,))
    finally:
        if not process.exited.done():
            process.kill()  # the wait was cancelled, but the process must end all the same


def end_in_words(code: int | None, goodbye: Goodbye | None) -> str:
    """Return a sentence that says how a worker process ended.

    `code` is the exit code; None when it is not known. When a signal ended the process, `code` is the negative number
    of the signal. `goodbye` is the worker's last message; None when there was no such message.
    """
    said = f" ({printable(goodbye.detail or goodbye.reason, 300)})" if goodbye is not None else ""
    if code is None:
        how = "ended; with which exit code, only the gateway that started it could have known"
    else:
        how = f"was ended by signal {-code}" if code < 0 else f"left with exit code {code}"
    return f"the worker process {how}{said}"
