"""One demo server for all tests that change nothing about the connection itself."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def demo() -> Iterator[str]:
    """The endpoint of a running demo server: a row of steel data every 0.1 s, 10 counters at 20 changes a second."""
    arguments = ["--speed", "9000", "--recorded-time", "--items", "10", "--rate", "20"]
    module = "mxgw_worker.backends.opcua.demo_server"
    with subprocess.Popen([sys.executable, "-m", module, *arguments], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["endpoint"]
        process.terminate()

        assert process.wait(timeout=10) == 0
