"""Processes a benchmark starts, and what they use: a gateway, its settings, processor time and memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

HERE = Path(__file__).resolve().parent
START_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class Server:
    """A process that serves gRPC."""

    target: str
    process: psutil.Process

    def cpu_s(self) -> float:
        """Processor seconds it has used so far."""
        times = self.process.cpu_times()
        return float(times.user + times.system)

    def rss_bytes(self) -> int:
        return int(self.process.memory_info().rss)


@contextmanager
def gateway(directory: Path, settings: str, *, launcher: str = "") -> Iterator[Server]:
    """Serve a gateway on a Unix socket in `directory` with these settings (TOML); stopped in order afterwards.

    `launcher` is a script of this directory that runs `mxgw` in its own way.
    """
    directory.mkdir(parents=True)
    (directory / "settings.toml").write_text(settings)
    program = [str(HERE / launcher)] if launcher else ["-m", "mxgw_core.cli.main"]
    arguments = ["serve", "--json", "--listen", f"unix:{directory}/g.sock", "--set", f"gateway.data_dir={directory}/d"]
    with served([sys.executable, *program, *arguments], directory) as server:
        yield server


@contextmanager
def served(command: list[str], directory: Path) -> Iterator[Server]:
    """Start a server that prints one JSON line with `addresses` when it is ready, and end it afterwards."""
    log = directory / "server.log"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MXGW_")}
    with log.open("wb") as errors:
        process = subprocess.Popen(
            command,
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise SystemExit(f"the server did not start:\n{log.read_text()}")
        yield Server(json.loads(line)["addresses"][0], psutil.Process(process.pid))
    finally:
        process.terminate()
        try:
            process.wait(START_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def json_lines(stream: IO[bytes]) -> Iterator[dict[str, float]]:
    """Yield the objects a process prints, one a line."""
    for line in stream:
        yield json.loads(line)
