"""The alarm manager as a COM object: what only COM can show. The object is our double, in 32-bit Windows Python."""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio
from support.alarms import UNACK_ALM
from support.mxaccess import com_double, sources
from support.waiting import until

from mxgw.convert import to_value
from mxgw_worker.backends.base import E_FAIL, E_NOTIMPL, MxError
from mxgw_worker.backends.mxaccess import MxAccessBackend
from mxgw_worker.backends.sim.testing import RecordingSink

_IS_32_BIT = sys.maxsize < 2**32
pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.skipif(bool(sources.missing("com double")), reason=sources.missing("com double")),
    pytest.mark.skipif(not _IS_32_BIT, reason="MXAccess and its double are 32-bit components"),
]

LIMIT = "Tank_001.Level.Limit"
AREAS: dict[str, object] = {"alarm_areas": ["Area_001"]}


class Site:
    """A started backend on the doubles, whose tank's alarm can be raised."""

    def __init__(self, options: dict[str, object]) -> None:
        sources.register()
        self.sink = RecordingSink()
        self.backend = MxAccessBackend({**AREAS, **options})
        self._items: dict[str, int] = {}
        self._server = 0

    async def start(self) -> None:
        await self.backend.start(self.sink)
        self._server = await self.backend.register("test")

    async def write(self, reference: str, value: bool | float) -> None:
        """Write, and wait for the completion."""
        item = self._items.get(reference)
        if item is None:
            item = self._items[reference] = await self.backend.add_item(self._server, reference)
            await self.backend.advise(self._server, item)
            await until(lambda: any(e.item == item and e.category == 0 for e in self.sink.events))
        self.sink.take()
        await self.backend.write(self._server, item, to_value(value), 0)
        await until(lambda: any(e.kind == "write_complete" for e in self.sink.events))

    async def raised(self) -> str:
        """Raise the alarm anew, and return its id."""
        await self.write(LIMIT, 1e6)
        for alarm in await self.backend.active_alarms():
            await self.backend.acknowledge_alarms([alarm.alarm_id], "", "")
        await self.write(LIMIT, -1.0)
        (alarm,) = await self.backend.active_alarms()

        assert alarm.state == UNACK_ALM

        return alarm.alarm_id


Make = Callable[..., Any]


@pytest_asyncio.fixture
async def site() -> AsyncIterator[Make]:
    """Starts backends, and stops them after the test."""
    sites: list[Site] = []

    async def started(**options: object) -> Site:
        made = Site(options)
        sites.append(made)
        await made.start()
        return made

    yield started
    for made in sites:
        await made.backend.stop()

        assert not made.sink.failures


@pytest.mark.parametrize(
    "consumer",
    ["", "MxgwDouble.wwAlarmConsumer", "{7AB52E5F-6D78-6777-8000-000000000004}"],
    ids=["found", "name", "id"],
)
async def test_the_class_is_found_by_what_is_known_of_it_or_as_it_is_named(site: Make, consumer: str) -> None:
    made = await site(alarm_consumer=consumer)

    assert len(await made.raised()) == 32


@pytest.mark.parametrize("consumer", ["No.SuchConsumer", "{7AB52E5F-6D78-6777-8000-00000000DEAD}", "{nonsense"])
async def test_a_class_that_is_missing_is_named_and_mxaccess_works(site: Make, consumer: str) -> None:
    made = await site(alarm_consumer=consumer)

    with pytest.raises(MxError, match="wwAlarmConsumer is not registered") as missing:
        await made.backend.active_alarms()
    assert missing.value.hresult == E_NOTIMPL
    await made.write("Bench_001.Count", 5)


@pytest.mark.parametrize(
    ("arguments", "hresult", "message"),
    [
        (8, E_FAIL, "it returned -55"),
        (5, E_NOTIMPL, "no method AlarmAckByName with 5 parameters"),
    ],
)
async def test_an_acknowledgement_calls_the_version_that_has_its_arguments(
    site: Make, arguments: int, hresult: int, message: str
) -> None:
    words = ["name", "provider", "group", "comment", "operator", "node", "domain", "full_name"]
    made = await site()
    alarm_id = await made.raised()
    await made.backend.stop()
    made = await site(alarm_acknowledge=words[:arguments])
    try:
        (ack,) = await made.backend.acknowledge_alarms([alarm_id], "seen", "anna")
        result = ack.hresult, ack.message
    except MxError as error:
        result = error.hresult, error.message

    assert result[0] == hresult
    assert message in result[1]
    assert [alarm.state for alarm in await made.backend.active_alarms()] == [UNACK_ALM]


