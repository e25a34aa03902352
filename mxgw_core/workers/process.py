"""Worker processes: a child of this gateway, or a worker that an earlier gateway started; and how either is ended.

A child waits on its standard input for the start-up message. A worker of an earlier gateway is found again by its pid,
start time and boot, and then held by a pidfd.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from mxgw.worker.v1.worker_pb2 import Goodbye
from mxgw_core.api.workers import WorkerIdentity
from mxgw_core.printable import printable
from mxgw_worker.ipc.process import boot_id, pid_scope, start_ticks

log = logging.getLogger(__name__)


class ProcessHandle(Protocol):
    """A worker process, a child of this gateway or not. On Windows it would be a process handle (docs/reattach.md)."""

    @property
    def pid(self) -> int:
        """The process id. Never signal by it: another process may have it by then."""

    @property
    def start_ticks(self) -> int:
        """Its start time, see `mxgw_worker.ipc.process.start_ticks`."""

    @property
    def exited(self) -> asyncio.Future[int | None]:
        """Completed when the process has ended: with its exit code, or None when that cannot be known."""

    def terminate(self) -> None:
        """Ask the process to leave."""

    def kill(self) -> None:
        """End the process."""

    def leave(self) -> None:
        """Stop watching, and let the process live on."""


class WorkerProcess:
    """A child process of this gateway. Made by `launch`, in the event loop; `close` releases its pidfd."""

    def __init__(self, popen: subprocess.Popen[bytes], loop: asyncio.AbstractEventLoop) -> None:
        self._popen = popen
        self.pid = popen.pid
        self.start_ticks = start_ticks(popen.pid)
        # Completed with the exit code when the process has ended.
        self.exited: asyncio.Future[int | None] = loop.create_future()
        self._loop = loop
        self._pidfd: int | None = None
        if hasattr(os, "pidfd_open"):
            self._pidfd = os.pidfd_open(popen.pid)
            loop.add_reader(self._pidfd, self._reap)
        else:
            threading.Thread(target=self._wait_in_thread, name=f"worker-wait:{popen.pid}", daemon=True).start()

    @classmethod
    def launch(cls, log_file: Path, *arguments: str, pass_fds: Sequence[int] = ()) -> WorkerProcess:
        """Start a worker in a process session of its own, with output to `log_file` (mode 0600). It waits for
        `send_startup`.

        When this gateway ends before that, the process reads the end of its input and leaves.

        Raises:
            OSError: the process could not be started.
        """
        log_fd = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            popen = subprocess.Popen(
                # Isolated: neither the environment nor the working directory decides which code runs.
                [sys.executable, "-I", "-m", "mxgw_worker", *arguments],
                stdin=subprocess.PIPE,
                stdout=log_fd,
                stderr=log_fd,
                start_new_session=True,
                cwd="/" if os.name == "posix" else None,
                pass_fds=pass_fds,
            )
        finally:
            os.close(log_fd)
        return cls(popen, asyncio.get_running_loop())

    def send_startup(self, payload: bytes, on_started: Callable[[WorkerProcess], None] = lambda _: None) -> None:
        """Send the start-up frame (see `startup_payload`): the process becomes a worker.

        `on_started` is called first: if this gateway dies in it, the process leaves, because it got no frame. When
        `on_started` raises, the process is killed and the error passed on.
        """
        stdin = self._popen.stdin
        assert stdin is not None
        try:
            on_started(self)
        except BaseException:
            self.kill()
            stdin.close()
            self._popen.wait()
            self.close()
            raise
        try:
            stdin.write(payload)
            stdin.close()
        except BrokenPipeError:
            pass  # the process has ended already, which `exited` reports

    def dismiss(self) -> None:
        """End the input of a process that got no start-up frame: it leaves by itself."""
        assert self._popen.stdin is not None
        self._popen.stdin.close()

    def is_alive(self) -> bool:
        """Ask the system, because `exited` is completed only when the event loop runs again."""
        self._reap()
        return not self.exited.done()

    def terminate(self) -> None:
        """Ask the process to leave (SIGTERM)."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the process (SIGKILL)."""
        self._signal(signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)

    def _signal(self, number: signal.Signals) -> None:
        if self.exited.done():
            return
        try:
            if self._pidfd is not None:
                signal.pidfd_send_signal(self._pidfd, number)
            else:
                self._popen.send_signal(number)
        except ProcessLookupError:
            pass

    def _reap(self) -> None:
        code = self._popen.poll()
        if code is not None:
            self.close()
            if not self.exited.done():
                self.exited.set_result(code)

    def _wait_in_thread(self) -> None:
        self._popen.wait()
        self._loop.call_soon_threadsafe(self._reap)

    def leave(self) -> None:
        """Stop watching the process, which lives on when this gateway ends."""
        self.close()
        # Popen warns when it is deleted while its process runs, unless it believes that the process has ended.
        self._popen.returncode = 0

    def close(self) -> None:
        """Stop watching the process, and do nothing else to it."""
        if self._pidfd is not None:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None


