"""Answers that stand are remembered by item, and shared by readers whose filters are equal."""

from __future__ import annotations

import gc
from dataclasses import dataclass, field
from weakref import ref

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.distributing import Items, Pump
from support.events import batch, event, sequences_of

from mxgw.v1 import events_pb2 as e
from mxgw_core.api.events import StandingAnswer
from mxgw_core.events.filtering import CUTS, Sieve
from mxgw_core.events.log import Chunk, chunk_of
from mxgw_core.events.opened import identity_of, opened
from mxgw_core.events.records import MalformedBatch
from mxgw_core.events.verdict import Start

EVERYTHING = 1 << 20


@dataclass(eq=False)
class Standing:
    """A filter whose answers stand; remembers what it was asked. Equal to those of the same name."""

    name: str = ""
    answers: dict[int, StandingAnswer | None] = field(default_factory=dict)
    revision: int = 0
    asked: list[int] = field(default_factory=list)
    asked_each: list[int] = field(default_factory=list)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Standing) and other.name == self.name != ""

    def __hash__(self) -> int:
        return hash(self.name)

    def keep(self, server_handle: int, item_handle: int, kind: int, sequence: int) -> bool | None:
        self.asked_each.append(sequence)
        answer = self.answers.get(item_handle)
        return None if answer is None else answer.keep if sequence > answer.after else not answer.keep

    def standing(self, server_handle: int, item_handle: int, kind: int) -> StandingAnswer | None:
        self.asked.append(item_handle)
        return self.answers.get(item_handle)


def standing(*items: int, name: str = "") -> Standing:
    """Return a filter that lets these items of three pass."""
    return Standing(name, {item: StandingAnswer(item in items) for item in (1, 2, 3)})


def alternating(first: int, events: int, items: int = 2) -> Chunk:
    """Return a chunk of events of the items in turn."""
    made = [event(sequence, 1 + sequence % items) for sequence in range(first, first + events)]
    return chunk_of(first, first + events - 1, e.EventBatch(events=made).SerializeToString())


def kept(sieve: Sieve, chunk: Chunk) -> list[int]:
    passed = sieve.judge(chunk, may_wait=True).kept
    return [] if passed is None else sequences_of(passed)


@pytest.mark.parametrize("events", [3, 100], ids=["few", "many"])
def test_an_item_is_asked_for_once_whatever_comes_of_it(events: int) -> None:
    f = standing(2)
    sieve = Sieve([f])
    for first in (1, 1 + events):
        assert kept(sieve, alternating(first, events)) == [s for s in range(first, first + events) if s % 2]
    assert sorted(f.asked) == [1, 2]
    assert f.asked_each == []


def test_a_chunk_that_is_kept_remembers_few_sets_of_filters_and_keeps_none_that_nobody_has() -> None:
    chunk = alternating(1, 10)
    sieves = [Sieve([standing(1)]) for _ in range(CUTS + 3)]
    for sieve in sieves:
        assert kept(sieve, chunk) == [2, 4, 6, 8, 10]
        assert len(chunk.cuts) <= CUTS

    gone = [ref(sieve) for sieve in sieves]
    del sieve, sieves

    assert [reference() for reference in gone] == [None] * len(gone)


def test_another_revision_makes_every_answer_be_asked_for_anew() -> None:
    f = standing(1)
    sieve = Sieve([f])
    chunk = alternating(1, 10)

    assert kept(sieve, chunk) == [2, 4, 6, 8, 10]

    f.answers[1], f.answers[2] = StandingAnswer(False), StandingAnswer(True)

    assert kept(sieve, chunk) == [2, 4, 6, 8, 10]

    f.revision = 1

    assert kept(sieve, chunk) == [1, 3, 5, 7, 9]