async def test_the_double_has_the_surprises_that_are_known(site: Make) -> None:
    """Cites docs/reference/mxaccess.md#alarm-consumer."""
    made = await site()
    await made.raised()
    in_apartment = made.backend._alarms._line.apartment.call

    def look() -> list[object]:
        from comtypes.automation import VARIANT

        from mxgw_worker.backends.mxaccess.alarms.options import AlarmOptions
        from mxgw_worker.backends.mxaccess.alarms.query import query_xml
        from mxgw_worker.backends.mxaccess.windows import late_bound

        def failing(*arguments: object) -> int:
            with pytest.raises(MxError) as failed:
                bound.call(*arguments)
            return failed.value.hresult

        bound: Any = late_bound.LateBound(late_bound.class_of("", "7AB52E5F"), "GetXmlCurrentAlarms2", 2)
        found: list[object] = [
            bound.call("InitializeConsumer", "test"),
            bound.call("RegisterConsumer", 0, "a", "b", "c"),
        ]
        answer = ctypes.byref(VARIANT())
        found.append(failing("GetXmlCurrentAlarms2", 10, answer))
        found.append(bound.call("Subscribe", r"\\x\Galaxy!Area_001", 1, 999, 2, 0, 0, 0))
        found.append(bound.call("SetXmlAlarmQuery", query_xml(AlarmOptions(areas=("Area_001",)))))
        found.append(bound.call("GetXmlCurrentAlarms2", 10, answer))
        older = late_bound._with_method(bound._object, "AlarmAckByName", 6)
        found.append(older.Invoke(older.GetIDsOfNames("AlarmAckByName")[0], "Tank_001.Level", *("",) * 5))
        found.append(failing("AlarmAckByGUID", *("",) * 6))
        del older, answer
        bound.release()
        return found

    assert await in_apartment("a look", look) == [0, 0, E_FAIL, 0, None, None, -55, E_NOTIMPL]


async def test_a_date_in_the_language_of_the_machine_is_read_by_windows(site: Make) -> None:
    made = await site()
    await made.raised()
    line = made.backend._alarms._line

    assert (
        await line.apartment.call("a date", lambda: line._reading.date_of("5/1/2026")) == 46143.0
    )  # American, in Wine


async def test_alarms_have_an_apartment_of_their_own_and_all_objects_are_released(site: Make) -> None:
    made = await site()
    await made.raised()
    alarms, own = made.backend._alarms._line.apartment, made.backend._apartment
    threads = {await apartment.call("a look", threading.get_ident) for apartment in (alarms, own)}
    can_unload = getattr(ctypes, "WinDLL")(os.environ[com_double.VARIABLE]).DllCanUnloadNow  # noqa: B009  only Windows has it

    assert threading.get_ident() not in threads
    assert len(threads) == 2
    assert can_unload() == 1  # S_FALSE: there are objects

    await made.backend.stop()

    assert can_unload() == 0


async def test_while_the_alarm_manager_hangs_mxaccess_answers_and_another_object_takes_over(site: Make) -> None:
    made = await site(alarm_answer_s=60.0, slow_call_s=1.0, call_limit_s=3.0)
    alarm_id = await made.raised()
    await made.write("Sim.AlarmManagerHanging", True)
    async with asyncio.TaskGroup() as tasks:
        polling = tasks.create_task(_failure(made))
        await made.write("Bench_001.Count", 5)

    assert polling.result() == "the alarm manager has not returned from a call; its object was given up"

    await made.write("Sim.AlarmManagerHanging", False)

    assert [alarm.alarm_id for alarm in await made.backend.active_alarms()] == [alarm_id]

    await until(lambda: sum(thread.name == "alarm manager" for thread in threading.enumerate()) == 1)


async def _failure(made: Site) -> str:
    with pytest.raises(MxError) as failed:
        await made.backend.active_alarms()
    return failed.value.message
