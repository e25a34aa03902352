"""A real Prometheus server on loopback that runs for one test."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import socket
import subprocess
import tempfile
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

MISSING = "Prometheus is not installed; this installs it: scripts/install_test_services.sh"
needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None or shutil.which("promtool") is None, reason=MISSING
)


class Prometheus:
    """A running Prometheus server. `url` has no path."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def ask(self, path: str, **parameters: str) -> Any:
        """Call a path of the server's API, and return the data in the answer."""
        return await asyncio.to_thread(self._ask, path, parameters)

    def _ask(self, path: str, parameters: dict[str, str]) -> Any:
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=60) as answer:
            document = json.load(answer)

        assert document["status"] == "success", document

        return document["data"]

    async def query(self, expression: str) -> list[Any]:
        """Return the samples of an instant query."""
        found: list[Any] = (await self.ask("query", query=expression))["result"]
        return found

    async def firing(self) -> set[str]:
        """Return the names of the alerts that are firing."""
        alerts = (await self.ask("alerts"))["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}

    async def until(self, *names: str, timeout_s: float = 60) -> set[str]:
        """Wait until these alerts are firing, and return the names of all alerts that are."""
        firing: set[str] = set()
        try:
            async with asyncio.timeout(timeout_s):
                while not set(names) <= (firing := await self.firing()):  # noqa: ASYNC110  another process
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise AssertionError(f"{set(names) - firing} did not fire; {firing or 'nothing'} does") from None
        return firing


def impatient(rules: str) -> str:
    """Return the alert rules without their waiting times, so that alerts fire at once."""
    return re.sub(r"^( +)for: \w+$", r"\1for: 0s", rules, flags=re.MULTILINE)


def free_port() -> int:
    """Return a port that was free a moment ago, for servers that cannot choose a free port themselves."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def prometheus(target: str, rules: str = "") -> AsyncIterator[Prometheus]:
    """Run a server that scrapes `target` twice a second as the job mxgw, and evaluates `rules` as often."""
    with tempfile.TemporaryDirectory(prefix="mxgw-p-", dir="/tmp") as name:
        directory = Path(name)
        (directory / "rules.yml").write_text(rules or "groups: []\n")
        (directory / "prometheus.yml").write_text(
            "global: {scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 500ms}\n"
            "rule_files: [rules.yml]\n"
            f"scrape_configs: [{{job_name: mxgw, static_configs: [{{targets: ['{target}']}}]}}]\n"
        )
        port = free_port()
        process = _started(directory, port)
        server = Prometheus(f"http://127.0.0.1:{port}")
        try:
            await _ready(server, process, directory / "log")
            yield server
        finally:
            process.kill()
            await asyncio.to_thread(process.wait)


def _started(directory: Path, port: int) -> subprocess.Popen[bytes]:
    command = ["prometheus", f"--config.file={directory / 'prometheus.yml'}"]
    command += [f"--storage.tsdb.path={directory / 'data'}", f"--web.listen-address=127.0.0.1:{port}"]
    with (directory / "log").open("w") as log:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


async def _ready(server: Prometheus, process: subprocess.Popen[bytes], log: Path) -> None:
    async with asyncio.timeout(60):
        while True:
            assert process.poll() is None, log.read_text()  # noqa: ASYNC240  a few lines, of a failed test

            try:
                if await server.query('up{job="mxgw"}'):
                    return
            except (OSError, AssertionError):
                pass  # the server is still starting
            await asyncio.sleep(0.1)
