"""Every plugin of a gateway on Windows, in Wine, as a client on this side sees it over TCP."""

from __future__ import annotations

import asyncio
import urllib.request
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.chaos import PATIENT, RESUME
from support.replaying import follower, subscribe_load
from support.waiting import until
from support.windows_gateway import free_port, needs_windows, windows_restarts

from mxgw_client import AcknowledgeOutcome, AlarmList, AlarmState, after, connect, errors

pytestmark = [*needs_windows, pytest.mark.asyncio, pytest.mark.timeout(600)]

_ALARMS = 20
_SETTINGS = f"""
[workers]
start_timeout_s = 600
heartbeat_interval_s = 60
outbox_events = 100_000
[backends]
default = "load"
[backends.load]
kind = "sim"
profile = "load"
items = 5
rate = 20.0
[backends.plant]
kind = "sim"
profile = "plant"
alarms = {_ALARMS}
alarm_share = 1.0
alarm_rate = 0.0
[plugins]
enabled = ["acl", "backpressure", "replay", "reattach", "metrics", "alarms"]
required = ["acl", "backpressure", "replay", "reattach", "metrics", "alarms"]
start_timeout_s = 600
[plugins.acl]
environment = "test"
[plugins.alarms]
backend = "plant"
{PATIENT}
"""


async def _sessions_ready(port: int) -> float:
    def scrape() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=600) as answer:
            return str(answer.read(), "utf-8")

    families = text_string_to_metric_families(await asyncio.to_thread(scrape))
    (value,) = (
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == "mxgw_sessions" and sample.labels["state"].lower() == "ready"
    )
    return value


async def test_each_plugin_does_its_work_and_a_drained_gateway_leaves_its_session_to_the_next() -> None:
    port = free_port()
    async with windows_restarts(f'{_SETTINGS}\n[plugins.metrics]\nlisten = "127.0.0.1:{port}"\n') as gateway:
        # acl: a key in a file that only the gateway's user can read
        scopes = "open,read,write,events"
        created = await gateway.mxgw("keys", "create", "desk", "--scopes", scopes, "--out", "Z:/shared/desk.key")

        assert created.returncode == 0, created.stderr

        key = (gateway.directory / "desk.key").read_text().strip()
        await gateway.start()
        with pytest.raises(errors.Unauthenticated):
            async with connect(gateway.target, timeout_s=600):
                pass
        async with connect(gateway.target, api_key=key, timeout_s=600) as desk:
            session = await desk.open_session(client_name="desk").open()
            oracle = await subscribe_load(session, 5)
            patient = replace(RESUME, attempt_timeout_s=600.0)
            stays = follower(oracle, session.events(resume=patient, policy="drop_oldest"))
            wanted = 1 << 62
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(stays.run(lambda: stays.checker.events >= wanted), name="stays")

                # backpressure: a second subscriber of the session, each with its own policy
                leaves = follower(oracle, session.events(policy="conflate"))
                await leaves.run(lambda: leaves.checker.events >= 20)
                opened = [stays.stream.opened, leaves.stream.opened]

                assert [frame.policy for frame in opened if frame is not None] == ["drop_oldest", "conflate"]

                # replay: what came while it was away
                assert leaves.stream.position is not None

                head = leaves.stream.position.sequence + 20
                await until(lambda: stays.at >= head, 600)
                async with session.events(start=after(leaves.stream.position), resume=None) as stream:
                    assert stream.opened is not None
                    assert stream.opened.recovered
                    assert stream.opened.head_sequence >= head

                # metrics
                assert await _sessions_ready(port) >= 1

                # alarms
                active = AlarmList()
                async with asyncio.timeout(600), desk.alarms() as alarms:
                    async for item in alarms:
                        active.apply(item)
                        if len(active) >= _ALARMS:
                            break
                alarm = next(alarm for alarm in active if alarm.state is AlarmState.UNACK_ALM)
                (outcome,) = await desk.acknowledge_alarms(alarm.reference, comment="seen")

                assert outcome.outcome is AcknowledgeOutcome.ACCEPTED

                # reattach: the next gateway takes the session back from one that was drained
                drained = await gateway.drain()

                assert drained.returncode == 0, drained.stderr
                assert await gateway.ended(600) == 0

                await until(lambda: len(gateway.workers()) == 1, 600)
                wanted = stays.checker.events + 20
                await gateway.start()

            assert stays.checker.counts.total() == 0, stays.checker.report()
            assert stays.checker.gaps == 0

            await session.close()
        await gateway.terminate(600)
        await until(lambda: not gateway.workers(), 600)
