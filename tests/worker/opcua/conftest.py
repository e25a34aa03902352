"""One demo server for all tests that do not end it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from mxgw_worker.platform import HeldProcess

from .harness import demo_process, endpoint_of
from .plant import Plant, running_plant


@pytest.fixture(scope="session")
def process() -> Iterator[subprocess.Popen[str]]:
    """A demo server: a row of steel data every 0.1 s, 10 counters at 20 changes a second. Stopping it is clean."""
    with demo_process("--speed", "9000", "--recorded-time", "--items", "10", "--rate", "20") as process:
        yield process
        server = HeldProcess(process.pid)  # `process.terminate` kills it on Windows
        server.terminate()

        assert process.wait(timeout=60) == 0

        server.close()


@pytest.fixture(scope="session")
def demo(process: subprocess.Popen[str]) -> str:
    """The endpoint of that server."""
    return endpoint_of(process)


@pytest.fixture(scope="session")
def plant() -> Iterator[Plant]:
    """A server whose nodes and services the tests change. Each test leaves it as it was."""
    with running_plant() as plant:
        yield plant
