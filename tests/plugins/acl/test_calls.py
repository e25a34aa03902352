"""Calls with keys on a real gateway: who gets in, to what, and what a refusal says."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from support.clients import refused
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


async def test_a_call_that_brings_two_keys_is_refused_in_words_whichever_comes_first(tmp_path: Path) -> None:
    async with guarded_gateway(tmp_path) as guarded:
        _, text = guarded.issue()
        good, bad = ("authorization", f"Bearer {text}"), ("authorization", "Bearer mxgw_test_other")
        async with client_with(guarded.target) as client:
            for metadata in ((good, bad), (bad, good), (good, good), (good, ("cookie", "a=b"), ("cookie", "c=d"))):
                refusal = await refused(
                    client.gateway.GetGatewayInfo(GetGatewayInfoRequest(), metadata=metadata, timeout=60)
                )

                assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
                assert f"2 `{metadata[-1][0]}` headers: send one" in refusal.text
            once = (good, ("x-request-id", "a"), ("x-request-id", "b"))
            await client.gateway.GetGatewayInfo(GetGatewayInfoRequest(), metadata=once, timeout=60)


async def test_health_is_open_to_everybody_and_a_description_of_the_services_is_not(tmp_path: Path) -> None:
    from grpc_health.v1 import health_pb2, health_pb2_grpc
    from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

    async with guarded_gateway(tmp_path, {"gateway.reflection": True}) as guarded:
        _, text = guarded.issue()
        async with client_with(guarded.target) as client:
            health = await health_pb2_grpc.HealthStub(client.channel).Check(health_pb2.HealthCheckRequest(), timeout=60)
            stub = reflection_pb2_grpc.ServerReflectionStub(client.channel)
            asked = [reflection_pb2.ServerReflectionRequest(list_services="")]
            # Without a request: who is refused while it sends may hear of that alone from grpcio.
            refusal = await refused(stub.ServerReflectionInfo(timeout=60))
            with_key = (("authorization", f"Bearer {text}"),)
            answer = await stub.ServerReflectionInfo(iter(asked), metadata=with_key, timeout=60).read()

            assert health.status == health_pb2.HealthCheckResponse.SERVING
            assert refusal.reason == "UNAUTHENTICATED"
            assert "mxgw.v1.SessionService" in {one.name for one in answer.list_services_response.service}