class AdoptedProcess:
    """A worker process that an earlier gateway started. Made by `find`, in the event loop."""

    def __init__(self, pid: int, ticks: int, pidfd: int, loop: asyncio.AbstractEventLoop) -> None:
        self.pid = pid
        self.start_ticks = ticks
        # Completed when the pidfd reports that the process has ended.
        self.exited: asyncio.Future[int | None] = loop.create_future()
        self._loop = loop
        self._pidfd: int | None = pidfd
        loop.add_reader(pidfd, self._gone)

    @classmethod
    def find(cls, worker: WorkerIdentity) -> AdoptedProcess | None:
        """Return the process of this identity; None when it has ended, or another process has its pid by now.

        The pidfd is opened before the identity is checked, so later signals reach the process that was checked.
        """
        if worker.pid <= 0 or not worker.start_ticks or worker.boot_id not in (pid_scope(), boot_id()):
            return None
        if not hasattr(os, "pidfd_open"):
            log.warning("cannot find worker %d again: this platform has no pidfd", worker.pid)
            return None
        try:
            pidfd = os.pidfd_open(worker.pid)
        except (OSError, OverflowError):  # OverflowError: a number that no process can have
            return None
        if start_ticks(worker.pid) != worker.start_ticks:
            os.close(pidfd)
            log.warning("process %d is not the worker of session %s: left alone", worker.pid, worker.session_id)
            return None
        return cls(worker.pid, worker.start_ticks, pidfd, asyncio.get_running_loop())

    def terminate(self) -> None:
        """Ask the process to leave (SIGTERM)."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the process (SIGKILL)."""
        self._signal(signal.SIGKILL)

    def leave(self) -> None:
        """Stop watching, and let the process live on."""
        if self._pidfd is not None:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None

    def _signal(self, number: signal.Signals) -> None:
        if self._pidfd is None:
            return
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)

    def _gone(self) -> None:
        assert self._pidfd is not None
        code: int | None = None
        try:
            # Only a gateway that was started again within one process is the parent, and has to reap the child.
            result = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            pass
        else:
            if result is not None:
                code = result.si_status if result.si_code == os.CLD_EXITED else -result.si_status
        self.leave()
        if not self.exited.done():
            self.exited.set_result(code)


async def end_process(
    process: ProcessHandle, *, ask: Callable[[], None] | None, grace_s: float, is_stuck: bool
) -> None:
    """End the process, and return when it has ended.

    `ask` asks it over its connection to leave; without a connection it gets SIGTERM. A process that is stuck is killed
    at once.
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
            process.kill()  # this was cancelled while it waited: leave no process behind


def end_in_words(code: int | None, goodbye: Goodbye | None) -> str:
    """Return in words how a process ended. `code` None: the exit code is not known; a negative one is a signal."""
    said = f" ({printable(goodbye.detail or goodbye.reason, 300)})" if goodbye is not None else ""
    if code is None:
        how = "ended; with which exit code, only the gateway that started it could have known"
    else:
        how = f"was ended by signal {-code}" if code < 0 else f"left with exit code {code}"
    return f"the worker process {how}{said}"
