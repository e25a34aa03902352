"""A worker process: started with its secret on standard input, watched and signalled by pidfd, never by bare pid."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from mxgw.worker.v1.worker_pb2 import WorkerStartup
from mxgw_worker.ipc.framing import frame
from mxgw_worker.ipc.process import start_ticks

# Writing the start-up frame must not block: it has to fit the pipe (Linux: 64 KiB, pipe(7)).
_STARTUP_BYTES = 60 * 1024


class StartupTooLarge(ValueError):
    """The backend's options do not fit the start-up frame."""


class WorkerProcess:
    """A child process of this gateway. Create with `spawn`, in the event loop; `close` releases its pidfd."""

    def __init__(self, popen: subprocess.Popen[bytes], loop: asyncio.AbstractEventLoop) -> None:
        self._popen = popen
        self.pid = popen.pid
        self.start_ticks = start_ticks(popen.pid)
        # Completed with the exit code when the process is gone.
        self.exited: asyncio.Future[int | None] = loop.create_future()
        self._loop = loop
        self._pidfd: int | None = None
        if hasattr(os, "pidfd_open"):
            self._pidfd = os.pidfd_open(popen.pid)
            loop.add_reader(self._pidfd, self._reap)
        else:
            threading.Thread(target=self._wait_in_thread, name=f"worker-wait:{popen.pid}", daemon=True).start()

    @classmethod
    def spawn(
        cls,
        startup: WorkerStartup,
        log_file: Path,
        on_started: Callable[[WorkerProcess], None] = lambda _: None,
    ) -> WorkerProcess:
        """Start a worker in its own session, its output going to `log_file` (mode 0600).

        `on_started` is called while the process exists and knows nothing yet: should this gateway end there, the
        process sees the end of its input and leaves. What it raises ends the process and is passed on.

        Raises:
            OSError: the process could not be started.
            StartupTooLarge: the backend options are larger than the start-up frame may be.
        """
        payload = frame(startup.SerializeToString())
        if len(payload) > _STARTUP_BYTES:
            raise StartupTooLarge(
                f"the worker's start-up settings take {len(payload)} bytes, more than {_STARTUP_BYTES}: "
                "shorten the options of the backend"
            )
        log_fd = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            popen = subprocess.Popen(
                # Isolated: neither the environment nor the working directory decides which code runs.
                [sys.executable, "-I", "-m", "mxgw_worker"],
                stdin=subprocess.PIPE,
                stdout=log_fd,
                stderr=log_fd,
                start_new_session=True,
                cwd="/" if os.name == "posix" else None,
            )
        finally:
            os.close(log_fd)
        process = cls(popen, asyncio.get_running_loop())
        assert popen.stdin is not None
        try:
            on_started(process)
        except BaseException:
            process.kill()
            popen.stdin.close()
            popen.wait()
            process.close()
            raise
        try:
            popen.stdin.write(payload)
            popen.stdin.close()
        except BrokenPipeError:
            pass  # it is gone already; `exited` will tell
        return process

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
        """Stop watching, and let the process live on after this one."""
        self.close()
        # Popen would warn, as it is forgotten, of a process that still runs; here that is the intention.
        self._popen.returncode = 0

    def close(self) -> None:
        """Stop watching; the process itself is left alone."""
        if self._pidfd is not None:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None
