"""The judge of streams: it stays silent on what is right, and names what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

import pytest
from support.events import EPOCH, OTHER_EPOCH, batch

from mxgw.v1 import event_service_pb2 as es
from mxgw.v1 import events_pb2 as e
from mxgw_core.api.types import Position
from mxgw_core.testing.checker import (
    KEPT,
    Hole,
    Lost,
    Observation,
    Opened,
    Passed,
    Promise,
    RoundRobin,
    Seen,
    SnapshotDone,
    SnapshotPart,
    StreamChecker,
    observed,
)

ITEMS = ("a", "b", "c")


def opened(
    at: int = 0,
    head: int = 100,
    oldest: int = 1,
    *,
    epoch: bytes = EPOCH,
    resuming: bool = False,
    recovered: bool = False,
) -> Opened:
    return Opened(epoch, at, head, oldest, resuming or recovered, recovered)


def event(sequence: int) -> Seen:
    """Return the true event of that number."""
    return Seen(sequence, ITEMS[(sequence - 1) % 3], (sequence - 1) // 3)


def events(first: int, last: int) -> list[Seen]:
    return [event(sequence) for sequence in range(first, last + 1)]


def lost(first: int, last: int, reason: str = "QUEUE_DROPPED", count: int = 0, runs: tuple[int, ...] = ()) -> Lost:
    return Lost(EPOCH, first, last, reason, count, runs)


def passed(sequence: int, epoch: bytes = EPOCH) -> Passed:
    return Passed(epoch, sequence)


def shown(sequence: int, *values: Seen) -> SnapshotPart:
    return SnapshotPart(EPOCH, sequence, values)


def done(sequence: int) -> SnapshotDone:
    return SnapshotDone(EPOCH, sequence)


class Produced:
    """Round robin, with holes."""

    def __init__(self, holes: Iterable[int] = ()) -> None:
        self._events = RoundRobin(EPOCH, ITEMS, lambda _, count: count)
        self._holes = set(holes)

    def produced(self, epoch: bytes, sequence: int) -> Seen | Hole | None:
        return Hole.HOLE if sequence in self._holes else self._events.produced(epoch, sequence)


Stream = tuple[Position | None, Sequence[Observation], str]


def fresh(*frames: Observation | list[Seen], end: str = "CONNECTION_LOST") -> Stream:
    return None, [*_flat(frames)], end


def resumed(
    after: int, *frames: Observation | list[Seen], epoch: bytes = EPOCH, end: str = "CONNECTION_LOST"
) -> Stream:
    return Position(epoch, after), [*_flat(frames)], end


def _flat(frames: Iterable[Observation | list[Seen]]) -> Iterable[Observation]:
    for frame in frames:
        yield from frame if isinstance(frame, list) else [frame]


def judged(
    *streams: Stream,
    holes: Iterable[int] = (),
    head: int | None = None,
    visible: Callable[[Hashable], bool] | None = None,
    permitted: Callable[[Hashable], bool] | None = None,
    may_lose: Callable[[Lost], bool] | None = None,
) -> StreamChecker:
    checker = StreamChecker(Produced(holes), visible=visible, permitted=permitted, may_lose=may_lose)
    for start, frames, end in streams:
        checker.attach(start)
        for frame in frames:
            checker.observe(frame)
        checker.end(end)
    checker.finish(head)
    return checker


def not_b(item: Hashable) -> bool:
    return item != "b"


RIGHT: dict[str, tuple[Sequence[Stream], dict[str, Any]]] = {
    "everything in order": ([fresh(opened(), events(1, 9), passed(9), events(10, 12))], {"head": 12}),
    "from now on": ([fresh(opened(50), events(51, 60))], {"head": 60}),
    "a refused stream": ([(None, [], "SUBSCRIBER_EXISTS")], {}),
    "a resume that is complete": (
        [fresh(opened(), events(1, 5)), resumed(5, opened(5, recovered=True), events(6, 9))],
        {"head": 9},
    ),
    "a resume that goes back to what the application took": (
        [fresh(opened(), events(1, 5)), resumed(5, end="GATEWAY_UNREACHABLE"), resumed(5, opened(5, recovered=True))],
        {"head": 5},
    ),
    "a resume without a gap although the log is shorter, from a history": (
        [resumed(5, opened(5, 100, 50, recovered=True), events(6, 60))],
        {"head": 60},
    ),
    "a resume that an outside store serves in part": (
        [resumed(5, opened(5, 100, 50, resuming=True), events(6, 20), lost(21, 49, "RING_EVICTED"), events(50, 60))],
        {"head": 60},
    ),
    "a resume with a gap in its place within the log": (
        [
            resumed(
                5,
                opened(5, 20, 4, resuming=True),
                events(6, 9),
                lost(10, 12, "WORKER_OUTBOX_OVERRUN"),
                events(13, 30),
            )
        ],
        {"head": 30, "may_lose": lambda _: True},
    ),
    "a resume that a store serves in whole, with a gap in its place within the log": (
        [
            resumed(
                5,
                opened(5, 60, 21, resuming=True),
                events(6, 30),
                lost(31, 35, "WORKER_OUTBOX_OVERRUN"),
                events(36, 60),
            )
        ],
        {"head": 60, "may_lose": lambda _: True},
    ),
    "a complete resume, and what its own queue or the source lost later": (
        [
            resumed(
                5,
                opened(5, 20, 4, recovered=True),
                events(6, 9),
                lost(10, 12),
                events(13, 20),
                lost(21, 25, "WORKER_OUTBOX_OVERRUN"),
            )
        ],
        {"head": 25, "may_lose": lambda _: True},
    ),
    "a resume with a gap that says what is evicted": (
        [fresh(opened(), events(1, 5)), resumed(5, opened(5, 30, 21, resuming=True), lost(6, 20, "RING_EVICTED"))],
        {"head": 20},
    ),
    "another epoch": (
        [
            fresh(opened(), events(1, 5)),
            resumed(5, opened(0, 3, epoch=OTHER_EPOCH, resuming=True), Lost(OTHER_EPOCH, 0, 0, "EPOCH_CHANGED")),
            resumed(0, opened(0, epoch=OTHER_EPOCH, recovered=True), Seen(1, "a"), epoch=OTHER_EPOCH),
        ],
        {"head": 1},
    ),
    "a position ahead": (
        [resumed(99, opened(30, 30, resuming=True), lost(0, 0, "CURSOR_AHEAD"), events(31, 40))],
        {"head": 40},
    ),
    "a gap in the stream": ([fresh(opened(), events(1, 3), lost(4, 6), events(7, 9))], {"head": 9}),
    "a gap before anybody came": (
        [fresh(opened(0, 30, 11), lost(1, 10, "RING_EVICTED"), events(11, 12))],
        {"head": 12},
    ),
    "a gap of the worker's": (
        [fresh(opened(), events(1, 3), lost(4, 4, "SOURCE_RECONNECTED"), events(5, 6))],
        {"holes": {4}, "head": 6},
    ),
    "a gap part of which is delivered": (
        [fresh(opened(), events(1, 3), lost(4, 9, "CONFLATED", 5, (3, 1, 2)), event(7), event(10))],
        {"head": 10},
    ),
    "a resume from before a gap, which was not lost after all": (
        [fresh(opened(), events(1, 3), lost(4, 6)), resumed(3, opened(3, recovered=True), events(4, 7))],
        {"head": 7},
    ),
    "a resume from before a gap with runs whose events never came": (
        [
            fresh(opened(), events(1, 3), lost(4, 9, "CONFLATED", 5, (3, 1, 2))),
            resumed(3, opened(3, recovered=True), events(4, 9)),
        ],
        {"head": 9},
    ),
    "a resume from before progress": (
        [fresh(opened(), event(1), passed(2)), resumed(1, opened(1, recovered=True), event(3))],
        {"visible": not_b, "head": 3},
    ),
    "a filter, with progress": (
        [fresh(opened(), event(1), event(3), event(4), passed(5), event(6), event(7), passed(8))],
        {"visible": not_b, "head": 8},
    ),
    "a snapshot in its place": (
        [
            fresh(
                opened(10),
                event(11),
                event(12),
                shown(12, event(11), event(10)),
                shown(12, event(12)),
                done(12),
                event(13),
            )
        ],
        {"head": 13},
    ),
    "a snapshot of nothing": ([fresh(opened(10), done(10), event(11))], {}),
    "a second fresh start": ([fresh(opened(), events(1, 5)), fresh(opened(), events(1, 5))], {"head": 5}),
    "a loss that is excused": (
        [fresh(opened(), lost(1, 5), event(6))],
        {"may_lose": lambda gap: gap.reason == "QUEUE_DROPPED"},
    ),
}


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_right_is_not_found_fault_with(name: str) -> None:
    streams, options = RIGHT[name]
    checker = judged(*streams, **options)

    assert not checker.violations, checker.report()


WRONG: dict[str, tuple[Promise, str, Sequence[Stream], dict[str, Any]]] = {
    "an event again": (
        Promise.UNIQUE,
        "event 3 came again",
        [fresh(opened(), events(1, 3), event(3))],
        {},
    ),
    "an event again after a resume": (
        Promise.UNIQUE,
        "event 5 came again",
        [fresh(opened(), events(1, 5)), resumed(4, opened(4, recovered=True), event(5))],
        {},
    ),
    "events in another order": (Promise.ORDERED, "event 51 came after 51", [fresh(opened(51), event(51))], {}),
    "a silent loss": (Promise.COMPLETE, "4 to 4 missing", [fresh(opened(), events(1, 3), event(5))], {}),
    "a silent loss after a resume": (
        Promise.COMPLETE,
        "6 to 6 missing",
        [fresh(opened(), events(1, 5)), resumed(5, opened(5, recovered=True), event(7))],
        {},
    ),
    "a silent loss at the end": (
        Promise.COMPLETE,
        "nothing after 3, of 5",
        [fresh(opened(), events(1, 3))],
        {"head": 5},
    ),
    "nothing at all": (Promise.COMPLETE, "nothing after 0, of 5", [(None, [], "CONNECTION_LOST")], {"head": 5}),
    "a gap that begins too late": (
        Promise.COMPLETE,
        "4 to 4 missing",
        [fresh(opened(), events(1, 3), lost(5, 6), event(7))],
        {},
    ),
    "a gap of no length": (Promise.COMPLETE, "contradicts itself", [fresh(opened(), events(1, 3), lost(4, 3))], {}),
    "a gap of more events than numbers": (
        Promise.COMPLETE,
        "contradicts itself",
        [fresh(opened(), lost(1, 3, count=4))],
        {},
    ),
    "a gap whose runs do not fill its range": (
        Promise.COMPLETE,
        "contradicts itself",
        [fresh(opened(), lost(1, 9, "CONFLATED", 5, (3, 1, 1)))],
        {},
    ),
    "what is not lost of a gap does not come": (
        Promise.COMPLETE,
        "missing without a Gap",
        [fresh(opened(), events(1, 3), lost(4, 9, "CONFLATED", 5, (3, 1, 2)), event(10))],
        {},
    ),
    "what is lost of a gap comes": (
        Promise.MINIMAL,
        "event 6 came, although",
        [fresh(opened(), events(1, 3), lost(4, 9, "CONFLATED", 5, (3, 1, 2)), event(6))],
        {},
    ),
    "a gap without a range": (Promise.COMPLETE, "has no range", [fresh(opened(), lost(0, 0, "QUEUE_DROPPED"))], {}),
    "a gap of another epoch": (
        Promise.COMPLETE,
        "another epoch",
        [fresh(opened(), Lost(OTHER_EPOCH, 1, 2, "QUEUE_DROPPED"))],
        {},
    ),
    "a gap for what was delivered": (
        Promise.MINIMAL,
        "had been delivered",
        [fresh(opened(), events(1, 3), lost(3, 6), event(7))],
        {},
    ),
    "an event that a gap had given up": (
        Promise.MINIMAL,
        "had said that it is lost",
        [fresh(opened(), events(1, 3), lost(4, 6), event(6))],
        {},
    ),
    "a gap for what is retained": (
        Promise.MINIMAL,
        "from 21 on were retained",
        [resumed(5, opened(5, 30, 21, resuming=True), lost(6, 21, "RING_EVICTED"))],
        {},
    ),
    "not recovered although all is retained": (
        Promise.MINIMAL,
        "nothing was missing up to 9",
        [resumed(5, opened(5, 9, 6, resuming=True), events(6, 9))],
        {},
    ),
    "not recovered although there is nothing": (
        Promise.MINIMAL,
        "there is nothing after 9",
        [resumed(9, opened(9, 9, 6, resuming=True))],
        {},
    ),
    "recovered, and then a gap in what was there": (
        Promise.RESUMABLE,
        "although recovered was true and everything up to 9",
        [resumed(5, opened(5, 9, 6, recovered=True), events(6, 8), lost(9, 12, "WORKER_OUTBOX_OVERRUN"))],
        {},
    ),
    "a gap that blames the worker": (
        Promise.MINIMAL,
        "blames the worker",
        [fresh(opened(), lost(1, 1, "WORKER_OUTBOX_OVERRUN"))],
        {},
    ),
    "a loss that is not excused": (
        Promise.MINIMAL,
        "not excused",
        [fresh(opened(), lost(1, 5), event(6))],
        {"may_lose": lambda _: False},
    ),
    "progress ahead of delivery": (
        Promise.PROGRESS,
        "progress says 5 after 3",
        [fresh(opened(), events(1, 3), passed(5))],
        {},
    ),
    "an event after the progress that passed it": (
        Promise.PROGRESS,
        "after the mark 4",
        [fresh(opened(), event(1), event(3), passed(4), event(4))],
        {"visible": not_b},
    ),
    "progress of another epoch": (
        Promise.PROGRESS,
        "another epoch",
        [fresh(opened(), events(1, 3), passed(3, OTHER_EPOCH))],
        {},
    ),
    "progress that goes back": (
        Promise.ORDERED,
        "goes back from 3 to 2",
        [fresh(opened(), events(1, 3), passed(2))],
        {},
    ),
    "a position ahead of what the application took": (
        Promise.PROGRESS,
        "only 5 had been handed over",
        [fresh(opened(), events(1, 5)), resumed(7, opened(7, recovered=True), event(8))],
        {},
    ),
    "a snapshot ahead of what was delivered": (
        Promise.PROGRESS,
        "says 12 after 10",
        [fresh(opened(10), shown(12, event(12)), done(12), event(13))],
        {},
    ),
    "a snapshot that is older than what was delivered": (
        Promise.ORDERED,
        "as of 10 came after 11",
        [fresh(opened(10), event(11), shown(10, event(10)), done(11))],
        {},
    ),
    "a snapshot of two positions": (
        Promise.PROGRESS,
        "of 10 and 11",
        [fresh(opened(10), shown(10, event(10)), shown(11, event(9)))],
        {},
    ),
    "a snapshot that ends elsewhere": (
        Promise.PROGRESS,
        "as of 10 ended as of 11",
        [fresh(opened(10), shown(10, event(10)), done(11))],
        {},
    ),
    "an event inside a snapshot": (
        Promise.ORDERED,
        "inside a snapshot",
        [fresh(opened(10), shown(10, event(10)), event(11), done(11))],
        {},
    ),
    "a value newer than its snapshot": (
        Promise.PROGRESS,
        "the snapshot as of 10 shows",
        [fresh(opened(10), shown(10, event(11)), done(10))],
        {},
    ),
    "a value older than what was delivered of its item": (
        Promise.PROGRESS,
        "13 had been delivered",
        [fresh(opened(12), event(13), shown(13, event(10)), done(13))],
        {},
    ),
    "a value the worker never produced, in a snapshot": (
        Promise.TRUE,
        "the worker produced",
        [fresh(opened(10), shown(10, Seen(10, "a", 999)), done(10))],
        {},
    ),
    "an event the worker never produced": (
        Promise.TRUE,
        "the worker produced",
        [fresh(opened(), event(1), Seen(2, "b", 7))],
        {},
    ),
    "an event under another's name": (
        Promise.TRUE,
        "the worker produced",
        [fresh(opened(), event(1), Seen(2, "c", 0))],
        {},
    ),
    "an event where there was none": (
        Promise.TRUE,
        "the worker itself reported a gap",
        [fresh(opened(), events(1, 3))],
        {"holes": {2}},
    ),
    "an event that the filter hides": (
        Promise.FILTERED,
        "passed the filter",
        [fresh(opened(), events(1, 3))],
        {"visible": not_b},
    ),
    "a loss that is taken for the filter's work": (
        Promise.COMPLETE,
        "3 to 3 missing",
        [fresh(opened(), event(1), event(4))],
        {"visible": not_b},
    ),
    "an event that may not be seen": (
        Promise.PERMITTED,
        "was shown",
        [fresh(opened(), events(1, 3))],
        {"permitted": not_b},
    ),
    "a resume that is taken for a fresh start": (
        Promise.RESUMABLE,
        "was_resuming is False",
        [resumed(5, opened(5), event(6))],
        {},
    ),
    "a resume that says it recovered elsewhere": (
        Promise.RESUMABLE,
        "recovered after 6, not after 5",
        [resumed(5, opened(6, recovered=True), event(6))],
        {},
    ),
    "a resume in another epoch that says it recovered": (
        Promise.RESUMABLE,
        "recovered, although EPOCH_CHANGED",
        [resumed(5, opened(5, epoch=OTHER_EPOCH, recovered=True))],
        {},
    ),
    "a position ahead that is caught up": (
        Promise.RESUMABLE,
        "recovered, although CURSOR_AHEAD",
        [resumed(99, opened(99, 30, recovered=True))],
        {},
    ),
    "another epoch without a gap": (
        Promise.RESUMABLE,
        "where a Gap EPOCH_CHANGED was due",
        [resumed(5, opened(0, epoch=OTHER_EPOCH, resuming=True), Seen(1, "a"))],
        {},
    ),
    "an eviction without a gap": (
        Promise.RESUMABLE,
        "where a Gap RING_EVICTED was due",
        [resumed(5, opened(20, 30, 21, resuming=True), event(21))],
        {},
    ),
    "an outside store that has less than the gap says": (
        Promise.RESUMABLE,
        "event 50 came first, where a Gap RING_EVICTED was due",
        [resumed(5, opened(5, 100, 50, resuming=True), events(6, 20), event(50))],
        {},
    ),
    "an end without a reason": (Promise.ENDED, "without a reason", [fresh(opened(), end="")], {}),
    "an event before StreamOpened": (Promise.ENDED, "before StreamOpened", [fresh(event(1))], {}),
    "a second StreamOpened": (Promise.ENDED, "second StreamOpened", [fresh(opened(), opened())], {}),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_named(name: str) -> None:
    promise, text, streams, options = WRONG[name]
    checker = judged(*streams, **options)

    assert [str(v) for v in checker.violations if v.promise is promise and text in v.text], checker.report()
    assert checker.counts[promise]


def test_every_promise_has_a_violation_that_is_found() -> None:
    assert {promise for promise, *_ in WRONG.values()} == set(Promise)


def test_a_stream_that_never_ended_is_found() -> None:
    for misuse in (lambda checker: checker.attach(None), lambda checker: checker.finish()):
        checker = StreamChecker()
        checker.attach(None)
        misuse(checker)

        assert checker.counts == {Promise.ENDED: 1}


def test_a_history_without_a_stream_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="attach first"):
        StreamChecker().observe(opened())
    with pytest.raises(ValueError, match="attach first"):
        StreamChecker().end("CLIENT")


def test_without_an_oracle_numbers_are_judged_and_what_a_filter_hides_is_counted_as_unjudged() -> None:
    checker = StreamChecker(visible=not_b)
    checker.attach()
    for frame in (opened(), event(1), event(4)):
        checker.observe(frame)

    assert not checker.violations
    assert checker.unjudged == 2


def test_violations_beyond_what_is_kept_are_counted() -> None:
    checker = judged(fresh(opened(), event(1), [event(1)] * (KEPT + 10)))

    assert len(checker.violations) == KEPT
    assert checker.counts[Promise.UNIQUE] == KEPT + 10
    assert f"{KEPT + 10} violations" in checker.report()


def test_figures_tell_what_was_seen() -> None:
    checker = judged(
        fresh(opened(), events(1, 5), lost(6, 9, count=3)), resumed(9, opened(9, recovered=True), events(10, 12))
    )

    assert (checker.events, checker.gaps, checker.lost_events) == (8, 1, 3)
    assert (checker.streams, checker.resumes) == (2, 1)
    assert checker.position == Position(EPOCH, 12)


def test_frames_of_the_contract_are_observed() -> None:
    frame, position = es.StreamEventsResponse, e.Position(epoch=EPOCH, sequence=7)
    change = e.DataChange(raw_quality=192)
    change.value.integer = 5
    item = e.SnapshotItem(server_handle=1, item_handle=2, sequence=3, value=change)
    messages = [
        frame(opened=e.StreamOpened(epoch=EPOCH, from_sequence=1, head_sequence=9, oldest_sequence=2, recovered=True)),
        frame(events=e.EventBatch.FromString(batch([2, 3]))),
        frame(
            gap=e.Gap(epoch=EPOCH, first_lost=4, last_lost=8, count=2, reason=e.GAP_REASON_CONFLATED, runs=[1, 3, 1])
        ),
        frame(progress=e.Progress(position=position)),
        frame(heartbeat=e.Heartbeat(position=position)),
        frame(snapshot=e.Snapshot(position=position, items=[item])),
        frame(snapshot_end=e.SnapshotEnd(position=position)),
        frame(draining=e.Draining()),
    ]

    def number(event: e.Event) -> int:
        return event.data_change.value.integer

    assert [o for message in messages for o in observed(message, number)] == [
        Opened(EPOCH, 1, 9, 2, was_resuming=False, recovered=True),
        Seen(2, (1, 1), 2),
        Seen(3, (1, 1), 3),
        Lost(EPOCH, 4, 8, "CONFLATED", 2, (1, 3, 1)),
        Passed(EPOCH, 7),
        Passed(EPOCH, 7),
        SnapshotPart(EPOCH, 7, (Seen(3, (1, 2), 5),)),
        SnapshotDone(EPOCH, 7),
    ]
