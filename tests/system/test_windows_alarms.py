"""Alarms of MXAccess through the plugin `alarms`: a 64-bit gateway with 32-bit workers on the doubles of MXAccess and
of its alarm manager, in Wine, and clients on this side.
"""

from __future__ import annotations

import asyncio

import pytest
from support.alarms import ACK_ALM, FALLBACK, PRIMARY, UNACK_ALM, AlarmClient, alarm_client
from support.windows_gateway import needs_windows, windows_restarts

from mxgw.v1 import alarm_service_pb2 as pb
from mxgw.v1.alarms_pb2 import Alarm
from mxgw_client import connect

pytestmark = [*needs_windows, pytest.mark.asyncio, pytest.mark.timeout(900)]

_SETTINGS = """
[plugins]
enabled = ["alarms"]
[plugins.alarms]
references = ["Tank_001.Level"]
probe_interval_s = 0.5
answer_timeout_s = 60.0
[backends]
default = "galaxy"
[backends.galaxy]
kind = "mxaccess"
alarm_areas = ["Area_001"]
alarm_answer_s = 30.0
slow_call_s = 60.0
call_limit_s = 300.0
start_limit_s = 300.0
[workers]
start_timeout_s = 300.0
"""


async def test_the_alarm_manager_reports_and_the_fallback_takes_over_while_it_fails() -> None:
    """Cites docs/reference/mxaccess.md#alarm-failover. The monitor and the client have workers of their own."""
    async with windows_restarts(_SETTINGS, {}) as gateway:
        await gateway.start()
        async with (
            alarm_client(gateway.target) as alarms,
            connect(gateway.target, timeout_s=60) as client,
            client.open_session(lease_s=600) as session,
        ):
            await session.register()
            await alarms.speaking(PRIMARY, 300)
            await session.write_once("Tank_001.Level.Limit", -1.0, wait_s=60)
            raised = await _shown(alarms, UNACK_ALM)

            assert (raised.degraded, raised.area, raised.priority) == (False, "Area_001", 200)
            assert raised.HasField("raise_time")

            await session.write_once("Sim.AlarmManagerDown", True, wait_s=60)
            degraded = (await alarms.speaking(FALLBACK, 300)).alarms[0].alarm

            assert (degraded.state, degraded.degraded) == (UNACK_ALM, True)

            answer = await alarms.acknowledge("Tank_001.Level", comment="by the fallback")

            assert [result.outcome for result in answer.results] == [pb.ACKNOWLEDGE_OUTCOME_ACCEPTED]

            await _shown(alarms, ACK_ALM)
            await session.write_once("Sim.AlarmManagerDown", False, wait_s=60)
            await alarms.speaking(PRIMARY, 300)

            assert (await _shown(alarms, ACK_ALM)).comment == "by the fallback (local user)"

            # The same through the alarm manager.
            await session.write_once("Tank_001.Level.Limit", 1e6, wait_s=60)
            await session.write_once("Tank_001.Level.Limit", -1.0, wait_s=60)
            await _shown(alarms, UNACK_ALM)
            answer = await alarms.acknowledge("Tank_001.Level", comment="seen")

            assert [result.outcome for result in answer.results] == [pb.ACKNOWLEDGE_OUTCOME_ACCEPTED]

            acknowledged = await _shown(alarms, ACK_ALM)

            assert (acknowledged.operator, acknowledged.comment) == ("local user", "seen")
        await gateway.terminate(300)


async def _shown(alarms: AlarmClient, state: int) -> Alarm:
    """Wait until the gateway shows the alarm in this state, and return it."""
    async with asyncio.timeout(300):
        while True:
            for shown in (await alarms.query()).alarms:
                if shown.alarm.reference == "Tank_001.Level" and shown.alarm.state == state:
                    return shown.alarm
            await asyncio.sleep(0.05)
