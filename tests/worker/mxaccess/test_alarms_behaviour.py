"""How alarms behave, as one set of tests for every source that claims to behave as MXAccess sites do: the simulator,
and the doubles in Python and of the COM objects, whose alarm manager is read as records in XML.

Source of each: the heading of docs/reference/mxaccess.md that the test cites.
"""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
import pytest_asyncio
from support.alarms import ACK_ALM, ACK_RTN, UNACK_ALM, UNACK_RTN
from support.mxaccess.sources import Source

from mxgw.v1.alarms_pb2 import Alarm
from mxgw_worker.backends.base import AlarmAck, AlarmPublisher, AlarmSource, MxError

pytestmark = pytest.mark.asyncio

REFERENCE = "Tank_001.Level"
BELOW_ALL, ABOVE_ALL = -1.0, 1e6


class Tank:
    """An alarm that goes where its limit is put."""

    def __init__(self, source: Source) -> None:
        self.source = source
        assert isinstance(source.backend, AlarmSource)
        self.alarms = source.backend
        self._limit = 0

    async def start(self) -> None:
        """Bring it back to normal, and acknowledge what was before."""
        self._limit = await self.source.advised(f"{REFERENCE}.Limit")
        await self.clear()
        alarm = await self.alarm()
        if alarm is not None and alarm.state == UNACK_RTN:
            await self.alarms.acknowledge_alarms([alarm.alarm_id], "", "")

    async def raise_(self) -> Alarm:
        """Raise the alarm, and return it."""
        await self._set(BELOW_ALL)
        return await self.at(UNACK_ALM)

    async def clear(self) -> None:
        await self._set(ABOVE_ALL)

    async def _set(self, limit: float) -> None:
        done = await self.source.written(self._limit, limit)
        self.source.forget_completions()

        assert done.success == -1

    async def alarm(self) -> Alarm | None:
        """Return the alarm as it is listed."""
        found = [alarm for alarm in await self.alarms.active_alarms() if alarm.reference == REFERENCE]

        assert len(found) <= 1

        return found[0] if found else None

    async def at(self, state: int) -> Alarm:
        """Return the alarm, which is listed in this state."""
        alarm = await self.alarm()

        assert alarm is not None
        assert alarm.state == state

        return alarm

    async def acknowledge(self, alarm: Alarm, comment: str = "seen", operator: str = "anna") -> AlarmAck:
        (ack,) = await self.alarms.acknowledge_alarms([alarm.alarm_id], comment, operator)
        return ack


@pytest_asyncio.fixture
async def tank(source: Source) -> Tank:
    tank = Tank(source)
    await tank.start()
    return tank


def _age_s(alarm: Alarm, field: str) -> float:
    return datetime.now(UTC).timestamp() - float(getattr(alarm, field).ToNanoseconds()) / 1e9


async def test_an_alarm_manager_has_to_be_asked(tank: Tank) -> None:
    """Cites #alarms."""
    assert not isinstance(tank.alarms, AlarmPublisher)


async def test_a_raised_alarm_is_listed_with_all_that_is_known(tank: Tank) -> None:
    """Cites #alarm-records."""
    alarm = await tank.raise_()

    assert (alarm.native_state, alarm.priority, alarm.raw_priority) == ("UNACK_ALM", 200, 200)
    assert alarm.alarm_id
    assert alarm.area
    assert alarm.alarm_type == "Hi"
    assert alarm.description == "Level, %"
    assert 0 <= alarm.value.double <= 100
    assert (alarm.limit.double, alarm.operator, alarm.comment) == (BELOW_ALL, "", "")
    assert -1 <= _age_s(alarm, "raise_time") <= 60
    assert not any(alarm.HasField(name) for name in ("ack_time", "clear_time"))


async def test_what_does_not_change_is_the_same_object(tank: Tank) -> None:
    """Which makes comparing cheap; see AlarmSource."""
    alarm = await tank.raise_()

    assert await tank.alarm() is alarm


