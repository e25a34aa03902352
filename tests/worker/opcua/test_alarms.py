"""Alarms and Conditions of a real server: shown whole, reported one by one, acknowledged, shown anew when missed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio
from asyncua import ua

from mxgw.convert import timestamp_to_datetime
from mxgw.v1 import alarms_pb2 as pb
from mxgw_worker.backends.base import AlarmPublisher, MxError
from mxgw_worker.backends.opcua import OpcUaBackend

from .alarm_server import RAISED_AT, AlarmServer, alarm_server
from .harness import Sink

UNACK_ALM, ACK_ALM = pb.ALARM_STATE_UNACK_ALM, pb.ALARM_STATE_ACK_ALM
UNACK_RTN, ACK_RTN = pb.ALARM_STATE_UNACK_RTN, pb.ALARM_STATE_ACK_RTN


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running_server() -> AsyncIterator[AlarmServer]:
    async with alarm_server() as server:
        yield server


@pytest_asyncio.fixture(loop_scope="module")
async def server(running_server: AlarmServer) -> AsyncIterator[AlarmServer]:
    """The server without an alarm."""
    running_server.reset()
    yield running_server


class Listener:
    def __init__(self) -> None:
        self.lists: list[Sequence[pb.Alarm]] = []
        self.changes: list[pb.Alarm] = []
        self.failures: list[str] = []
        self._news = asyncio.Event()

    def changed(self, alarm: pb.Alarm) -> None:
        self.changes.append(alarm)
        self._news.set()

    def refreshed(self, alarms: Sequence[pb.Alarm]) -> None:
        self.lists.append(alarms)
        self._news.set()

    def failed(self, detail: str) -> None:
        self.failures.append(detail)
        self._news.set()

    async def until(self, wanted: Callable[[], object]) -> None:
        async with asyncio.timeout(60):
            while not wanted():
                self._news.clear()
                await self._news.wait()


@asynccontextmanager
async def connected(server: AlarmServer) -> AsyncIterator[OpcUaBackend]:
    backend = OpcUaBackend({"url": server.url, "publishing_interval_ms": 20})
    await backend.start(Sink())
    try:
        yield backend
    finally:
        await backend.stop()


async def test_active_alarms_come_first_and_then_every_change_in_order(server: AlarmServer) -> None:
    await server.add("High", active=True, acked=False, severity=900)
    await server.add("Quiet")
    async with connected(server) as backend:
        listener = Listener()

        assert isinstance(backend, AlarmPublisher)

        await backend.follow_alarms(listener)
        await listener.until(lambda: listener.lists)
        (alarm,) = listener.lists[0]

        assert (alarm.reference, alarm.state, alarm.priority, alarm.raw_priority) == ("Tank.High", 1, 100, 900)
        assert (alarm.description, alarm.alarm_type) == ("High is high", "AlarmConditionType")
        assert timestamp_to_datetime(alarm.raise_time) == RAISED_AT

        await server.set("Quiet", active=True, acked=False)
        await server.set("Quiet", active=False)
        await server.set("Quiet", acked=True, comment="seen")
        await listener.until(lambda: len(listener.changes) == 3)

        assert [change.state for change in listener.changes] == [UNACK_ALM, UNACK_RTN, ACK_RTN]
        assert {change.reference for change in listener.changes} == {"Tank.Quiet"}
        assert (listener.changes[2].operator, listener.changes[2].comment) == ("session user", "seen")
        assert [alarm.reference for alarm in await backend.active_alarms()] == ["Tank.High"]


async def test_an_acknowledgement_reaches_the_server_with_comment_and_name(server: AlarmServer) -> None:
    await server.add("High", active=True, acked=False)
    async with connected(server) as backend:
        listener = Listener()
        await backend.follow_alarms(listener)
        await listener.until(lambda: listener.lists)
        alarm_id = listener.lists[0][0].alarm_id

        # The id means this alarm also after a restart that numbers the namespaces differently.
        assert alarm_id.startswith("nsu=urn:mxgw:alarms;")

        answers = await backend.acknowledge_alarms([alarm_id, "i=1"], "valve stuck", "anna")
        await listener.until(lambda: listener.changes)
        (again,) = await backend.acknowledge_alarms([alarm_id], "", "")

        assert answers[0].hresult == 0
        assert answers[1].hresult < 0
        assert server.conditions["High"].comment == "valve stuck (anna)"
        assert listener.changes[0].state == ACK_ALM
        assert again.detail == 1015

        # As after a reconnect, before the alarms were refreshed: what the earlier connection said is not used.
        link = backend._conditions._link
        assert link is not None
        link.up = False
        with pytest.raises(MxError, match="did not acknowledge"):
            await backend.acknowledge_alarms([alarm_id], "", "")
        link.up = True


async def test_events_that_the_server_lost_have_everything_shown_anew(server: AlarmServer) -> None:
    await server.add("High", active=True, acked=False)
    async with connected(server) as backend:
        listener = Listener()
        await backend.follow_alarms(listener)
        await listener.until(lambda: listener.lists)
        server.conditions["High"].acked = True  # without a word: this is what was lost
        await server.trigger(ua.ObjectIds.RefreshRequiredEventType)
        await listener.until(lambda: len(listener.lists) == 2)

        assert len(listener.failures) == 1
        assert [alarm.state for alarm in listener.lists[1]] == [ACK_ALM]
        assert server.refreshes == 2
        # The subscription that lost events was deleted.
        assert server.subscriptions == 1


async def test_a_server_that_cannot_show_its_alarms_is_no_alarm_manager(server: AlarmServer) -> None:
    server.can_refresh = False
    async with connected(server) as backend:
        for _ in range(3):
            with pytest.raises(MxError, match="BadNothingToDo"):
                await backend.follow_alarms(Listener())

        assert server.subscriptions == 0

        server.can_refresh = True
        listener = Listener()
        await backend.follow_alarms(listener)
        await listener.until(lambda: listener.lists)

        assert server.subscriptions == 1


async def test_an_acknowledged_alarm_that_is_still_active_stays_although_the_server_retains_it_no_more(
    server: AlarmServer,
) -> None:
    for name in ("High", "Read", "Over"):
        await server.add(name, active=True, acked=False)
    await server.add("Off", active=True, acked=False)
    async with connected(server) as backend:
        listener = Listener()
        await backend.follow_alarms(listener)
        await listener.until(lambda: listener.lists)
        for name in ("High", "Read", "Over"):
            await server.set(name, acked=True, retain=False)
        await server.set("Off", enabled=False, retain=False)
        await listener.until(lambda: len(listener.changes) == 4)

        assert [change.state for change in listener.changes] == [ACK_ALM, ACK_ALM, ACK_ALM, ACK_RTN]
        names = {alarm.reference for alarm in await backend.active_alarms()}
        assert names == {"Tank.High", "Tank.Read", "Tank.Over"}

        # A refresh does not send them. What can be read is read; what cannot be read stays.
        await server.expose("Read", active=True)
        await server.expose("Over", active=False)
        await server.trigger(ua.ObjectIds.RefreshRequiredEventType)
        await listener.until(lambda: len(listener.lists) == 2 and len(listener.changes) == 5)

        assert {alarm.reference for alarm in listener.lists[1]} == {"Tank.High", "Tank.Read", "Tank.Over"}
        assert (listener.changes[4].reference, listener.changes[4].state) == ("Tank.Over", ACK_RTN)
        left = {alarm.reference: alarm for alarm in await backend.active_alarms()}
        assert left.keys() == {"Tank.High", "Tank.Read"}

        await server.set("High", active=False)
        await listener.until(lambda: len(listener.changes) == 6)
        assert listener.changes[5].state == ACK_RTN
        assert [alarm.reference for alarm in await backend.active_alarms()] == ["Tank.Read"]