def test_an_answer_is_not_used_for_events_before_it_holds() -> None:
    f = Standing(answers={1: StandingAnswer(True, after=106), 2: StandingAnswer(False)})
    sieve = Sieve([f])

    assert kept(sieve, alternating(201, 10)) == [202, 204, 206, 208, 210]
    assert f.asked_each == []
    assert kept(sieve, alternating(101, 10)) == [108, 110]
    assert f.asked_each == [102, 104, 106, 108, 110]
    assert kept(sieve, alternating(106, 10)) == [108, 110, 112, 114]
    assert kept(sieve, alternating(107, 10)) == [108, 110, 112, 114, 116]


def test_filters_must_agree_and_the_latest_of_their_answers_counts() -> None:
    one, other = (
        Standing(answers={1: StandingAnswer(True, after=3)}),
        Standing(answers={1: StandingAnswer(True, after=6)}),
    )
    chunk = chunk_of(5, 9, batch(range(5, 10)))

    assert kept(Sieve([one, other]), chunk) == [7, 8, 9]
    assert Sieve([one, Standing()]).judge(chunk, may_wait=True).undecided == 5
    assert kept(Sieve([one, Standing(answers={1: StandingAnswer(False)})]), chunk) == []
    assert kept(Sieve([Standing(), Standing(answers={1: StandingAnswer(False)})]), chunk) == []


def test_one_that_has_to_be_asked_each_time_makes_all_be_asked_each_time() -> None:
    f = standing(1)

    assert kept(Sieve([f, Items([1])]), alternating(1, 10)) == [2, 4, 6, 8, 10]
    assert f.asked == []
    assert len(f.asked_each) == 10


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mxgw_core.events.filtering._REMEMBERED", 20)
    f = Standing(answers={item: StandingAnswer(item % 2 == 0) for item in range(1, 1000)})
    sieve = Sieve([f])
    for first in range(1, 900, 10):
        chunk = chunk_of(first, first + 9, b"".join(batch([s], item_handle=s) for s in range(first, first + 10)))

        assert kept(sieve, chunk) == [s for s in range(first, first + 10) if s % 2 == 0]
        assert len(sieve._answers) <= 20


@pytest.mark.parametrize("events", [3, 100], ids=["few", "many"])
def test_what_cannot_be_said_yet_is_never_taken_for_an_answer(events: int) -> None:
    sieve = Sieve([Standing(answers={1: StandingAnswer(True)})])
    chunk = alternating(2, events)
    for _ in range(2):
        judged = sieve.judge(chunk, may_wait=True)

        assert (judged.first, judged.last, judged.events, judged.passed, judged.undecided) == (2, 2, 1, 1, 3)


# sharing


def test_readers_with_equal_filters_share_what_is_judged_and_the_very_message() -> None:
    pump = Pump()
    filters = [standing(1, name="key") for _ in range(3)]
    readers = [pump.attach(Start.NOW, filters=[f]) for f in filters]
    pump.events(20, item_handle=1)
    pump.events(20, item_handle=2)
    taken = [reader.take(EVERYTHING) for reader in readers]

    assert all(isinstance(chunk, Chunk) and sequences_of(chunk) == list(range(1, 21)) for chunk in taken)
    assert taken[0] is taken[1] is taken[2]
    assert sum(len(f.asked) for f in filters) == 2
    assert [(r.figures.delivered_events, r.figures.filtered_events) for r in readers] == [(20, 20)] * 3


def test_readers_with_other_filters_share_nothing() -> None:
    pump = Pump()
    one, other, odd = standing(1, name="one"), standing(2, name="other"), Items([2])
    readers = [pump.attach(Start.NOW, filters=[f]) for f in (one, other, odd)]
    pump.events(20, item_handle=1)
    pump.events(20, item_handle=2)
    taken = [sequences_of(chunk) for reader in readers if isinstance(chunk := reader.take(EVERYTHING), Chunk)]

    assert taken == [list(range(1, 21)), list(range(21, 41)), list(range(21, 41))]


def test_where_everything_passes_the_message_is_that_of_readers_without_a_filter() -> None:
    pump = Pump()
    limited, free = pump.attach(Start.NOW, filters=[standing(1)]), pump.attach(Start.NOW)
    pump.events(20, item_handle=1)

    assert limited.take(EVERYTHING) is free.take(EVERYTHING)


