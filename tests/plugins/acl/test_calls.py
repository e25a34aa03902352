"""Calls with keys on a real gateway: who gets in, to what, and what a refusal says."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.keys import client_with, guarded_gateway

from mxgw.v1.gateway_service_pb2 import GetGatewayInfoRequest

pytestmark = pytest.mark.asyncio


async def test_a_key_is_who_its_holder_is(tmp_path: Path) -> None:
    async with guarded_gateway(tmp_path) as guarded:
        key, text = guarded.issue("historian")
        async with client_with(guarded.target, text) as client:
            info = await client.gateway.GetGatewayInfo(GetGatewayInfoRequest(), timeout=60)
            session = await client.open(tag="line4")

            assert info.identity == key.id
            assert session.owner == key.id
            assert session.tag == "line4"
