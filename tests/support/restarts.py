"""A gateway process that a test ends and starts again on one data directory, and the workers that it leaves."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psutil

from mxgw_core.failpoints import VARIABLE
from mxgw_core.testing import GatewayProcess, until

# Makes the kernel attach orphaned workers to this process as its children, so that each of them is found and none stays
# a zombie. Source: prctl(2).
_PR_SET_CHILD_SUBREAPER = 36


class Restarts(GatewayProcess):
    """Runs `mxgw serve` on one directory again and again. Made by `restarts`."""

    def __init__(self, directory: Path, settings: str) -> None:
        super().__init__(directory, {"gateway.data_dir": str(directory / "d")})
        (directory / "settings.toml").write_text(settings)
        # The Python interpreter of the next run, and with it the installed release of mxgw.
        self.python = sys.executable
        # The failpoint of the next run.
        self._failpoint = ""
        # Children of this process that existed before.
        self._others = {child.pid for child in psutil.Process().children()}

    async def start(self, *arguments: str, failpoint: str = "") -> None:
        """Start a run, and return when the gateway serves."""
        self._failpoint = failpoint
        await super().start(*arguments)

    async def started(self, *arguments: str, failpoint: str = "") -> str:
        """Start a run, and return the line that the gateway prints when it serves; "" when it ended before."""
        self._failpoint = failpoint or self._failpoint
        return await super().started(*arguments)

    def command(self) -> Sequence[str]:
        return [self.python, "-m", "mxgw_cli"]

    def environment(self) -> dict[str, str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MXGW")}
        if self._failpoint:
            environment[VARIABLE], self._failpoint = self._failpoint, ""
        return environment

    async def drain(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `mxgw drain` on the directory."""
        command = [sys.executable, "-m", "mxgw_cli", "drain", "--set", f"gateway.data_dir={self.data}"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MXGW")}
        return await asyncio.to_thread(
            subprocess.run,
            [*command, *arguments],
            cwd=self.directory,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def workers(self) -> list[psutil.Process]:
        """Return the worker processes of all runs that are alive. Collect the exit status of the others."""
        self.reap()
        logs = str(self.data / "logs")
        alive = []
        for process in psutil.Process().children(recursive=True):
            # A worker of another gateway is recognized by the file to which its output goes.
            with suppress(psutil.NoSuchProcess, OSError):
                if str(Path(f"/proc/{process.pid}/fd/1").readlink()).startswith(logs):
                    alive.append(process)
        return alive

    def reap(self) -> None:
        """Collect the exit status of orphaned workers that have ended."""
        awaited = self._others if self.process is None else self._others | {self.process.pid}
        for child in psutil.Process().children():
            with suppress(psutil.NoSuchProcess, ChildProcessError):
                if child.pid not in awaited and child.status() == psutil.STATUS_ZOMBIE:
                    os.waitpid(child.pid, os.WNOHANG)

    def nothing_is_left(self) -> bool:
        """Return True when this process has no other children than before."""
        self.reap()
        return {child.pid for child in psutil.Process().children()} <= self._others

    def sockets(self) -> list[Path]:
        """Return the sockets of workers."""
        return list((self.data / "run").glob("*.sock"))

    def rows(self) -> list[tuple[str, str]]:
        """Return the session and the state of every worker in the manifest."""
        path = self.data / "manifest.sqlite3"
        if not path.exists():
            return []
        db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        try:
            return db.execute("SELECT session_id, state FROM worker").fetchall()
        finally:
            db.close()

    async def no_worker_is_left(self, timeout_s: float = 60) -> None:
        """Wait until no worker is alive."""
        await until(lambda: not self.workers(), timeout_s)

    async def all_is_gone(self, timeout_s: float = 60) -> None:
        """Wait until there is no worker, no socket and no row in the manifest."""
        await until(lambda: not self.workers() and not self.sockets() and not self.rows(), timeout_s)


@asynccontextmanager
async def restarts(settings: str) -> AsyncIterator[Restarts]:
    """Yield a gateway that a test can start and end. At the end of the block, whatever still runs is killed."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    with tempfile.TemporaryDirectory(prefix="mxgw-r-", dir="/tmp") as name:
        gateway = Restarts(Path(name), settings)
        try:
            yield gateway
        finally:
            if gateway.process is not None:
                await gateway.kill()
            for worker in gateway.workers():
                with suppress(psutil.NoSuchProcess):
                    worker.send_signal(signal.SIGKILL)
            await until(lambda: not gateway.workers())
            await until(gateway.nothing_is_left)
            ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
