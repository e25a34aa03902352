"""The alarm manager behind the backend: two consumers, answers that do not come, and a machine without one.

On the double in Python; test_alarms_behaviour.py has what every source of alarms has in common.
"""

from __future__ import annotations

import logging
import platform
import threading
from collections.abc import Sequence
from xml.etree import ElementTree

import pytest
from support.alarms import ACK_ALM, UNACK_ALM
from support.mxaccess.alarm_double import AlarmManagerDouble, records_xml
from support.mxaccess.rigs import Rig, Start
from support.waiting import until

from mxgw.convert import to_value
from mxgw.v1.alarms_pb2 import Alarm
from mxgw.v1.events_pb2 import SOURCE_HEALTH_DEGRADED, SOURCE_HEALTH_GOOD
from mxgw.worker.v1 import worker_pb2 as w
from mxgw_worker.alarms import AlarmWatch
from mxgw_worker.backends.base import E_FAIL, E_INVALIDARG, E_NOTIMPL, AlarmPublisher, AlarmSource, MxError
from mxgw_worker.backends.mxaccess.alarms.consumer import Use
from mxgw_worker.calls import Call, CallFailed
from mxgw_worker.items import ItemTable
from mxgw_worker.methods import Methods
from mxgw_worker.turns import BackendTurn
from mxgw_worker.writes import Writes

pytestmark = pytest.mark.asyncio

AREAS: dict[str, object] = {"alarm_areas": ["Area_001", "Area_002"]}
# Two alarms that are raised at the start and do not change by themselves.
TWO: dict[str, object] = {"alarms": 2, "alarm_rate": 0.0, "alarm_share": 1.0}


async def with_alarms(start: Start, **options: object) -> tuple[Rig, AlarmManagerDouble]:
    rig = await start({**AREAS, **options}, TWO)
    return rig, rig.doubled.alarm_manager


async def listed(rig: Rig) -> dict[str, Alarm]:
    return {alarm.reference: alarm for alarm in await rig.backend.active_alarms()}


async def test_it_has_to_be_asked(start: Start) -> None:
    rig, manager = await with_alarms(start)

    assert isinstance(rig.backend, AlarmSource)
    assert not isinstance(rig.backend, AlarmPublisher)
    assert manager.consumers == []  # nothing is made for a session that does not ask


async def test_the_consumer_that_reads_has_a_query_and_is_asked_again_and_again(start: Start) -> None:
    rig, manager = await with_alarms(start)
    first = await rig.backend.active_alarms()
    second = await rig.backend.active_alarms()
    (reading,) = manager.consumers

    assert len(first) == 2
    assert all(one is other for one, other in zip(first, second, strict=True))
    assert reading.use is Use.READING
    assert reading.calls == ["initialize", "register", "set_query", "current_alarms", "current_alarms"]
    assert [group.text for group in ElementTree.fromstring(reading.query).iter("GROUP")] == ["Area_001", "Area_002"]


async def test_another_consumer_without_a_query_acknowledges(start: Start) -> None:
    rig, manager = await with_alarms(start)
    alarm = (await listed(rig))["Unit_001.T01"]
    (ack,) = await rig.backend.acknowledge_alarms([alarm.alarm_id], "seen\0", "anna")
    (acknowledging,) = manager.of(Use.ACKNOWLEDGING)

    assert (ack.hresult, ack.message) == (0, "")
    assert acknowledging.calls == ["initialize", "register", "subscribe", "acknowledge"]
    machine = platform.node()
    assert acknowledging.subscription == (
        rf"\\{machine}\Galaxy!Area_001 \\{machine}\Galaxy!Area_002",
        *(1, 999),
        *(2, 0, 0, 0),
    )
    assert acknowledging.acknowledged == [("Unit_001.T01", "Galaxy", alarm.area, "seen", "anna", machine)]
    assert (await listed(rig))["Unit_001.T01"].state == ACK_ALM


