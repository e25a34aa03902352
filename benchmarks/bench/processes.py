"""The processes that a benchmark starts, and the processor time and memory that they use.

Each process is ended by its own process id.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).resolve().parent.parent
START_TIMEOUT_S = 20.0
ANSWER_TIMEOUT_S = 120.0


class BenchmarkFailed(Exception):
    """A process of the benchmark failed, or what it measured is not valid. The text says which process, and why."""


def environment() -> dict[str, str]:
    """Return the environment of every process, without the settings of a gateway that is configured on this machine.

    Directories in PYTHONPATH come before installed packages, so that a changed copy of a package can be measured.
    """
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MXGW_")}
    return kept | {"PYTHONPATH": os.pathsep.join(filter(None, (str(BENCHMARKS), os.environ.get("PYTHONPATH"))))}


def module(name: str, *arguments: str) -> list[str]:
    """Return the command that runs a module of this package."""
    return [sys.executable, "-m", f"bench.{name}", *arguments]


def answer(name: str, described: object, asking: str, timeout_s: float = ANSWER_TIMEOUT_S) -> dict[str, Any]:
    """Run a module of this package that prints one JSON object, and return the object.

    `asking` is the name of the system for the text of an error.

    Raises:
        BenchmarkFailed: the module failed; the text contains its output.
    """
    done = subprocess.run(
        module(name, json.dumps(described)),
        check=False,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )
    if done.returncode:
        raise BenchmarkFailed(f"{asking}: {done.stderr.strip()[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@contextmanager
def running(command: Sequence[str], directory: Path, *, log: str = "server.log") -> Iterator[subprocess.Popen[str]]:
    """Run a process during the block, with its errors in a file of `directory`.

    At the end of the block the process is asked to end, and killed if it does not.
    """
    with (directory / log).open("w") as errors:
        process = subprocess.Popen(
            list(command),
            cwd=directory,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(START_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdout is not None
        process.stdout.close()


def first_line(process: subprocess.Popen[str], directory: Path, log: str = "server.log") -> str:
    """Return the first line that a process prints.

    Raises:
        BenchmarkFailed: the process ended before it printed a line.
    """
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise BenchmarkFailed(f"a process did not start:\n{(directory / log).read_text()[-2000:]}")
    return line


def started(process: subprocess.Popen[str], directory: Path) -> dict[str, object]:
    """Return the JSON object that a server prints when it is ready."""
    result: dict[str, object] = json.loads(first_line(process, directory))
    return result


def free_port() -> int:
    """Return a port of loopback that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_listening(port: int, process: subprocess.Popen[str], directory: Path) -> None:
    """Wait until a server accepts connections.

    Raises:
        BenchmarkFailed: the server ended, or it took too long.
    """
    until = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < until and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise BenchmarkFailed(f"{process.args!r} does not listen:\n{(directory / 'server.log').read_text()[-2000:]}")


def cpu_s(pids: list[int]) -> float:
    """Return the processor seconds that all threads of these processes have used. The kernel counts nanoseconds."""
    total = 0
    for pid in pids:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            try:
                total += int((thread / "schedstat").read_text().split()[0])
            except (FileNotFoundError, ProcessLookupError):
                continue  # the thread has ended meanwhile
    return total / 1e9


def rss_bytes(pid: int) -> int:
    """Return the resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0
