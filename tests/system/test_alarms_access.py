"""Alarms under access control: scopes, readable items, acknowledgements on the record, operators by their roles."""

from __future__ import annotations

from pathlib import Path

import grpc.aio
import pytest
from support.alarms import PRIMARY, alarm_client, reading, settings
from support.clients import refused
from support.keys import EVERYTHING, guarded_gateway

from mxgw.v1 import alarm_service_pb2 as pb
from mxgw.v1.session_service_pb2 import CloseSessionRequest, ListSessionsRequest
from mxgw_acl.keys import Scope
from mxgw_acl.patterns import ItemPatterns
from mxgw_acl.rules import rule_of
from mxgw_alarms.service import SCOPES

UNIT, ONE = ItemPatterns(subtrees=("Unit_001",)), ItemPatterns(subtrees=("Unit_001.T01",))
GUARDED = {"plugins.enabled": ["acl", "alarms"], "backends.sim.alarms": 200, "backends.sim.alarm_share": 1.0}


def guarded() -> dict[str, object]:
    return {**settings(), **GUARDED}


def test_every_rpc_of_the_service_has_a_rule_and_acknowledging_is_recorded() -> None:
    methods = {m.name for m in pb.DESCRIPTOR.services_by_name["AlarmService"].methods}

    assert set(SCOPES) == methods

    rules = {name: rule_of(f"/mxgw.v1.AlarmService/{name}", scope) for name, scope in SCOPES.items()}

    assert all(rule is not None and rule.role is not None and not rule.public for rule in rules.values())
    assert {name for name, rule in rules.items() if rule is not None and rule.is_audited} == {"AcknowledgeAlarm"}


@pytest.mark.asyncio
async def test_each_call_needs_its_scope(tmp_path: Path) -> None:
    async with guarded_gateway(tmp_path, guarded()) as gateway:
        _, reader = gateway.issue("reader", frozenset({Scope.READ}))
        _, follower = gateway.issue("follower", frozenset({Scope.EVENTS}))
        async with alarm_client(gateway.target, reader) as client:
            await client.speaking(PRIMARY)
            stream = await refused(client.stream())
            acknowledge = await refused(client.acknowledge("Unit_001.T01"))

            assert (stream.reason, stream.metadata["scope"]) == ("ACCESS_DENIED", "events")
            assert (acknowledge.reason, acknowledge.metadata["scope"]) == ("ACCESS_DENIED", "write")
        async with alarm_client(gateway.target, follower) as client:
            assert (await refused(client.query())).metadata["scope"] == "read"
            async with reading(client.stream()) as (_, until):
                await until(lambda r: r.snapshots == 1)
        async with alarm_client(gateway.target) as nobody:
            assert (await refused(nobody.query())).reason == "UNAUTHENTICATED"


@pytest.mark.asyncio
async def test_a_key_sees_the_alarms_of_items_it_may_read_and_acknowledges_those_it_may_write(tmp_path: Path) -> None:
    async with guarded_gateway(tmp_path, guarded()) as gateway:
        _, text = gateway.issue("unit", EVERYTHING, readable=UNIT, writable=ONE)
        async with alarm_client(gateway.target, text) as client:
            listed = await client.speaking(PRIMARY)
            mine = {a.alarm.reference for a in listed.alarms}

            assert mine == {f"Unit_001.T{n:02d}" for n in range(1, 21)}

            async with reading(client.stream()) as (reader, until):
                await until(lambda r: r.snapshots == 1)

                assert set(reader.states) == mine

                answer = await client.acknowledge("Unit_001.T01", "Unit_001.T02", "Unit_002.T01", comment="seen")
                await until(lambda r: r.transitions != [])

            assert [result.outcome for result in answer.results] == [
                pb.ACKNOWLEDGE_OUTCOME_ACCEPTED,
                pb.ACKNOWLEDGE_OUTCOME_DENIED,
                pb.ACKNOWLEDGE_OUTCOME_NOT_ACTIVE,  # looks like one that is not there
            ]
            assert answer.operator == "unit"
        audit = [line for line in gateway.audit() if line["action"] == "AcknowledgeAlarm"]

        assert [(line["decision"], line["detail"]) for line in audit] == [
            ("denied", "Unit_001.T02, Unit_002.T01"),
            ("allowed", "Unit_001.T01"),
        ]
        assert all(line["peer"] for line in audit)


@pytest.mark.asyncio
async def test_the_monitors_session_is_nobodys_and_no_key_sees_it(tmp_path: Path) -> None:
    async with guarded_gateway(tmp_path, guarded()) as gateway:
        _, text = gateway.issue("client", EVERYTHING)
        async with alarm_client(gateway.target, text) as client:
            await client.speaking(PRIMARY)
            listed = await client.sessions.ListSessions(ListSessionsRequest(), metadata=client.metadata)
            (monitor,) = gateway.gateway.api.sessions()
            closing = client.sessions.CloseSession(
                CloseSessionRequest(session_id=monitor.session_id), metadata=client.metadata
            )

            assert not listed.sessions
            assert (await refused(closing)).reason == "ACCESS_DENIED"
        opened = [line for line in gateway.audit() if line["action"] == "session opened"]

        assert [line["actor"] for line in opened] == ["gateway"]


@pytest.mark.asyncio
async def test_a_revoked_key_is_cut_off_from_alarms(tmp_path: Path) -> None:
    async with guarded_gateway(tmp_path, guarded()) as gateway:
        key, text = gateway.issue("client", EVERYTHING)
        async with alarm_client(gateway.target, text) as client:
            await client.speaking(PRIMARY)
            async with reading(client.stream()) as (_, until):
                await until(lambda r: r.snapshots == 1)
            stream = client.stream()

            async def read() -> None:
                await stream.read()
                gateway.store.revoke(key.id)
                while await stream.read() is not grpc.aio.EOF:
                    pass

            assert (await refused(read())).reason == "REVOKED"
