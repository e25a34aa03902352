"""The memory of all sessions together is measured.

Near its limit requests are refused, and events are dropped with gaps.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.distributing import EVERYTHING, Items, Pump, Told
from support.events import EPOCH, sequences_of, taken, told
from support.turns import counted_turns

from mxgw.v1 import events_pb2 as e
from mxgw.worker.v1.worker_pb2 import CommandRequest
from mxgw_core.api.errors import MemoryLimitReached
from mxgw_core.api.events import Conflate, Disconnect, DropNewest, DropOldest, QueueLimits, Retention
from mxgw_core.api.types import Position
from mxgw_core.events.pieces import Chunk, Gap
from mxgw_core.events.sources import set_aside
from mxgw_core.events.start import Start
from mxgw_core.sessions.memory import _AT_ONCE_BYTES, GatewayMemory
from mxgw_core.workers.commands import EncodedCommand, PendingCommands

SMALL = QueueLimits(events=3, bytes=0, seconds=0.0)
KIB = 1024
OWNER = "anna"


def memory_of(pumps: Sequence[Pump], limit_bytes: int, session_bytes: int = 0) -> GatewayMemory:
    memory = GatewayMemory(limit_bytes, session_bytes)
    for pump in pumps:
        memory.watch(pump.distributor, OWNER)
    return memory


def retaining(blocks: int, kib: int = 40) -> Pump:
    """Return a session whose log retains so many blocks of one event each. It has no reader that is behind."""
    pump = Pump()
    pump.distributor.retain(EVERYTHING)
    reader = pump.attach()
    for _ in range(blocks):
        pump.events(1, text="x" * kib * KIB)
    taken(reader)
    pump.distributor.detach(reader)
    return pump


def test_what_is_held_is_told_by_what_it_is_for() -> None:
    pump = Pump()
    pump.distributor.retain(EVERYTHING)
    odd = [pump.attach(filters=[Items({1})]), pump.attach(filters=[Items({1})])]
    slow = pump.attach(limits=SMALL, policy=Told(DropOldest(2)))
    for _ in range(10):
        pump.events(1, text="x" * 1_000)
    memory = memory_of([pump], 1 << 30)
    before = memory.use()

    assert 10_000 < before.log < 15_000
    assert before.backlog < 1_000
    assert before.joined < 2_000

    for reader in odd:
        taken(reader)
    slow.source = set_aside(slow.source)
    after = memory.use()

    assert after.log == before.log
    assert 2_000 < after.backlog < 4_000
    assert after.joined > 10_000
    assert after.total == sum(after.by_kind().values())

    pump.distributor.detach(slow)
    pump.distributor.release()

    assert memory.use().total == 0


def test_small_blocks_take_more_than_their_bytes() -> None:
    pump = Pump()
    for _ in range(1_000):
        pump.events(1)
    pump.gap()

    assert memory_of([pump], 1 << 30).use().log > pump.distributor.log.bytes + 100_000


def test_a_session_that_may_not_fit_is_refused_with_the_setting_and_the_figures() -> None:
    pump = retaining(10)
    used = memory_of([pump], 1 << 30).use().total
    memory_of([pump], used + 500, session_bytes=500).require_room(OWNER)
    with pytest.raises(MemoryLimitReached, match=r"limits\.memory_bytes") as refused:
        memory_of([pump], used + 499, session_bytes=500).require_room(OWNER)

    assert refused.value.metadata == {
        "setting": "limits.memory_bytes",
        "limit": str(used + 499),
        "used": str(used),
        "needed": "500",
    }
    assert refused.value.retry_after_s


def test_nothing_is_given_up_below_the_limit(caplog: pytest.LogCaptureFixture) -> None:
    pump = retaining(10)
    memory = memory_of([pump], memory_of([pump], 1 << 30).use().total)
    asyncio.run(memory.relieve())

    assert (pump.distributor.log.events, memory.relieved_bytes, caplog.text) == (10, 0, "")


def test_what_was_joined_goes_first_and_costs_nobody_an_event() -> None:
    pump = retaining(20)
    pump.attach()
    pump.attach()
    reader = pump.attach(Start.OLDEST_RETAINED)
    while reader.take(200 * KIB) is not None:
        pass
    held = pump.distributor.memory()

    assert held.joined > 200 * KIB

    asyncio.run(memory_of([pump], held.total - held.joined // 2).relieve())

    assert pump.distributor.log.events == 20
    assert pump.distributor.memory().joined == 0


def test_whoever_keeps_the_most_forgets_its_oldest_and_who_resumes_is_told_exactly(
    caplog: pytest.LogCaptureFixture,
) -> None:
    large, small = retaining(40), retaining(10)
    memory = memory_of([large, small], 40 * 40 * KIB)
    asyncio.run(memory.relieve())

    assert memory.use().total <= memory.limit_bytes
    assert small.distributor.log.events == 10
    oldest = large.distributor.log.oldest
    assert 10 < oldest < 25
    assert memory.relieved_bytes >= (oldest - 1) * 40 * KIB

    resumed = large.attach(Position(EPOCH, 3))

    assert not resumed.place.recovered
    assert told(taken(resumed)) == [(4, oldest - 1), *range(oldest, 41)]
    assert caplog.text.count("limits.memory_bytes") == 1

    for _ in range(20):  # no second message is logged while the shortage lasts
        large.events(1, text="x" * 40 * KIB)
        asyncio.run(memory.relieve())

    assert caplog.text.count("limits.memory_bytes") == 1


def test_what_went_before_anybody_came_is_told_to_the_first() -> None:
    pump = Pump()
    for _ in range(40):
        pump.events(1, text="x" * 40 * KIB)
    asyncio.run(memory_of([pump], 20 * 40 * KIB).relieve())
    oldest = pump.distributor.log.oldest

    assert oldest > 20
    assert told(taken(pump.attach(Start.OLDEST_RETAINED))) == [(1, oldest - 1), *range(oldest, 41)]


def test_what_readers_have_yet_to_read_goes_last_and_a_gap_says_why() -> None:
    keeping, pump = retaining(40), Pump()
    behind, ahead = pump.attach(), pump.attach()
    for _ in range(20):
        pump.events(1, text="x" * 40 * KIB)
    for _ in range(10):
        ahead.take(1)
    memory = memory_of([keeping, pump], 15 * 40 * KIB)
    asyncio.run(memory.relieve())

    assert memory.use().total <= memory.limit_bytes
    assert keeping.distributor.log.events == 0

    gap, *rest = taken(behind)

    assert isinstance(gap, Gap)
    assert (gap.first, gap.last, gap.count, gap.reason) == (1, 20, 20, e.GAP_REASON_QUEUE_DROPPED)
    assert "limits.memory_bytes" in gap.detail
    assert rest == []
    assert told(taken(ahead)) == [*range(11, 21)]


def test_an_owner_that_floods_pays_alone_even_with_what_is_unread_and_however_many_its_sessions_are() -> None:
    flooding, quiet = [retaining(8) for _ in range(10)], retaining(20)
    unread = Pump()
    behind = unread.attach()
    for _ in range(20):
        unread.events(1, text="x" * 40 * KIB)
    memory = memory_of([*flooding, unread], 45 * 40 * KIB)
    memory.watch(quiet.distributor, "ben")
    asyncio.run(memory.relieve())

    assert memory.use().total <= memory.limit_bytes
    assert quiet.distributor.log.events == 20, "each of the other's sessions holds less, and all of them more"

    memory.limit_bytes = 30 * 40 * KIB
    asyncio.run(memory.relieve())
    assert quiet.distributor.log.events == 20
    gap = taken(behind)[0]

    assert isinstance(gap, Gap)
    assert "limits.memory_bytes" in gap.detail

    memory.limit_bytes = 15 * 40 * KIB
    asyncio.run(memory.relieve())

    assert 10 < quiet.distributor.log.events < 15, "now it is the one that holds the most"


def test_a_session_of_an_owner_that_holds_little_has_room_made_by_those_that_hold_more() -> None:
    flooding, own = retaining(40), retaining(2)
    memory = memory_of([flooding], 43 * 40 * KIB, session_bytes=8 * 40 * KIB)
    memory.watch(own.distributor, "ben")
    with pytest.raises(MemoryLimitReached):
        memory.require_room(OWNER)

    assert (flooding.distributor.log.events, own.distributor.log.events) == (40, 2)

    memory.require_room("ben")

    assert 30 < flooding.distributor.log.events < 40
    assert own.distributor.log.events == 2
    assert memory.use().total + 8 * 40 * KIB <= memory.limit_bytes


def test_who_holds_no_more_than_the_new_session_would_makes_no_room_for_it() -> None:
    others = [retaining(5) for _ in range(4)]
    memory = memory_of([], 22 * 40 * KIB, session_bytes=8 * 40 * KIB)
    for number, other in enumerate(others):
        memory.watch(other.distributor, f"owner {number}")
    with pytest.raises(MemoryLimitReached):
        memory.require_room("ben")

    assert [other.distributor.log.events for other in others] == [5, 5, 5, 5]


def test_remembered_request_ids_and_answers_of_filters_are_counted() -> None:
    pump = Pump()
    reader = pump.attach(filters=[StandingItems({1})])
    memory = GatewayMemory(1 << 30, 0, lambda: {OWNER: 700, "ben": 300})
    memory.watch(pump.distributor, OWNER)
    for handle in range(1, 101):
        pump.events(1, item_handle=handle)
    taken(reader)

    assert memory.use().request_ids == 1_000
    assert 100 * 100 < memory.use().answers < 100 * 130

    pump.distributor.detach(reader)
    del reader

    assert memory.use().answers == 0


@dataclass(eq=False)
class StandingItems(Items):
    """The filter of an API key: it lets some items pass, and its answers never change."""

    revision: int = 0
    __hash__ = object.__hash__


policies = st.sampled_from([Disconnect(), DropOldest(2), DropNewest(1), Conflate()])


@given(
    st.lists(policies, min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3), st.integers(1, 4)), max_size=30),
)
def test_whatever_is_given_up_every_reader_has_each_event_once_or_in_a_gap(
    answers: list[object], steps: list[tuple[int, int, int]]
) -> None:
    pump = Pump(unattached=Retention(0, 0, 0.0))
    pump.distributor.retain(Retention(10, 1 << 20, 0.0))
    readers = [pump.attach(limits=SMALL, policy=Told(answer)) for answer in answers]
    at = [0] * len(readers)
    conflated = [0] * len(readers)

    def read(which: int, most: int) -> None:
        for _ in range(most):
            item = readers[which].take(1)
            if isinstance(item, Gap):
                assert item.first == at[which] + 1
                if item.runs:
                    conflated[which] = item.last
                else:
                    at[which] = item.last
            elif isinstance(item, Chunk):
                sequences = sequences_of(item)
                if conflated[which]:
                    at[which], conflated[which] = max(item.last, conflated[which]), 0
                else:
                    assert sequences == list(range(at[which] + 1, item.last + 1))
                    at[which] = item.last
            elif item is None:
                return

    memory = memory_of([pump], 0)
    for step, which, count in steps:
        match step:
            case 0 | 1:
                pump.events(count, item_handle=which + 1)
            case 2:
                read(which % len(readers), count)
            case 3:
                pump.distributor.check()
            case _:
                asyncio.run(memory.relieve())
                use = memory.use()

                assert all(reader.end_error is not None or not reader.unread.events for reader in readers)
                assert (use.log, use.joined) == (0, 0)
    head = pump.head
    pump.distributor.check()
    for which, reader in enumerate(readers):
        read(which, 200)

        assert at[which] == head or reader.end_error is not None


# large requests


def test_large_requests_have_a_part_of_their_own_and_no_event_is_given_up_for_them() -> None:
    pump = retaining(10)
    memory = memory_of([pump], 4 * 10_000_000)
    with memory.holding(9_000_000):
        assert memory.use().requests == memory.use().total - memory.use().events == 9_000_000

        with (
            pytest.raises(MemoryLimitReached, match=r"a quarter of limits\.memory_bytes") as refused,
            memory.holding(2_000_000),
        ):
            pytest.fail("it was let in")

        assert refused.value.metadata["limit"] == "10000000"
        assert refused.value.metadata["used"] == "9000000"

        with memory.holding(1_000_000):
            asyncio.run(memory.relieve())

    assert memory.use().requests == memory.relieved_bytes == 0
    with memory.holding(50_000_000):  # a single request is allowed even if it is larger than the limit
        pass


@pytest.mark.asyncio
async def test_what_a_worker_has_not_answered_counts_though_its_caller_is_gone() -> None:
    pump = retaining(1)
    memory = memory_of([pump], 40_000)
    commands = PendingCommands(9, 1_000_000)
    memory.watch(pump.distributor, OWNER, commands)
    commands.call(CommandRequest(), 1.0, EncodedCommand("write", bytes(20_000))).close()

    assert memory.use().requests > 20_000
    with pytest.raises(MemoryLimitReached), memory.holding(1):
        pytest.fail("it was let in")


def test_others_have_their_turn_while_much_is_given_up() -> None:
    async def relieve() -> int:
        async with counted_turns() as turns:
            await memory.relieve()
        return turns.taken

    pump = retaining(200)
    memory = memory_of([pump], pump.distributor.memory().total // 2)

    assert asyncio.run(relieve()) >= 100 * 40 * KIB // _AT_ONCE_BYTES
    assert pump.distributor.memory().total <= memory.limit_bytes
