"""A testee: a program that is given commands as JSON lines, and answers as JSON lines."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

_START_S = 60.0
_END_S = 10.0
_LINE_BYTES = 16 * 1024 * 1024

Line = dict[str, Any]


class FailedTestee(Exception):
    """The testee ended, printed something else than JSON lines, or did not answer in time."""


class Testee:
    """A running testee. `name` is what it called itself."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._number = 0
        self.name = ""

    @property
    def is_running(self) -> bool:
        return self._process.returncode is None

    async def greet(self) -> None:
        """Wait for the line with which a testee begins.

        Raises:
            FailedTestee: none came, or it speaks another protocol.
        """
        line = await self._line(_START_S)
        if line.get("protocol") != 1:
            raise FailedTestee(f'its first line must be {{"testee": NAME, "protocol": 1}}, not {line}')
        self.name = str(line["testee"])

    async def ask(self, command: Mapping[str, Any], timeout_s: float, saw: Callable[[Line], None]) -> Line:
        """Send a command and return its answer. Every other line is passed to `saw`.

        Raises:
            FailedTestee: see there.
        """
        self._number += 1
        assert self._process.stdin is not None
        with suppress(ConnectionError):  # reading says more about a process that has ended
            self._process.stdin.write(json.dumps({"id": self._number, **command}).encode() + b"\n")
            await self._process.stdin.drain()
        deadline = asyncio.get_running_loop().time() + timeout_s
        while True:
            line = await self._line(deadline - asyncio.get_running_loop().time())
            if line.get("id") == self._number:
                return line
            saw(line)

    async def _line(self, timeout_s: float) -> Line:
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(timeout_s):
                text = await self._process.stdout.readline()
        except TimeoutError:
            raise FailedTestee("it did not answer in time") from None
        if not text:
            code = await self._process.wait()
            raise FailedTestee(f"it ended with exit code {code}")
        try:
            line = json.loads(text)
        except ValueError:
            line = None
        if not isinstance(line, dict):
            raise FailedTestee(f"it printed what is no JSON object: {text[:200]!r}")
        return line

    async def end(self) -> None:
        """Close the testee's stdin, and kill it when it does not end by itself."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(_END_S):
                await self._process.wait()
        except TimeoutError:
            self.kill()
            await self._process.wait()

    def kill(self) -> None:
        """End the testee at once."""
        with suppress(ProcessLookupError):
            self._process.kill()


@asynccontextmanager
async def started(command: str) -> AsyncIterator[Testee]:
    """Run a testee during the block. Its stderr is ours.

    Raises:
        FailedTestee: it cannot be started, or does not greet.
    """
    # Where backslashes separate the parts of paths, they quote nothing.
    words = shlex.split(command, posix=os.sep == "/")
    try:
        process = await asyncio.create_subprocess_exec(
            *words, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=_LINE_BYTES
        )
    except OSError as error:
        raise FailedTestee(f"{words[0]} cannot be started: {error.strerror}") from error
    testee = Testee(process)
    try:
        await testee.greet()
        yield testee
    finally:
        await testee.end()