async def test_it_is_acknowledged_and_then_returns_to_normal(tank: Tank) -> None:
    """Cites #alarm-states."""
    raised = await tank.raise_()
    ack = await tank.acknowledge(raised)
    acknowledged = await tank.at(ACK_ALM)
    await tank.clear()
    ended = await tank.at(ACK_RTN)

    assert (ack.hresult, ack.message, ack.detail) == (0, "", 0)
    assert acknowledged.alarm_id == ended.alarm_id == raised.alarm_id
    assert (acknowledged.operator, acknowledged.comment) == (ended.operator, ended.comment) == ("anna", "seen")
    assert acknowledged.description == "Level, %"
    assert acknowledged.raise_time == ended.raise_time == raised.raise_time
    assert -1 <= _age_s(acknowledged, "ack_time") <= 60
    assert not acknowledged.HasField("clear_time")
    assert ended.ack_time == acknowledged.ack_time
    assert -1 <= _age_s(ended, "clear_time") <= 60


async def test_it_returns_to_normal_and_is_then_acknowledged(tank: Tank) -> None:
    """Cites #alarm-states."""
    raised = await tank.raise_()
    await tank.clear()
    returned = await tank.at(UNACK_RTN)
    ack = await tank.acknowledge(returned)
    ended = await tank.at(ACK_RTN)

    assert ack.hresult == 0
    assert returned.alarm_id == ended.alarm_id == raised.alarm_id
    assert returned.raise_time == raised.raise_time
    assert not returned.HasField("ack_time")
    assert ended.clear_time == returned.clear_time
    assert -1 <= _age_s(ended, "ack_time") <= 60


async def test_a_returned_alarm_is_raised_again(tank: Tank) -> None:
    """Cites #alarm-states."""
    await tank.raise_()
    await tank.clear()
    await tank.at(UNACK_RTN)
    again = await tank.raise_()

    assert not again.HasField("clear_time")


async def test_acknowledging_twice_and_acknowledging_nothing_fail(tank: Tank) -> None:
    """Cites #status-details."""
    raised = await tank.raise_()
    await tank.acknowledge(raised)
    again = await tank.acknowledge(raised)
    (unknown,) = await tank.alarms.acknowledge_alarms(["?"], "", "")

    assert (again.hresult < 0, again.detail) == (True, 1015)
    assert unknown.hresult < 0
    assert (await tank.at(ACK_ALM)).comment == "seen"


async def test_sub_attributes_and_records_tell_one_truth(tank: Tank) -> None:
    """Cites #references: what the fallback of the alarm plugin advises."""
    source = tank.source
    items = {}
    for name in ("InAlarm", "Acked", "Priority"):
        items[name] = await source.added(f"{REFERENCE}.{name}")
        await source.backend.advise_supervisory(source.server, items[name])
    first = {name: (await source.value(item)).value for name, item in items.items()}
    source.sink.take()
    raised = await tank.raise_()
    in_alarm, acked = await source.value(items["InAlarm"]), await source.value(items["Acked"])
    source.sink.take()
    await tank.acknowledge(raised)

    assert first == {"InAlarm": False, "Acked": True, "Priority": raised.priority}
    assert (in_alarm.value, acked.value) == (True, False)
    assert (await source.value(items["Acked"])).value is True


async def test_a_comment_that_is_written_acknowledges(tank: Tank) -> None:
    """Cites #references."""
    await tank.raise_()
    message = await tank.source.advised(f"{REFERENCE}.AckMsg")
    done = await tank.source.written(message, "by hand")
    alarm = await tank.at(ACK_ALM)
    tank.source.forget_completions()
    again = await tank.source.written(message, "again")

    assert done.success == -1
    assert alarm.comment == "by hand"
    assert (again.success, again.detail) == (0, 1015)


async def test_an_alarm_manager_that_is_down_fails_and_comes_back(tank: Tank) -> None:
    """Cites #alarm-failover."""
    source = tank.source
    raised = await tank.raise_()
    item = await source.advised("Sim.AlarmManagerDown")
    await source.written(item, True)

    with pytest.raises(MxError):
        await tank.alarms.active_alarms()
    with pytest.raises(MxError):
        await tank.alarms.acknowledge_alarms([raised.alarm_id], "", "")
    source.forget_completions()
    await source.written(item, False)

    assert (await tank.at(UNACK_ALM)).alarm_id == raised.alarm_id


async def test_after_its_end_it_is_not_asked_any_more(tank: Tank) -> None:
    await tank.source.backend.stop()

    with pytest.raises(MxError):
        await tank.alarms.active_alarms()
