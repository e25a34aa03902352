"""Starts processes for `mxgw demo` and `mxgw bench`, and ends them when the command ends, even when it is killed."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

from mxgw_cli.shell import CliFailure
from mxgw_core.printable import printable
from mxgw_core.shells import short_directory
from mxgw_worker.platform import ask_to_stop, make_private, start_child

READY_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0
LOG_TAIL_LINES = 12
SHORT_ROOT_BYTES = 30


class Child:
    """A process that a command started.

    `ready` is the JSON object that the process wrote to stdout when it was ready; `log` is the file with its stderr.
    """

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self.process = process
        self.log = log
        self.ready: dict[str, object] = {}

    def failure(self, what: str) -> CliFailure:
        """Return a failure whose text is `what` and the last lines that the process wrote to stderr."""
        with suppress(OSError):
            lines = self.log.read_text("utf-8", errors="replace").splitlines()[-LOG_TAIL_LINES:]
            text = "\n".join("  " + printable(line, 300) for line in lines)
            if text:
                return CliFailure(f"{what}. The end of its log:\n{text}")
        return CliFailure(f"{what}; it left no log.")

    async def died(self) -> CliFailure:
        """Wait until the process has ended by itself, and return a failure for the caller to raise."""
        code = await self.process.wait()
        return self.failure(f"{self.name} (pid {self.process.pid}) ended by itself with {_ending(code)}")


def _ending(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


@asynccontextmanager
async def child(
    name: str, arguments: Sequence[str], directory: Path, environment: dict[str, str] | None = None
) -> AsyncIterator[Child]:
    """Run `python -m ARGUMENTS` while the block runs; the block begins when the process has written its JSON line.

    The process also ends when the command itself is killed (see `tied`). It has its own process group, so that Ctrl-C
    at the terminal stops only the command, and the command then ends the process.

    Raises:
        CliFailure: the process ended before it was ready, or was not ready in time; the text has the end of its log.
    """
    log = directory / f"{name.replace(' ', '-')}.log"
    with log.open("wb") as stderr:
        process = await start_child(
            sys.executable,
            "-m",
            "mxgw_cli.tied",
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=stderr,
            env=environment,
        )
    running = Child(name, process, log)
    try:
        running.ready = await _ready_line(running)
        yield running
    finally:
        await _end(process)


async def _ready_line(running: Child) -> dict[str, object]:
    stdout = running.process.stdout
    assert stdout is not None
    try:
        async with asyncio.timeout(READY_TIMEOUT_S):
            line = await stdout.readline()
    except TimeoutError:
        raise running.failure(f"{running.name} was not ready within {READY_TIMEOUT_S:.0f} s") from None
    if not line:
        raise await running.died()
    try:
        document = json.loads(line)
    except ValueError:
        raise running.failure(f"{running.name} said something unexpected: {printable(repr(line), 200)}") from None
    if not isinstance(document, dict):
        raise running.failure(f"{running.name} said something unexpected: {printable(repr(line), 200)}")
    return document


async def _end(process: asyncio.subprocess.Process) -> None:
    """Terminate the process, and kill it if it has not ended after `STOP_TIMEOUT_S`.

    When this function is cancelled (by a second Ctrl-C), it kills the process immediately.
    """
    if process.returncode is not None:
        return
    try:
        ask_to_stop(process)
        async with asyncio.timeout(STOP_TIMEOUT_S):
            await process.wait()
    except TimeoutError:
        pass
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
    await process.wait()


def clean_environment() -> dict[str, str]:
    """Return the environment without the variables of mxgw, so that the started process ignores the user's settings."""
    return {name: value for name, value in os.environ.items() if not name.startswith("MXGW")}


@contextmanager
def temporary_directory(prefix: str) -> Iterator[Path]:
    """Yield a new directory that only the present user can enter, and remove it at the end.

    Its path is short, because the path of a Unix socket can have about a hundred bytes, and on some systems the usual
    directory for temporary files needs most of them.
    """
    usual = tempfile.gettempdir()
    short = short_directory() if len(usual) > SHORT_ROOT_BYTES else None
    # Whatever cannot be removed, for example a file that a virus scanner reads, must not hide the result of a command.
    with tempfile.TemporaryDirectory(prefix=prefix, dir=short, ignore_cleanup_errors=True) as name:
        make_private(Path(name))
        yield Path(name)
