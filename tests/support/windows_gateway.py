"""A 64-bit gateway on Windows, in Wine, with 32-bit workers, which a test on this side ends and starts again."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import IO, Any

import psutil
import pytest

from support import wine
from support.mxaccess import com_double
from support.restarts import Restarts

log = logging.getLogger(__name__)

# The marks of every test that starts Windows programs: `make test-windows` runs it, where Windows is set up.
needs_windows = (pytest.mark.windows, pytest.mark.skipif(bool(wine.missing()), reason=wine.missing()))

_WORKER = "mxgw_worker"
# Runs a command that waits longer than usual for what it starts, because Wine is slow on a busy machine. The directory
# for temporary files is not in the environment, because Wine itself does not survive a TMPDIR of Windows.
PATIENT_MXGW = """
import os, tempfile
from mxgw_cli import children, one_key
from mxgw_cli.demo import run as demo
from mxgw_cli.main import main
tempfile.tempdir = "Z:/shared/tmp"
children.READY_TIMEOUT_S = demo.CALL_TIMEOUT_S = 300.0
one_key.clean_environment = lambda: {**os.environ, "MXGW_WORKERS__START_TIMEOUT_S": "120"}
main()
"""


class WindowsRestarts(Restarts):
    """Runs `mxgw serve` in Windows again and again. Clients on this side reach it over TCP.

    Its directory is `Z:\\shared` there. Attributes are those of `Restarts`.
    """

    def __init__(self, directory: Path, settings: str, windows: wine.Windows) -> None:
        super().__init__(directory, settings)
        self.windows = windows
        self.target = f"127.0.0.1:{free_port()}"
        # Each copies what one run writes to stderr, and ends with the last worker of that run: in Wine, a program keeps
        # the standard error of the one that started it open, whatever its own is.
        self.copying: list[threading.Thread] = []
        # Of every program that is started, and so of the workers.
        self.environment: dict[str, str] = {}
        settings_file = directory / "settings.toml"
        # Strings of TOML in single quotes, because of the backslashes.
        settings_file.write_text(settings)

    async def started(self, *arguments: str, failpoint: str = "") -> str:
        """Start a run, and return the line that the gateway prints when it serves; "" when it ended before."""
        assert not failpoint
        self._runs += 1
        options = ["--settings", "Z:/shared/settings.toml", *self._options]
        command = self._mxgw("serve", "--json", "--listen", self.target, *options, *arguments)
        process = self.process = subprocess.Popen(  # noqa: ASYNC220  a few milliseconds of a test
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stderr is not None
        log = self.directory / f"gateway-{self._runs:03}.log"
        # Through a pipe: a program in Wine loses output that goes to a file.
        self.copying.append(threading.Thread(target=_copy_lines, args=(process.stderr, log), name="wine-log"))
        self.copying[-1].start()
        line = await asyncio.to_thread(process.stdout.readline)
        assert not line or json.loads(line)["ready"]
        return line

    async def kill(self) -> None:
        """End the run with SIGKILL. The process that this side started only waits for the gateway."""
        assert self.process is not None
        with suppress(ValueError, ProcessLookupError, FileNotFoundError):
            os.kill(wine.child_of(self.process.pid), signal.SIGKILL)
        await self.ended()

    async def terminate(self, timeout_s: float = 60.0) -> int:
        """End the run as a service would: no signal of this side is one on Windows."""
        done = await self.drain("--end-sessions")
        assert done.returncode == 0, done.stderr
        return await self.ended(timeout_s)

    async def drain(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `mxgw drain` on the directory."""
        return await self.mxgw("drain", *arguments)

    async def mxgw(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `mxgw` with the settings of the gateway."""
        return await asyncio.to_thread(
            subprocess.run,
            self._mxgw("--settings", "Z:/shared/settings.toml", *self._options, *arguments),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    def workers(self) -> list[psutil.Process]:
        """Return the worker processes of all runs that are alive, as this side sees them."""
        alive = []
        for process in self.windows.processes():
            with suppress(psutil.NoSuchProcess):
                if _WORKER in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                    alive.append(process)
        return alive

    def reap(self) -> None:
        """Do nothing: workers are children of a process in their Windows."""

    def sockets(self) -> list[Path]:
        """Return nothing: workers have named pipes, which end with them."""
        return []

    @asynccontextmanager
    async def program(self, *arguments: str) -> AsyncIterator[Callable[..., Awaitable[Any]]]:
        """Run a Python program beside the gateway, with 64 bits. Yield a function that sends it a line, by default
        an empty one, or nothing when it is given "", and returns the JSON document of the line that it prints next.
        """
        process = subprocess.Popen(  # noqa: ASYNC220  a few milliseconds of a test
            self.windows.python(wine.Interpreter.BITS_64, *arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout = process.stdin, process.stdout

        async def ask(line: str = "\n") -> Any:
            stdin.write(line)
            stdin.flush()
            line = await asyncio.to_thread(stdout.readline)
            if not line.startswith("{"):
                stdin.close()
                raise AssertionError(f"a program in Windows failed: {line}{await asyncio.to_thread(stdout.read)}")
            return json.loads(line)

        with process:
            yield ask

    @property
    def _options(self) -> list[str]:
        # The gateway has 64 bits, its workers 32, as MXAccess needs it.
        workers = f"workers.python=Z:{wine.Interpreter.BITS_32.program}"
        return ["--set", "gateway.data_dir=Z:/shared/d", "--set", workers]

    def _mxgw(self, *arguments: str) -> list[str]:
        return self.windows.python(wine.Interpreter.BITS_64, "-m", "mxgw_cli", *arguments, environment=self.environment)

    def install_mxaccess(self, environment: Mapping[str, str]) -> None:
        """Register the double of MXAccess in this Windows; `environment` has its knobs."""
        library = com_double.install(self.directory)
        command = self.windows.python(wine.Interpreter.BITS_32, "-c", com_double.REGISTER, library)
        subprocess.run(command, stdin=subprocess.DEVNULL, check=True)
        self.environment.update(environment)


@asynccontextmanager
async def windows_restarts(settings: str, mxaccess: Mapping[str, str] | None = None) -> AsyncIterator[WindowsRestarts]:
    """Yield a gateway in a Windows of its own, with the double of MXAccess if `mxaccess` has its knobs. At the end of
    the block, everything in it is killed.
    """
    with tempfile.TemporaryDirectory(prefix="mxgw-w-", dir="/tmp") as name:
        with wine.Windows(Path(name)) as windows:
            gateway = WindowsRestarts(Path(name), settings, windows)
            try:
                if mxaccess is not None:
                    gateway.install_mxaccess(mxaccess)
                yield gateway
            except BaseException:
                log.warning("the gateway's log:\n%s", gateway.log)
                raise
            finally:
                if gateway.process is not None:
                    await gateway.kill()
        for thread in gateway.copying:
            await asyncio.to_thread(thread.join)


def free_port() -> int:
    """Return a TCP port on which nothing listens at the moment."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _copy_lines(source: IO[str], log: Path) -> None:
    with source, log.open("w") as file:
        for line in source:
            file.write(line)
            file.flush()
