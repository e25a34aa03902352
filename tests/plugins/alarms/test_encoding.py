"""Bytes that many readers share say the same as messages made one by one."""

from __future__ import annotations

from collections.abc import Sequence

from support.alarms import UNACK_RTN, record

from mxgw.v1 import alarms_pb2 as pb
from mxgw.v1 import event_service_pb2
from mxgw.v1.alarm_service_pb2 import AlarmFilter as Wanted
from mxgw.v1.alarm_service_pb2 import StreamAlarmsResponse
from mxgw.v1.events_pb2 import Event
from mxgw_alarms.book import AlarmBook
from mxgw_alarms.encoding import AlarmsTaken, batch_of
from mxgw_alarms.filters import AlarmFilter
from mxgw_core.events.encoding import event_head, fourth_field, record_bounds


def taken(book: AlarmBook) -> AlarmsTaken:
    status = pb.ProviderStatus(provider=pb.ALARM_PROVIDER_PRIMARY, detail="test")
    return AlarmsTaken(b"e" * 16, 7, book.entries(), book.is_degraded, book.is_stale, book.unwatched, status)


def frames(book: AlarmBook, limit_bytes: int, filters: Sequence[AlarmFilter] = ()) -> list[StreamAlarmsResponse]:
    return [StreamAlarmsResponse.FromString(frame) for frame in taken(book).frames(filters, limit_bytes)]


def test_the_frames_that_both_streams_have_are_the_same_on_the_wire() -> None:
    ours, theirs = StreamAlarmsResponse.DESCRIPTOR, event_service_pb2.StreamEventsResponse.DESCRIPTOR
    for name in ("opened", "gap", "progress", "heartbeat", "draining"):
        assert ours.fields_by_name[name].number == theirs.fields_by_name[name].number
        assert ours.fields_by_name[name].message_type is theirs.fields_by_name[name].message_type
    assert ours.fields_by_name["events"].number == theirs.fields_by_name["events"].number
    assert pb.AlarmBatch.EVENTS_FIELD_NUMBER == event_service_pb2.StreamEventsResponse.EVENTS_FIELD_NUMBER - 1 == 1


def test_the_head_of_an_alarm_event_is_that_of_an_event() -> None:
    for alarm_field, event_field in (
        ("sequence", "sequence"),
        ("alarm_handle", "item_serial"),
        ("kind", "kind"),
        ("priority", "item_handle"),
    ):
        ours = pb.AlarmEvent.DESCRIPTOR.fields_by_name[alarm_field]
        theirs = Event.DESCRIPTOR.fields_by_name[event_field]

        assert (ours.number, ours.type) == (theirs.number, theirs.type)


def test_core_reads_who_and_what_an_alarm_event_is_about_without_parsing_it() -> None:
    event = AlarmBook(10).apply(record(priority=300))
    assert event is not None
    batch = batch_of([event, event], 41)

    heads = [(event_head(batch, body), fourth_field(batch, body, end)) for _, body, end in record_bounds(batch)]

    assert heads[1] == ((43, event.alarm_handle, pb.ALARM_EVENT_KIND_RAISED), 300)


def test_a_snapshot_has_every_alarm_once_and_ends() -> None:
    book = AlarmBook(1000)
    alarms = [record(f"R{n}", UNACK_RTN if n % 2 else 1, raised=n + 1) for n in range(200)]
    book.reconcile(alarms, watched=None, degraded=False)

    parts = frames(book, 2000)

    assert len(parts) > 5
    assert [a.alarm for part in parts[:-1] for a in part.snapshot.alarms] == alarms
    assert all(part.ByteSize() <= 2100 for part in parts)
    assert parts[0].snapshot.position.sequence == parts[-1].snapshot_complete.position.sequence == 7
    assert parts[-1].snapshot_complete.provider.detail == "test"


def test_what_holds_for_many_at_once_stands_in_each_alarm() -> None:
    book = AlarmBook(10)
    book.reconcile([record("A"), record("B")], watched=None, degraded=False)
    book.reconcile([record("A")], watched={"A"}, degraded=True)
    active = {a.alarm.reference: a.alarm for a in frames(book, 10_000)[0].snapshot.alarms}

    assert (active["A"].degraded, active["A"].stale) == (True, False)
    assert (active["B"].degraded, active["B"].stale) == (True, True)
    assert active["B"] == book.shown(book.entries()[1])


def test_a_snapshot_shows_what_the_filter_lets_pass() -> None:
    book = AlarmBook(10)
    book.reconcile([record("A", priority=10), record("B", priority=500)], watched=None, degraded=False)

    shown = frames(book, 10_000, [AlarmFilter(book, Wanted(to_priority=100), ())])

    assert [a.alarm.reference for a in shown[0].snapshot.alarms] == ["A"]


def test_an_empty_snapshot_still_says_that_it_is_complete() -> None:
    (only,) = frames(AlarmBook(10), 1000)

    assert only.WhichOneof("frame") == "snapshot_complete"
