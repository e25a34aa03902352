"""One demo server for all tests that do not end it, and a server by another library for those that are listed."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from mxgw_worker.platform import HeldProcess

from .harness import demo_process, endpoint_of
from .node_server import entries, node_process
from .plant import Plant, running_plant

OURS, OTHER = "asyncua", "node-opcua"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the tests in other_servers.toml twice: against the demo server, and against node-opcua's."""
    name = f"{metafunc.definition.path.name}::{metafunc.definition.originalname}"
    if name in {entry.test for entry in entries()}:
        metafunc.parametrize("demo", [OURS, OTHER], indirect=True)


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
def own_demo(process: subprocess.Popen[str]) -> str:
    """The endpoint of that server."""
    return endpoint_of(process)


@pytest.fixture(scope="session")
def other_demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The endpoint of a server by node-opcua, with the same nodes."""
    with node_process(tmp_path_factory.mktemp("node-opcua")) as endpoint:
        yield endpoint


# Not of each test: what runs before the tests of a module is not taken for something that a test has left behind.
@pytest.fixture(scope="module")
def demo(request: pytest.FixtureRequest) -> str:
    """The endpoint of the server that the test runs against."""
    wanted = getattr(request, "param", OURS)
    return str(request.getfixturevalue("other_demo" if wanted == OTHER else "own_demo"))


@pytest.fixture(scope="module")
def other_server(request: pytest.FixtureRequest) -> str:
    """The endpoint of node-opcua's server, for what the demo server's library cannot do."""
    return str(request.getfixturevalue("other_demo"))


@pytest.fixture(scope="session")
def shared_plant() -> Iterator[Plant]:
    """The server of `plant`."""
    with running_plant() as plant:
        yield plant


@pytest.fixture
def plant(shared_plant: Plant) -> Plant:
    """A server whose nodes and services the tests change. Each test takes away what it has added; the values of the
    nodes that were there before are put back here.
    """
    shared_plant.reset_values()
    return shared_plant
