"""What the alarm plugin asked of the gateway: rights by reference, sessions of its own, a command line, a client."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.alarms import PRIMARY, alarm_client, reading, settings
from support.clients import refused
from support.plugins import InstallPlugin

import mxgw_client
from mxgw.v1 import alarm_service_pb2 as pb
from mxgw_client import AlarmList, AlarmTransition, ResumePolicy, SnapshotComplete, StreamCut, sync
from mxgw_core.api import Identity, ItemAccess, Orphan, OrphanVerdict, WorkerSpawn, hookimpl
from mxgw_core.api.types import INTERNAL
from mxgw_core.testing import running_gateway
from mxgw_core.workers.orphans import decide


class Rights:
    """Lets callers know of units whose name ends so, and write nothing."""

    def __init__(self, ending: str) -> None:
        self.ending = ending
        self.denied: list[tuple[str, Sequence[str]]] = []

    def may_read(self, reference: str) -> bool:
        return reference.endswith(self.ending)

    def may_write(self, reference: str) -> bool:
        return False

    def decided(self, action: str, allowed: Sequence[str], denied: Sequence[str]) -> None:
        self.denied.append((action, denied))


class Judge:
    def __init__(self, rights: Rights | None) -> None:
        self.rights = rights

    @hookimpl
    def mxgw_item_access(self, identity: Identity) -> ItemAccess | None:
        if self.rights is None:
            raise RuntimeError("no idea")
        return self.rights


@pytest.mark.asyncio
async def test_hook_mxgw_item_access_is_asked_at_each_call_and_all_must_agree(install_plugin: InstallPlugin) -> None:
    first, second = Rights("T01"), Rights("1")
    names = [install_plugin(f"judge{n}", Judge(rights)) for n, rights in enumerate((first, second))]
    overrides = {**settings(backends__sim__alarm_share=1.0), "plugins.enabled": ["alarms", *names]}
    async with running_gateway(overrides) as gateway, alarm_client(gateway.target) as client:
        shown = [a.alarm.reference for a in (await client.speaking(PRIMARY)).alarms]

        assert shown == ["Unit_001.T01", "Unit_002.T01"]

        answer = await client.acknowledge("Unit_001.T01", "Unit_001.T11")

        assert [r.outcome for r in answer.results] == [
            pb.ACKNOWLEDGE_OUTCOME_DENIED,
            pb.ACKNOWLEDGE_OUTCOME_NOT_ACTIVE,
        ]
        assert first.denied == second.denied == [("AcknowledgeAlarm", ("Unit_001.T01", "Unit_001.T11"))]


@pytest.mark.asyncio
async def test_hook_mxgw_item_access_that_raises_refuses_the_call(install_plugin: InstallPlugin) -> None:
    overrides = {**settings(), "plugins.enabled": ["alarms", install_plugin("judge", Judge(None))]}
    async with running_gateway(overrides) as gateway, alarm_client(gateway.target) as client:
        assert (await refused(client.query())).reason == "ACCESS_DENIED"
        assert (await refused(client.stream())).reason == "ACCESS_DENIED"


@pytest.mark.asyncio
async def test_the_monitors_worker_is_never_left_to_the_next_gateway() -> None:
    overrides = {**settings(), "plugins.enabled": ["reattach", "alarms"]}
    async with running_gateway(overrides) as gateway, alarm_client(gateway.target) as client:
        await client.speaking(PRIMARY)

    assert gateway.app.sessions_left == 0


def test_an_orphan_that_was_the_gateways_own_is_ended_whoever_wants_it(tmp_path: Path) -> None:
    from mxgw_core.api import WorkerIdentity

    class Wants:
        def ask(self, hook: str, **arguments: object) -> list[object]:
            raise AssertionError("nobody need be asked")

    spawn = WorkerSpawn("s", "sim", tmp_path, b"", INTERNAL.id, "", "alarm monitor", 1.0, owner_kind=INTERNAL.kind)
    orphan = Orphan(spawn, WorkerIdentity("s", 1, 1, b"", 1))

    assert decide(orphan, Wants()).verdict is OrphanVerdict.TERMINATE  # type: ignore[arg-type]


@pytest.mark.asyncio
async def test_the_client_keeps_a_list_and_comes_back_by_itself() -> None:
    async with running_gateway(settings()) as gateway, alarm_client(gateway.target) as raw:
        await raw.speaking(PRIMARY)
        async with mxgw_client.connect(gateway.target) as client:
            listed = [alarm async for alarm in client.active_alarms()]
            active = AlarmList()
            resume = ResumePolicy(first_delay_s=0.01, longest_delay_s=0.05)
            async with client.alarms(resume=resume) as stream, asyncio.timeout(60):
                async for item in stream:
                    active.apply(item)
                    if isinstance(item, SnapshotComplete):
                        break

                assert {a.reference for a in active} == {a.reference for a in listed}
                assert active.is_complete

                # The server cuts it; meanwhile something happens.
                (open_stream,) = [s for s in gateway.api.streams() if s.method.endswith("StreamAlarms")]
                from mxgw_core.api.errors import GatewayDraining

                gateway.api.end_stream(open_stream, GatewayDraining("come back", retry_after_s=0.01))
                reference = listed[0].reference
                (result,) = await client.acknowledge_alarms(reference, comment="seen", operator="anna")
                kinds: list[str] = []
                async for item in stream:
                    active.apply(item)
                    kinds.append(type(item).__name__)
                    if isinstance(item, AlarmTransition):
                        break

        assert result.accepted
        assert kinds == ["StreamCut", "StreamOpened", "AlarmTransition"]
        assert StreamCut.__name__ in kinds
        alarm = active.get(reference)
        assert alarm is not None
        assert (alarm.operator, alarm.comment) == ("anna", "seen")


def in_gateway(work: object, *, overrides: dict[str, object]) -> object:
    """Run blocking `work(target)` beside a gateway."""

    async def both() -> object:
        async with running_gateway(overrides) as gateway, alarm_client(gateway.target) as client:
            await client.speaking(PRIMARY)
            return await asyncio.to_thread(work, gateway.target)  # type: ignore[arg-type]

    return asyncio.run(both())


def test_a_script_without_await_follows_and_acknowledges() -> None:
    def work(target: str) -> None:
        with sync.connect(target) as gateway:
            active = AlarmList()
            with gateway.alarms() as stream:
                while not active.is_complete:
                    active.apply(stream.next(10))
                first = next(iter(active))
                (result,) = gateway.acknowledge_alarms(first.reference)
                item = stream.next(10)
                with pytest.raises(TimeoutError):
                    stream.next(0.01)

            assert result.accepted
            assert isinstance(item, AlarmTransition)
            assert item.alarm.reference == first.reference
            assert stream.position == item.position
            assert len(list(gateway.active_alarms())) == 20

    in_gateway(work, overrides=dict(settings()))


def test_the_command_line_lists_follows_and_acknowledges() -> None:
    def mxgw(target: str, *arguments: str, code: int = 0) -> str:
        command = [sys.executable, "-m", "mxgw_cli", *arguments, "--gateway", target]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)

        assert done.returncode == code, done.stderr

        return done.stdout + done.stderr

    def work(target: str) -> None:
        documents = json.loads(mxgw(target, "alarms", "--json"))

        assert len(documents) == 20
        assert {d["state"] for d in documents} == {"unack_alm"}
        assert [d["priority"] for d in documents] == sorted(d["priority"] for d in documents)

        text = mxgw(target, "alarms")

        assert "20 active, 20 in alarm, 20 unacknowledged" in text
        assert documents[0]["reference"] in text

        reference = documents[0]["reference"]

        assert mxgw(target, "alarms", "ack", reference, "--comment", "seen") == f"{reference}: accepted\n"

        refusal = json.loads(mxgw(target, "alarms", "ack", "No.Such", "--json", code=1))

        assert refusal[0]["outcome"] == "not_active"

    in_gateway(work, overrides=dict(settings()))


def test_a_gateway_without_the_plugin_is_told_apart_from_one_that_fails() -> None:
    async def both() -> subprocess.CompletedProcess[str]:
        async with running_gateway() as gateway:
            command = [sys.executable, "-m", "mxgw_cli", "alarms", "--gateway", gateway.target]
            return await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=30)  # type: ignore[arg-type]

    done = asyncio.run(both())

    assert done.returncode == 1
    assert "does not monitor alarms" in done.stderr


def test_what_the_plant_says_cannot_move_a_terminal() -> None:
    from io import StringIO

    from rich.console import Console

    from mxgw.v1.alarms_pb2 import ALARM_STATE_UNACK_ALM, Alarm
    from mxgw_cli.alarms.view import alarms_table
    from mxgw_client.alarms import alarm_from_message

    evil = "\x1b[2J\x1b]0;owned\x07[bold]x[/bold]\r\n"
    raw = Alarm(
        reference=evil,
        state=ALARM_STATE_UNACK_ALM,
        priority=1,
        area=evil,
        operator=evil,
        comment=evil,
        description=evil,
    )
    out = StringIO()
    Console(file=out, markup=False, width=160, color_system=None).print(alarms_table([alarm_from_message(raw)], 160))

    assert not {character for character in out.getvalue() if not character.isprintable()} - {"\n"}
    assert "[bold]" in out.getvalue()


@pytest.mark.asyncio
async def test_a_stream_that_ends_leaves_no_subscriber_behind() -> None:
    async with running_gateway(settings(maximum_subscribers=1)) as gateway, alarm_client(gateway.target) as client:
        await client.speaking(PRIMARY)
        for _ in range(3):
            async with reading(client.stream()) as (_, until):
                await until(lambda r: r.snapshots == 1)
            async with asyncio.timeout(60):
                while gateway.api.streams():  # noqa: ASYNC110  the gateway announces it to nobody
                    await asyncio.sleep(0.005)
