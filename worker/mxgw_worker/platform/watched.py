"""Processes that are watched in the event loop: children of this process, and processes that it did not start."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import threading

from mxgw_worker.platform import HeldProcess, can_hold_processes, start_ticks


class OpenProcess:
    """A process that this process did not start. Make one with `open`.

    Attributes:
        pid: the process id.
        start_ticks: when the process was started. Pid and start time together identify the process.
        exited: completed when the process has ended, with the exit code, or None when the code is not known. A negative
            number is the number of the signal that ended the process.
    """

    def __init__(self, held: HeldProcess, ticks: int) -> None:
        loop = asyncio.get_running_loop()
        self.pid = held.pid
        self.start_ticks = ticks
        # Completed when the process has ended.
        self.exited: asyncio.Future[int | None] = loop.create_future()
        self._held = held
        held.watch(loop, self._ended)

    @classmethod
    def open(cls, pid: int, ticks: int) -> OpenProcess | None:
        """Return the running process with this pid and start time; None when there is no such process.

        The process is held before its start time is compared, so that all later requests go to the compared process.
        """
        try:
            held = HeldProcess(pid)
        except (OSError, OverflowError):  # OverflowError: the pid is larger than any process id can be
            return None
        if not held.runs_since(ticks):
            held.close()
            return None
        return cls(held, ticks)

    def terminate(self) -> None:
        """Ask the process to stop. A process that cannot be asked is ended at once."""
        if not self.exited.done():
            _ask(self._held)

    def kill(self) -> None:
        """End the process at once."""
        if not self.exited.done():
            self._held.kill()

    def leave(self) -> None:
        """Stop watching the process without ending it."""
        self._held.close()

    def _ended(self) -> None:
        code = self._held.exit_code()
        self.leave()
        if not self.exited.done():
            self.exited.set_result(code)


class WatchedChild:
    """A child process. The attributes are those of `OpenProcess`."""

    def __init__(self, popen: subprocess.Popen[bytes]) -> None:
        self.pid = popen.pid
        self.start_ticks = start_ticks(popen.pid)
        self._popen = popen
        self._loop = asyncio.get_running_loop()
        # Completed with the exit code when the process has ended.
        self.exited: asyncio.Future[int | None] = self._loop.create_future()
        self._held: HeldProcess | None = None
        if can_hold_processes():
            # A child keeps its pid until `popen` has learned that it has ended, so this is the child.
            self._held = HeldProcess(popen.pid)
            self._held.watch(self._loop, self.check)
        else:
            threading.Thread(target=self._wait_in_thread, name=f"worker-wait:{popen.pid}", daemon=True).start()

    def check(self) -> None:
        """Complete `exited` if the process has ended. This asks the system, without waiting for the event loop."""
        code = self._popen.poll()
        if code is not None:
            self.close()
            if not self.exited.done():
                self.exited.set_result(code)

    def send(self, data: bytes) -> None:
        """Write to the standard input of the process, and close it. Nothing happens when the process has ended.

        As many bytes as the pipe holds (see `spawn`) are written without waiting for the process.
        """
        stdin = self._popen.stdin
        assert stdin is not None
        # Writing to a process that has ended fails with EPIPE, on Windows with EINVAL; `exited` reports the end.
        with contextlib.suppress(OSError):
            if data:
                stdin.write(data)
            stdin.close()

    def reap(self) -> None:
        """Wait until a process that was killed has ended, and stop watching it. This blocks."""
        self.send(b"")
        self._popen.wait()
        self.close()

    def terminate(self) -> None:
        """Ask the process to stop. A process that cannot be asked is ended at once."""
        if not self.exited.done():
            if self._held is not None:
                _ask(self._held)
            else:
                self._popen.terminate()

    def kill(self) -> None:
        """End the process at once."""
        if not self.exited.done():
            if self._held is not None:
                self._held.kill()
            else:
                self._popen.kill()

    def leave(self) -> None:
        """Stop watching the process. The process goes on when this process ends."""
        self.close()
        # When a Popen object is deleted while its process runs, Python prints a warning. An object that has a return
        # code counts as ended and causes no warning.
        self._popen.returncode = 0

    def close(self) -> None:
        """Stop watching the process. The process itself is not changed."""
        if self._held is not None:
            self._held.close()
            self._held = None

    def _wait_in_thread(self) -> None:
        self._popen.wait()
        self._loop.call_soon_threadsafe(self.check)


def _ask(held: HeldProcess) -> None:
    try:
        held.terminate()
    except PermissionError:  # on Windows: another user of this machine has taken the name of its stop event
        held.kill()
