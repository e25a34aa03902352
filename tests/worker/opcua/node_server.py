"""A server by node-opcua, in a process of its own. Where it is not installed, the tests that need it are skipped."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
SCRIPT = HERE / "node" / "server.js"
TABLE = HERE / "other_servers.toml"
MISSING = "node-opcua is not installed; this installs it: scripts/install_node_opcua.sh"


@dataclass(frozen=True, slots=True)
class Entry:
    """A test that also runs against the other server, as `file.py::test_name`, and why."""

    test: str
    reason: str


def entries(group: str = "run") -> list[Entry]:
    """Return the table of the tests that run against node-opcua too, or ("only") against nothing else."""
    document = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    return [Entry(test, some["reason"]) for some in document[group] for test in some["tests"]]


def version() -> str:
    """Return the version of node-opcua that the manifest names."""
    return str(json.loads((SCRIPT.parent / "package.json").read_text(encoding="utf-8"))["dependencies"]["node-opcua"])


def modules() -> Path | None:
    """Return the directory of the installed packages; None when they are not installed."""
    named = os.environ.get("MXGW_NODE_OPCUA")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    target = Path(named) if named else cache / "mxgw" / f"node-opcua-{version()}"
    return target / "node_modules" if (target / "complete").exists() and shutil.which("node") is not None else None


@contextmanager
def node_process(state: Path, *, items: int = 10, period_ms: int = 50) -> Iterator[str]:
    """Run the server, and yield its endpoint. `state` is a directory for its certificates; it has `items` counters,
    which change every `period_ms`. The test is skipped when node-opcua is not installed.
    """
    installed = modules()
    if installed is None:
        pytest.skip(MISSING)
    environment = {**os.environ, "NODE_PATH": str(installed)}
    command = ["node", str(SCRIPT), str(state), str(items), str(period_ms)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            assert process.stdout is not None
            # The library prints warnings as well, for example about the version of Node.js.
            line = next(line for line in process.stdout if line.startswith('{"endpoint"'))
            yield json.loads(line)["endpoint"]
        finally:
            process.kill()  # It holds nothing that has to be put in order.