def test_what_could_not_wait_is_not_taken_for_what_can() -> None:
    f = Standing(answers={1: StandingAnswer(True)})
    sieve = Sieve([f])
    chunk = alternating(1, 10)

    assert sieve.judge(chunk).passed == 5
    assert sieve.judge(chunk, may_wait=True).undecided == 1


def test_a_judged_message_is_freed_with_its_last_reference() -> None:
    sieve = Sieve([standing(1)])
    gc.collect()
    gc.disable()
    try:
        before = sum(type(o) is Chunk for o in gc.get_objects())
        for items in (1, 2, 3):
            chunk = alternating(1, 10, items)
            sieve.judge(chunk, may_wait=True)
        del chunk

        assert sum(type(o) is Chunk for o in gc.get_objects()) == before
    finally:
        gc.enable()


# what a chunk holds


@given(st.integers(0, 2**31 - 1), st.integers(-(2**31), 2**31 - 1).filter(bool), st.integers(1, 127))
def test_server_handle_item_handle_and_kind_are_told_apart(server_handle: int, item_handle: int, kind: int) -> None:
    made = e.Event(sequence=7, item_handle=item_handle, server_handle=server_handle)
    made.worker_time.seconds = 1_700_000_000
    body = made.SerializeToString()
    body = body[:14] + bytes([0x18, kind]) + body[14:]
    for events in (1, 100):
        data = b"".join(
            b"\x0a" + bytes([len(body)]) + body[:1] + s.to_bytes(8, "little") + body[9:] for s in range(7, 7 + events)
        )
        here = opened(chunk_of(7, 6 + events, data))

        assert [identity_of(key) for key in here.keys] == [(server_handle, item_handle, kind)] * events
        assert list(here.sequences) == list(range(7, 7 + events))


def _renumbered(chunk: Chunk, sequences: list[int], *, is_whole: bool = True) -> Chunk:
    return chunk_of(chunk.first, chunk.last, batch(sequences), 0 if is_whole else len(sequences))


@pytest.mark.parametrize("events", [4, 40], ids=["few", "many"])
def test_events_that_do_not_bear_the_numbers_of_their_places_are_refused(events: int) -> None:
    whole = alternating(11, events)
    numbers = list(range(11, 11 + events))
    swapped = [numbers[1], numbers[0], *numbers[2:]]
    for wrong in ([n + 1 for n in numbers], swapped, numbers[:-1], [*numbers, 11 + events], [11] * events):
        with pytest.raises(MalformedBatch):
            opened(chunk_of(whole.first, whole.last, batch(wrong)))
    # Where some are missing they must be in order, and within the range.
    assert list(opened(chunk_of(11, 100, batch(numbers), events)).sequences) == numbers
    for wrong in (swapped, [10, *numbers[1:]], [*numbers[:-1], 101], [11] * events, numbers[:-1], [*numbers, 90]):
        with pytest.raises(MalformedBatch):
            opened(chunk_of(11, 100, batch(wrong), events))


@pytest.mark.parametrize("events", [2, 40], ids=["few", "many"])
@pytest.mark.parametrize(
    "broken",
    [
        lambda data: data[:-1],
        lambda data: b"\x12" + data[1:],
        lambda data: data[:2] + b"\x11" + data[3:],  # no sequence first
        lambda data: data[:11] + b"\x0d" + data[12:],  # no item handle behind it
        lambda data: data[:16] + b"\x10" + data[17:],  # no kind behind that
        lambda data: data[:17] + b"\x81" + data[18:],  # a kind of two bytes, which would hide what it is
        lambda data: data[:19] + b"\xff" * 5 + data[24:],  # a server handle without an end
        lambda data: b"\x0a\x03abc" + data[data[1] + 2 :],
        lambda data: data + b"\x12\x00",
    ],
)
def test_what_is_no_batch_of_events_is_refused(broken, events: int) -> None:
    data = broken(batch(range(1, 1 + events)))
    with pytest.raises(MalformedBatch):
        Sieve([standing(1)]).judge(chunk_of(1, events, data), may_wait=True)
