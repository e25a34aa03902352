"""Fixtures of the client's tests."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from client.scripted import Scripted, scripted_gateway

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


@pytest.fixture(scope="package")
def gateway_process() -> Iterator[str]:
    """The target of a real gateway in another process, with the plant simulation."""
    script = Path(__file__).with_name("serve.py")
    with subprocess.Popen(
        [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        target = process.stdout.readline().strip()
        assert target, "the gateway did not start; its errors are above"
        yield target
        process.communicate(timeout=20)
    assert process.returncode == 0