async def test_the_order_of_an_acknowledgements_arguments_is_an_option(start: Start) -> None:
    rig, manager = await with_alarms(
        start, alarm_acknowledge=["name", "comment", "operator", "node", "domain", "full_name", "provider", "group"]
    )
    alarm = (await listed(rig))["Unit_001.T01"]
    (ack,) = await rig.backend.acknowledge_alarms([alarm.alarm_id], "seen", "anna")

    assert (ack.hresult, ack.message) == (E_FAIL, "the alarm manager refuses the acknowledgement: it returned -55")
    assert manager.of(Use.ACKNOWLEDGING)[0].acknowledged == []
    assert (await listed(rig))["Unit_001.T01"].state == UNACK_ALM


async def test_each_alarm_has_its_own_result(start: Start) -> None:
    rig, _ = await with_alarms(start)
    alarms = await listed(rig)
    ids = [alarms["Unit_001.T01"].alarm_id, "?", alarms["Unit_001.T02"].alarm_id, alarms["Unit_001.T01"].alarm_id]
    await rig.backend.acknowledge_alarms(ids[:1], "", "")
    acks = await rig.backend.acknowledge_alarms(ids, "", "")

    assert [(ack.hresult, ack.detail) for ack in acks] == [(E_FAIL, 1015), (E_INVALIDARG, 0), (0, 0), (E_FAIL, 1015)]


async def test_without_areas_there_is_no_alarm_manager(start: Start) -> None:
    rig = await start({}, TWO)

    with pytest.raises(MxError, match="alarm_areas") as refused:
        await rig.backend.active_alarms()
    assert refused.value.hresult == E_NOTIMPL
    assert rig.doubled.alarm_manager.consumers == []


async def test_without_the_object_alarms_are_missing_and_mxaccess_works(start: Start) -> None:
    rig, manager = await with_alarms(start)
    manager.is_missing = True

    for _ in range(2):
        with pytest.raises(MxError, match=r"wwAlarmConsumer is not registered .* MXAccess works without it") as refused:
            await rig.backend.active_alarms()
    assert refused.value.hresult == E_NOTIMPL
    assert rig.sink.healths == [SOURCE_HEALTH_GOOD]
    await rig.written(await rig.advised("Bench_001.Count"), 5)


