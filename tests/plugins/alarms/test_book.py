"""The book: what a provider shows becomes the right events, and nothing it does not show becomes one."""

from __future__ import annotations

from support.alarms import ACK_ALM, ACK_RTN, UNACK_ALM, UNACK_RTN, degraded, record

from mxgw.v1 import alarms_pb2 as pb
from mxgw_alarms.book import AlarmBook
from mxgw_alarms.states import ACKNOWLEDGED, CLEARED, RAISED, UPDATED


def book_with(*alarms: pb.Alarm, maximum: int = 100) -> AlarmBook:
    book = AlarmBook(maximum)
    book.reconcile(alarms, watched=None, degraded=False)
    return book


def kinds(events: object) -> list[tuple[str, int]]:
    return [(e.transition.alarm.reference, e.kind) for e in events]  # type: ignore[attr-defined]


def test_a_life_is_told_step_by_step_and_leaves_nothing() -> None:
    book = AlarmBook(10)
    steps = [book.apply(record(state=state)) for state in (UNACK_ALM, ACK_ALM, ACK_RTN)]

    assert [step.kind for step in steps if step is not None] == [RAISED, ACKNOWLEDGED, CLEARED]
    assert [step.transition.previous_state for step in steps if step is not None] == [0, UNACK_ALM, ACK_ALM]
    assert len(book) == 0


def test_the_same_again_is_no_event_and_another_detail_is_an_update() -> None:
    book = book_with(record())

    assert book.apply(record()) is None

    event = book.apply(record(priority=5))

    assert event is not None
    assert (event.kind, event.priority) == (UPDATED, 5)


def test_raised_anew_between_two_looks_is_raised_although_the_state_is_the_same() -> None:
    book = book_with(record(raised=1))

    event = book.apply(record(raised=2))

    assert event is not None
    assert event.kind == RAISED


def test_the_end_of_an_older_occurrence_does_not_end_the_newer_one() -> None:
    book = book_with(record(raised=2))

    assert book.apply(record(state=ACK_RTN, raised=1)) is None
    assert "T.Level" in book


def test_of_two_occurrences_in_one_list_the_newer_counts() -> None:
    book = AlarmBook(10)
    book.reconcile([record(raised=2), record(state=UNACK_RTN, raised=1)], watched=None, degraded=False)

    assert [entry.alarm.state for entry in book.entries()] == [UNACK_ALM]


def test_an_alarm_keeps_its_handle_for_ever() -> None:
    book = AlarmBook(10)
    first = book.apply(record())
    book.apply(record(state=ACK_RTN))
    again = book.apply(record(raised=5))

    assert first is not None
    assert again is not None
    assert first.alarm_handle == again.alarm_handle > 1


def test_reconciling_tells_only_what_differs() -> None:
    book = book_with(record("A"), record("B"), record("C"))

    events = book.reconcile([record("A"), record("B", ACK_ALM), record("D")], watched=None, degraded=False)

    assert sorted(kinds(events)) == [("B", ACKNOWLEDGED), ("C", CLEARED), ("D", RAISED)]
    assert all(e.transition.reconciled for e in events)
    assert {e.transition.alarm.reference for e in events if e.transition.alarm.inferred} == {"C"}


def test_a_provider_that_does_not_watch_an_alarm_cannot_end_it() -> None:
    book = book_with(record("A"), record("B"))

    events = book.reconcile([degraded("A")], watched={"A"}, degraded=True)

    assert not events
    assert book.unwatched == {"B"}
    shown = {entry.alarm.reference: book.shown(entry) for entry in book.entries()}
    assert (shown["A"].degraded, shown["A"].stale) == (True, False)
    assert (shown["B"].degraded, shown["B"].stale) == (True, True)


def test_a_degraded_record_keeps_what_was_known() -> None:
    book = book_with(record(operator="anna", comment="seen", state=ACK_ALM))
    book.reconcile([degraded(state=ACK_ALM)], watched={"T.Level"}, degraded=True)

    entry = book.get("T.Level")

    assert entry is not None
    assert (entry.alarm.operator, entry.alarm.area, entry.alarm.alarm_id) == ("anna", "North", "T.Level#1")


def test_another_occurrence_that_only_the_fallback_saw_has_nothing_of_the_one_before() -> None:
    book = book_with(record(operator="anna", state=ACK_ALM))
    book.reconcile([degraded(state=ACK_RTN)], watched={"T.Level"}, degraded=True)

    event = book.apply(degraded())

    assert event is not None
    alarm = event.transition.alarm
    assert (alarm.operator, alarm.HasField("raise_time"), alarm.area) == ("", False, "North")
    assert alarm.degraded


def test_the_primary_confirming_the_fallback_is_an_update_and_never_a_raise() -> None:
    book = AlarmBook(10)
    book.reconcile([degraded()], watched={"T.Level"}, degraded=True)

    events = book.reconcile([record(raised=7)], watched=None, degraded=False)

    assert [e.kind for e in events] == [UPDATED]


def test_nobody_speaking_makes_everything_stale_and_ends_nothing() -> None:
    book = book_with(record())
    book.lost()

    (entry,) = book.entries()

    assert book.shown(entry).stale

    book.reconcile([record()], watched=None, degraded=False)

    assert not book.shown(entry).stale


def test_what_a_provider_cannot_see_for_now_is_stale_until_it_is_shown_again() -> None:
    book = AlarmBook(10)
    book.reconcile([degraded()], watched={"T.Level"}, degraded=True)
    book.unseen(["T.Level", "U.Level"])

    assert book.unwatched == {"T.Level"}

    book.apply(degraded(state=ACK_ALM))

    assert not book.unwatched


def test_too_many_different_alarms_are_left_out_and_counted() -> None:
    book = book_with(record("A"), record("B"), record("C"), maximum=2)

    assert len(book) == 2
    assert book.refused == 1


def test_what_is_asked_for_by_reference_is_sorted_once_until_an_alarm_changes() -> None:
    book = AlarmBook(10)
    for reference in ("b", "c", "a"):
        book.apply(record(reference))
    first = book.ordered()

    assert [entry.alarm.reference for entry in first] == ["a", "b", "c"]
    assert book.ordered() is first

    book.apply(record("aa"))
    book.apply(record("b", priority=77))
    changed = book.ordered()

    assert [(entry.alarm.reference, entry.alarm.priority == 77) for entry in changed] == [
        ("a", False),
        ("aa", False),
        ("b", True),
        ("c", False),
    ]

    book.reconcile([record("c")], watched=None, degraded=False)

    assert [entry.alarm.reference for entry in book.ordered()] == ["c"]
    assert [entry.alarm.reference for entry in first] == ["a", "b", "c"]
