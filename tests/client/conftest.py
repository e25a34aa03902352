"""Fixtures of the client's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

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
