"""Runs a gateway for scripts that measure one thing, and tells them its address and what it uses."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import processes

# The arguments of Python that start `mxgw`.
MXGW = ("-m", "mxgw_cli")


@dataclass(frozen=True, slots=True)
class Server:
    """A running gateway."""

    target: str
    pid: int

    def cpu_s(self) -> float:
        """The processor seconds that the gateway has used so far."""
        return processes.cpu_s([self.pid])

    def rss_bytes(self) -> int:
        return processes.rss_bytes(self.pid)


@contextmanager
def gateway(
    directory: Path, settings: str, *, launcher: Sequence[str] = MXGW, listen: str = "unix:g.sock"
) -> Iterator[Server]:
    """Run a gateway with these settings (TOML) and its files in `directory`.

    At the end of the block it is ended in order.

    Raises:
        BenchmarkFailed: the gateway did not start.
    """
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "settings.toml").write_text(settings)
    address = listen.replace("unix:", f"unix:{directory}/")
    arguments = ["serve", "--json", "--listen", address, "--set", f"gateway.data_dir={directory}/d"]
    with processes.running([sys.executable, *launcher, *arguments], directory) as server:
        addresses = processes.started(server, directory)["addresses"]
        assert isinstance(addresses, list)
        yield Server(str(addresses[0]), server.pid)
