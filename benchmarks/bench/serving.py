"""A gateway for scripts that ask a question of their own: settings in, address and what it uses out."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import processes

# What Python runs as `mxgw`.
MXGW = ("-m", "mxgw_cli")


@dataclass(frozen=True, slots=True)
class Server:
    """A gateway that serves."""

    target: str
    pid: int

    def cpu_s(self) -> float:
        """Processor seconds it has used so far."""
        return processes.cpu_s([self.pid])

    def rss_bytes(self) -> int:
        return processes.rss_bytes(self.pid)


@contextmanager
def gateway(
    directory: Path, settings: str, *, launcher: Sequence[str] = MXGW, listen: str = "unix:g.sock"
) -> Iterator[Server]:
    """Serve a gateway with these settings (TOML), its files in `directory`; ended in order afterwards.

    Raises:
        BenchmarkFailed: it did not start.
    """
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "settings.toml").write_text(settings)
    address = listen.replace("unix:", f"unix:{directory}/")
    arguments = ["serve", "--json", "--listen", address, "--set", f"gateway.data_dir={directory}/d"]
    with processes.running([sys.executable, *launcher, *arguments], directory) as server:
        addresses = processes.started(server, directory)["addresses"]
        assert isinstance(addresses, list)
        yield Server(str(addresses[0]), server.pid)