async def test_failures_and_the_recovery_are_told_once_and_a_new_object_is_made(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    rig, manager = await with_alarms(start)
    await rig.backend.active_alarms()
    manager.is_down = True
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            with pytest.raises(MxError, match="E_FAIL"):
                await rig.backend.active_alarms()
        manager.is_down = False

        assert len(await rig.backend.active_alarms()) == 2
        assert len(await rig.backend.active_alarms()) == 2

    assert [record.message for record in caplog.records if "alarms" in record.message] == [
        "alarms cannot be read: GetXmlCurrentAlarms2: no reason given (E_FAIL, 0x80004005)",
        "alarms can be read again",
    ]
    assert rig.sink.healths == [SOURCE_HEALTH_GOOD, SOURCE_HEALTH_DEGRADED, SOURCE_HEALTH_GOOD]
    first, *_, last = manager.of(Use.READING)
    assert first.calls[-1] == "release"
    assert last.calls == ["initialize", "register", "set_query", "current_alarms", "current_alarms"]


async def test_an_answer_that_cannot_be_read_is_a_failure(start: Start) -> None:
    rig, manager = await with_alarms(start)
    manager.answer = "<!DOCTYPE x><ALARM_RECORDS/>"

    with pytest.raises(MxError, match="cannot be read: it has a document type"):
        await rig.backend.active_alarms()

    manager.answer = None

    assert len(await rig.backend.active_alarms()) == 2
    assert len(manager.consumers) == 1  # the object answers; it is the answer that was wrong


async def test_while_the_alarm_manager_hangs_mxaccess_answers_and_polls_fail_at_once(start: Start) -> None:
    rig, manager = await with_alarms(start, alarm_answer_s=0.1)
    item = await rig.advised("Bench_001.Count")
    manager.go_on.clear()
    for _ in range(3):
        with pytest.raises(MxError, match=r"the alarm manager has not answered for 0\.1 s"):
            await rig.backend.active_alarms()

        assert (await rig.written(item, 5)).success == -1

        rig.sink.take("write_complete")

    manager.go_on.set()
    await until(rig.backend._alarms._line._polling.done)  # type: ignore[union-attr]

    assert len(await rig.backend.active_alarms()) == 2
    # One call hung, for which those who asked later waited too; then came a new one.
    assert manager.of(Use.READING)[0].calls.count("current_alarms") == 2


async def test_a_hung_object_is_told_given_up_and_replaced_three_times(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    rig, manager = await with_alarms(start, alarm_answer_s=0.1, slow_call_s=0.1, call_limit_s=0.3)
    manager.go_on.clear()
    for count in range(1, 4):
        with pytest.raises(MxError, match="has not answered"):
            await rig.backend.active_alarms()
        await until(lambda expected=count: rig.backend._alarms._hung == expected)  # type: ignore[misc,union-attr]

    with pytest.raises(MxError, match="has hung 3 times in this session"):
        await rig.backend.active_alarms()
    assert len(manager.of(Use.READING)) == 3
    assert (
        "the alarm manager has not returned from a call for 0.3 s; its object is given up (3 of 3)" in caplog.messages
    )
    assert rig.sink.healths[:2] == [SOURCE_HEALTH_GOOD, SOURCE_HEALTH_DEGRADED]
    assert (await rig.written(await rig.advised("Bench_001.Count"), 5)).success == -1

    manager.go_on.set()  # now each thread releases its object and ends
    await until(lambda: all(consumer.calls[-1] == "release" for consumer in manager.consumers))


async def test_after_a_hung_object_was_given_up_a_new_one_answers(start: Start) -> None:
    rig, manager = await with_alarms(start, alarm_answer_s=0.1, slow_call_s=0.1, call_limit_s=0.3)
    manager.go_on.clear()
    with pytest.raises(MxError, match="has not answered"):
        await rig.backend.active_alarms()
    await until(lambda: rig.backend._alarms._hung == 1)  # type: ignore[union-attr]
    manager.go_on.set()

    assert len(await rig.backend.active_alarms()) == 2
    assert rig.sink.healths[-1] == SOURCE_HEALTH_GOOD


async def test_an_acknowledgement_that_was_given_up_is_never_made(start: Start) -> None:
    rig, manager = await with_alarms(start, alarm_answer_s=0.1)
    alarm = (await listed(rig))["Unit_001.T01"]
    manager.go_on.clear()
    with pytest.raises(MxError, match="no alarm was acknowledged"):
        await rig.backend.acknowledge_alarms([alarm.alarm_id], "seen", "anna")
    manager.go_on.set()
    await until(lambda: rig.backend._alarms._line.apartment.busy is None)  # type: ignore[union-attr]

    assert (await listed(rig))["Unit_001.T01"].state == UNACK_ALM


async def test_an_acknowledgement_that_hangs_is_unknown_and_those_after_it_are_not_made(start: Start) -> None:
    rig, manager = await with_alarms(start, alarm_answer_s=0.2)
    alarms = await listed(rig)
    await rig.backend.acknowledge_alarms(["?"], "", "")
    (acknowledging,) = manager.of(Use.ACKNOWLEDGING)
    hung, made = threading.Event(), acknowledging.acknowledge

    def hang(arguments: Sequence[str]) -> int:
        hung.wait()
        return made(arguments)

    acknowledging.acknowledge = hang  # type: ignore[method-assign]
    ids = ["?", *(alarm.alarm_id for alarm in alarms.values())]
    unknown, unanswered, left = await rig.backend.acknowledge_alarms(ids, "", "")
    hung.set()

    assert unknown.hresult == E_INVALIDARG
    assert "look whether it is acknowledged" in unanswered.message
    assert "was not acknowledged" in left.message
    await until(lambda: len(acknowledging.acknowledged) == 1)
    states = sorted(alarm.state for alarm in (await listed(rig)).values())
    assert states == [UNACK_ALM, ACK_ALM]


async def test_an_acknowledgement_is_unknown_as_soon_as_its_object_is_given_up(start: Start) -> None:
    rig, manager = await with_alarms(start, alarm_answer_s=60.0, slow_call_s=0.1, call_limit_s=0.3)
    alarm = (await listed(rig))["Unit_001.T01"]
    await rig.backend.acknowledge_alarms(["?"], "", "")
    (acknowledging,) = manager.of(Use.ACKNOWLEDGING)
    hung = threading.Event()

    def hang(_arguments: Sequence[str]) -> int:
        hung.wait()
        return 0

    acknowledging.acknowledge = hang  # type: ignore[method-assign]
    (unknown,) = await rig.backend.acknowledge_alarms([alarm.alarm_id], "", "")

    assert "look whether it is acknowledged" in unknown.message
    assert rig.sink.healths[-1] == SOURCE_HEALTH_DEGRADED

    hung.set()

    assert len(await rig.backend.active_alarms()) == 2
    assert rig.sink.healths[-1] == SOURCE_HEALTH_GOOD


async def test_the_objects_are_released_in_their_apartment_when_the_backend_stops(start: Start) -> None:
    rig, manager = await with_alarms(start)
    alarm = (await listed(rig))["Unit_001.T01"]
    await rig.backend.acknowledge_alarms([alarm.alarm_id], "", "")
    await rig.backend.stop()

    assert [consumer.calls[-1] for consumer in manager.consumers] == ["release", "release"]
    await until(lambda: all(thread.name != "alarm manager" for thread in threading.enumerate()))
    with pytest.raises(MxError, match="not running"):
        await rig.backend.active_alarms()


def watch(rig: Rig) -> AlarmWatch:
    methods = Methods(
        backend=rig.backend, items=ItemTable(lambda: 0), writes=Writes(1.0), turn=BackendTurn(), maximum_items=10
    )
    return AlarmWatch(methods=methods, maximum_frame_bytes=64 * 1024)


def call() -> Call:
    return Call(lambda _reply: None, 0)


async def test_the_worker_makes_changes_of_the_differences_by_id(start: Start) -> None:
    rig, manager = await with_alarms(start)
    alarms = watch(rig)
    first = (await alarms.poll(call(), w.PollAlarms())).alarms

    assert first.complete
    assert len(first.alarms) == 2

    item = await rig.advised("Unit_001.T01.AckMsg")
    await rig.backend.write(rig.server, item, to_value("seen"), 0)
    await until(lambda: manager.alarms()[0].state == ACK_ALM)
    changed = (await alarms.poll(call(), w.PollAlarms(after_revision=first.revision))).alarms

    assert [(alarm.reference, alarm.state, alarm.comment) for alarm in changed.alarms] == [
        ("Unit_001.T01", ACK_ALM, "seen")
    ]

    # The alarm manager stops to list the other one.
    manager.answer = records_xml(manager.alarms()[:1])
    ended = (await alarms.poll(call(), w.PollAlarms(after_revision=changed.revision))).alarms

    assert [(alarm.reference, alarm.inferred) for alarm in ended.alarms] == [("Unit_001.T02", True)]


async def test_the_worker_tells_a_missing_alarm_manager_from_one_that_fails(start: Start) -> None:
    rig, manager = await with_alarms(start)
    manager.is_missing = True
    with pytest.raises(CallFailed) as missing:
        await watch(rig).poll(call(), w.PollAlarms())
    manager.is_missing, manager.is_down = False, True
    with pytest.raises(CallFailed) as failing:
        await watch(rig).poll(call(), w.PollAlarms())

    assert (missing.value.reason, failing.value.reason) == ("ALARMS_NOT_SUPPORTED", "ALARMS_UNAVAILABLE")
