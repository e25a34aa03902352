"""The worker's list of changes: asked for and compared, or reported; numbered, paged, and never half told."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from support.alarms import ACK_ALM, ACK_RTN, UNACK_ALM, record

from mxgw.v1.alarms_pb2 import Alarm
from mxgw.worker.v1 import worker_pb2 as w
from mxgw_worker import alarms
from mxgw_worker.alarms import AlarmWatch
from mxgw_worker.backends.base import E_FAIL, AlarmAck, AlarmListener, BackendInfo, MxError
from mxgw_worker.backends.partial import PartialBackend
from mxgw_worker.calls import Call, CallFailed
from mxgw_worker.items import ItemTable
from mxgw_worker.methods import Methods
from mxgw_worker.turns import BackendTurn
from mxgw_worker.writes import Writes

FRAME_BYTES = 64 * 1024


class Silent(PartialBackend):
    """No alarm manager at all."""

    def info(self) -> BackendInfo:
        return BackendInfo("silent", "1", "nothing")

    async def start(self, sink: object) -> None: ...

    async def stop(self) -> None: ...


class Asked(Silent):
    """An alarm manager that shows what it is told to."""

    def __init__(self) -> None:
        self.alarms: list[Alarm] = []
        self.is_down = False
        self.acknowledged: list[tuple[Sequence[str], str, str]] = []

    async def active_alarms(self) -> Sequence[Alarm]:
        if self.is_down:
            raise MxError(E_FAIL, "it is away")
        return self.alarms

    async def acknowledge_alarms(self, alarm_ids: Sequence[str], comment: str, operator: str) -> Sequence[AlarmAck]:
        if self.is_down:
            raise MxError(E_FAIL, "it is away")
        self.acknowledged.append((tuple(alarm_ids), comment, operator))
        return [AlarmAck() if i else AlarmAck(E_FAIL, "again", 1015) for i, _ in enumerate(alarm_ids)]


class Reporting(Asked):
    """An alarm manager that reports by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.listener: AlarmListener | None = None

    async def follow_alarms(self, listener: AlarmListener) -> None:
        if self.is_down:
            raise MxError(E_FAIL, "it is away")
        self.listener = listener
        listener.refreshed(self.alarms)


def watch_of(backend: Silent, frame_bytes: int = FRAME_BYTES) -> AlarmWatch:
    methods = Methods(
        backend=backend, items=ItemTable(lambda: 0), writes=Writes(1.0), turn=BackendTurn(), maximum_items=10
    )
    return AlarmWatch(methods=methods, maximum_frame_bytes=frame_bytes)


async def poll(watch: AlarmWatch, after: int = 0, wait_ms: int = 0, token: str = "") -> w.AlarmReport:
    query = w.PollAlarms(after_revision=after, wait_ms=wait_ms, page_token=token)
    return (await watch.poll(Call(lambda _reply: None, 0), query)).alarms


def told(report: w.AlarmReport) -> list[tuple[str, int]]:
    return [(alarm.alarm_id, alarm.state) for alarm in report.alarms]


@pytest.mark.asyncio
async def test_the_first_answer_is_everything_and_the_next_what_changed() -> None:
    backend = Asked()
    watch = watch_of(backend)
    backend.alarms = [record("A"), record("B")]
    first = await poll(watch)
    backend.alarms = [record("A", ACK_ALM), record("C")]
    second = await poll(watch, first.revision)
    third = await poll(watch, second.revision)

    assert first.complete
    assert told(first) == [("A#1", UNACK_ALM), ("B#1", UNACK_ALM)]
    assert not second.complete
    assert told(second) == [("B#1", ACK_RTN), ("A#1", ACK_ALM), ("C#1", UNACK_ALM)]
    assert [alarm.inferred for alarm in second.alarms] == [True, False, False]
    assert not third.complete
    assert not third.alarms


@pytest.mark.asyncio
async def test_an_answer_that_was_lost_is_given_again() -> None:
    backend = Asked()
    watch = watch_of(backend)
    first = await poll(watch)
    backend.alarms = [record("A")]
    lost = await poll(watch, first.revision)
    again = await poll(watch, first.revision)

    assert lost == again
    assert told(again) == [("A#1", UNACK_ALM)]


@pytest.mark.asyncio
async def test_an_alarm_that_is_listed_as_over_is_told_once_and_not_concluded() -> None:
    backend = Asked()
    watch = watch_of(backend)
    backend.alarms = [record("A")]
    first = await poll(watch)
    backend.alarms = [record("A", ACK_RTN, operator="anna")]
    second = await poll(watch, first.revision)
    third = await poll(watch, second.revision)

    assert [(a.state, a.operator, a.inferred) for a in second.alarms] == [(ACK_RTN, "anna", False)]
    assert not third.alarms


@pytest.mark.asyncio
@pytest.mark.parametrize("after", [0, 10_000])
async def test_a_revision_that_is_not_known_gets_everything(after: int) -> None:
    backend = Asked()
    watch = watch_of(backend)
    backend.alarms = [record("A")]
    await poll(watch)

    report = await poll(watch, after)

    assert report.complete
    assert told(report) == [("A#1", UNACK_ALM)]


