"""Fixtures of the client's tests."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
import pytest_asyncio
from client.scripted import Scripted, scripted_gateway
from support.replaying import replay_settings

from mxgw_client import Gateway, Session, connect


@pytest_asyncio.fixture
async def scripted() -> AsyncIterator[Scripted]:
    async with scripted_gateway() as gateway:
        yield gateway


@pytest_asyncio.fixture
async def gateway(scripted: Scripted) -> AsyncIterator[Gateway]:
    async with connect(scripted.target, timeout_s=10) as connected:
        yield connected


@pytest_asyncio.fixture
async def session(gateway: Gateway) -> AsyncIterator[Session]:
    async with gateway.open_session(client_name="test") as opened:
        yield opened


@contextmanager
def served(settings: Mapping[str, object]) -> Iterator[str]:
    """Yield the target of a real gateway in another process."""
    script = Path(__file__).with_name("serve.py")
    with subprocess.Popen(
        [sys.executable, str(script), json.dumps(settings)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        target = process.stdout.readline().strip()
        assert target, "the gateway did not start; its errors are above"
        yield target
        process.communicate(timeout=300)
    assert process.returncode == 0


@pytest.fixture(scope="package")
def gateway_process() -> Iterator[str]:
    """The target of a real gateway in another process, with the plant simulation."""
    with served({}) as target:
        yield target


@pytest.fixture(scope="package")
def replaying_gateway_process() -> Iterator[str]:
    """The target of a real gateway under load, with replay and fan-out."""
    with served(replay_settings(2_000)) as target:
        yield target