@pytest.mark.asyncio
async def test_a_reader_too_far_behind_gets_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alarms, "KEPT_CHANGES", 2)
    backend = Asked()
    watch = watch_of(backend)
    first = await poll(watch)
    backend.alarms = [record(name) for name in "ABC"]

    report = await poll(watch, first.revision)

    assert report.complete
    assert len(report.alarms) == 3


@pytest.mark.asyncio
async def test_a_report_larger_than_a_frame_comes_in_pages_of_one_moment() -> None:
    backend = Asked()
    watch = watch_of(backend, 4096)
    backend.alarms = [record(f"R{n:03d}") for n in range(200)]
    page = await poll(watch)
    pages = [page]
    backend.alarms = []  # what comes meanwhile belongs to the next report
    while page.next_page_token:
        page = await poll(watch, token=page.next_page_token)
        pages.append(page)

    assert len(pages) > 2
    assert all(p.ByteSize() < 4096 for p in pages)
    assert all(p.complete and p.revision == pages[0].revision for p in pages)
    assert [a.reference for p in pages for a in p.alarms] == [f"R{n:03d}" for n in range(200)]

    with pytest.raises(CallFailed, match="earlier report"):
        await poll(watch, token=pages[0].next_page_token[:-1] + "x")


@pytest.mark.asyncio
async def test_a_manager_that_is_away_ends_no_alarm() -> None:
    backend = Asked()
    watch = watch_of(backend)
    backend.alarms = [record("A")]
    first = await poll(watch)
    backend.is_down = True
    with pytest.raises(CallFailed) as failed:
        await poll(watch, first.revision)
    backend.is_down = False

    assert failed.value.reason == "ALARMS_UNAVAILABLE"
    assert not (await poll(watch, first.revision)).alarms


@pytest.mark.asyncio
async def test_a_backend_without_an_alarm_manager_says_so() -> None:
    watch = watch_of(Silent())
    with pytest.raises(CallFailed) as polled:
        await poll(watch)
    with pytest.raises(CallFailed) as acknowledged:
        await watch.acknowledge(Call(lambda _reply: None, 0), w.AcknowledgeAlarms(alarm_ids=["x"]))

    assert polled.value.reason == acknowledged.value.reason == "ALARMS_NOT_SUPPORTED"


@pytest.mark.asyncio
async def test_acknowledgements_have_one_result_each() -> None:
    backend = Asked()
    request = w.AcknowledgeAlarms(alarm_ids=["a", "b"], comment="seen", operator="anna")
    reply = await watch_of(backend).acknowledge(Call(lambda _reply: None, 0), request)

    assert backend.acknowledged == [(("a", "b"), "seen", "anna")]
    assert [(r.hresult, r.detail) for r in reply.acknowledged.results] == [(E_FAIL, 1015), (0, 0)]


@pytest.mark.asyncio
async def test_a_poll_waits_for_a_manager_that_reports_by_itself() -> None:
    backend = Reporting()
    watch = watch_of(backend)
    first = await poll(watch)

    assert first.event_driven

    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(poll(watch, first.revision, 20_000))
        await asyncio.sleep(0)
        assert backend.listener is not None
        for state in (UNACK_ALM, ACK_ALM, ACK_RTN):  # nothing in between is left out
            backend.listener.changed(record("A", state))

    assert [state for _, state in told(waiting.result())] == [UNACK_ALM, ACK_ALM, ACK_RTN]


@pytest.mark.asyncio
async def test_a_reporting_manager_that_goes_away_ends_the_wait_and_comes_back_with_what_differs() -> None:
    backend = Reporting()
    backend.alarms = [record("A"), record("B")]
    watch = watch_of(backend)
    first = await poll(watch)
    assert backend.listener is not None
    backend.listener.failed("connection lost")
    with pytest.raises(CallFailed, match="connection lost"):
        await poll(watch, first.revision, 20_000)

    backend.listener.refreshed([record("B", ACK_ALM)])
    report = await poll(watch, first.revision)

    assert told(report) == [("A#1", ACK_RTN), ("B#1", ACK_ALM)]


@pytest.mark.asyncio
async def test_following_is_tried_again_after_it_failed() -> None:
    backend = Reporting()
    backend.is_down = True
    watch = watch_of(backend)
    with pytest.raises(CallFailed):
        await poll(watch)
    backend.is_down = False

    assert (await poll(watch)).complete


class Late(Reporting):
    """Shows its alarms some time after it was asked to report."""

    async def follow_alarms(self, listener: AlarmListener) -> None:
        self.listener = listener


@pytest.mark.asyncio
async def test_no_list_is_not_an_empty_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alarms, "_FIRST_S", 0.01)
    backend = Late()
    watch = watch_of(backend)
    with pytest.raises(CallFailed, match="has not shown its alarms yet"):
        await poll(watch)
    assert backend.listener is not None
    backend.listener.refreshed([])

    assert (await poll(watch)).complete
