"""What each policy answers, and patience around any of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.accounts import Account
from support.events import taken, told
from support.overflowing import RecordingPump

from mxgw_backpressure.policies import (
    DisconnectPolicy,
    DropNewestPolicy,
    DropOldestPolicy,
    FailSessionPolicy,
    Grace,
    ResyncPolicy,
    events_within,
)
from mxgw_core.api import DropNewest, DropOldest, FailSession, Lag, QueueLimits, Retention, Tolerate
from mxgw_core.events.counts import OVERFLOW
from mxgw_core.events.snapshot_place import SnapshotDue, SnapshotWanted

TEN = QueueLimits(10, 0, 0.0)
HARD = QueueLimits(20, 0, 0.0)


def lag(
    events: int, size: int = 0, seconds: float = 0.0, *, limits: QueueLimits = TEN, over_limit_s: float = 0.0
) -> Lag:
    return Lag("ab", events, size, seconds, limits, over_limit_s)


# how many fit


@pytest.mark.parametrize(
    ("behind", "fit"),
    [
        (lag(11), 10),
        (lag(1_000), 10),
        (lag(100, 10_000, limits=QueueLimits(0, 2_500, 0.0)), 25),
        (lag(100, 10_000, limits=QueueLimits(10, 2_500, 0.0)), 10),
        (lag(100, 0, 50.0, limits=QueueLimits(0, 0, 5.0)), 10),
        (lag(100, 1, 1.0, limits=QueueLimits(0, 100, 5.0)), 100),
    ],
)
def test_what_fits_is_judged_by_the_limit_that_is_exceeded_most(behind: Lag, fit: int) -> None:
    assert events_within(behind) == fit


@given(
    st.integers(1, 10**6),
    st.integers(0, 10**9),
    st.floats(0, 10**6),
    st.builds(QueueLimits, st.integers(0, 10**5), st.integers(0, 10**7), st.floats(0, 3600)),
)
def test_what_fits_is_never_more_than_there_is_nor_than_the_limit(
    events: int, size: int, seconds: float, limits: QueueLimits
) -> None:
    fit = events_within(lag(events, size, seconds, limits=limits))

    assert 0 <= fit <= events
    assert not limits.events or fit <= limits.events


def test_drop_newest_goes_on_at_its_part_of_what_fits() -> None:
    assert DropNewestPolicy(80).on_overflow(lag(11)) == DropNewest(8)
    assert DropNewestPolicy(0).on_overflow(lag(11)) == DropNewest(0)


def test_drop_oldest_keeps_what_fits() -> None:
    assert DropOldestPolicy().on_overflow(lag(500)) == DropOldest(10)


# grace


def test_the_soft_limit_is_tolerated_for_its_time_and_asks_for_just_the_rest_of_it() -> None:
    policy = Grace(DisconnectPolicy(), HARD, 5.0)

    assert policy.on_overflow(lag(11)) == Tolerate(recheck_s=5.0)
    assert policy.on_overflow(lag(20, over_limit_s=4.5)) == Tolerate(recheck_s=0.5)
    assert policy.on_overflow(lag(11, over_limit_s=5.0)) == DisconnectPolicy().on_overflow(lag(11))


@pytest.mark.parametrize("behind", [lag(21), lag(11, 2_001)])
def test_the_hard_limit_is_not_tolerated_at_all(behind: Lag) -> None:
    policy = Grace(DisconnectPolicy(), QueueLimits(20, 2_000, 0.0), 5.0)

    assert not isinstance(policy.on_overflow(behind), Tolerate)


def test_a_hard_limit_of_none_is_none() -> None:
    policy = Grace(DisconnectPolicy(), QueueLimits(0, 0, 0.0), 5.0)

    assert isinstance(policy.on_overflow(lag(10**9, 10**12)), Tolerate)


def test_a_burst_within_the_grace_costs_nothing() -> None:
    pump = RecordingPump()
    subscriber = pump.attach(limits=TEN, policy=Grace(DisconnectPolicy(), HARD, 5.0))
    pump.happen(*[1] * 15)
    pump.timers.pass_time(4.9)
    first = told(taken(subscriber))
    pump.happen(1)
    pump.timers.pass_time(60)

    assert first + told(taken(subscriber)) == list(range(1, 17))
    assert pump.distributor.counts.items() == []


def test_the_grace_ends_by_itself_when_nothing_more_comes() -> None:
    pump = RecordingPump()
    subscriber = pump.attach(limits=TEN, policy=Grace(DisconnectPolicy(), HARD, 5.0))
    pump.happen(*[1] * 15)
    pump.timers.pass_time(5.0)

    assert told(taken(subscriber))[-1] == "end SUBSCRIBER_OVERFLOW"


def test_after_the_grace_the_policy_brings_the_reader_back_within_the_soft_limit() -> None:
    pump = RecordingPump()
    subscriber = pump.attach(limits=TEN, policy=Grace(DropOldestPolicy(), HARD, 5.0))
    pump.happen(*[1] * 15)
    pump.timers.pass_time(5.0)

    assert subscriber.unread.events == 10

    pump.happen(*[1] * 11)  # hard

    assert subscriber.unread.events == 10
    assert pump.distributor.counts.total(OVERFLOW, "drop_oldest", "DropOldest") == 2

    account = Account()
    account.take(taken(subscriber))
    pump.produced.check(account)


def test_patience_with_a_session_that_fails_ends_in_failing_it() -> None:
    assert isinstance(Grace(FailSessionPolicy(), HARD, 1.0).on_overflow(lag(21)), FailSession)


# resync


def test_resync_drops_everything_and_wants_a_snapshot_where_there_are_snapshots() -> None:
    pump = RecordingPump()
    pump.distributor.retain(Retention(0, 0, 0.0, snapshots=True))
    subscriber = pump.attach(limits=TEN, policy=ResyncPolicy())
    pump.happen(*[1] * 11)

    assert isinstance(subscriber.take(1000), SnapshotWanted)

    subscriber.snapshot_fetched(11)
    items = taken(subscriber)

    assert told(items) == [(1, 11)]
    assert isinstance(items[-1], SnapshotDue)


def test_without_snapshots_resync_is_a_gap() -> None:
    pump = RecordingPump()
    subscriber = pump.attach(limits=TEN, policy=ResyncPolicy())
    pump.happen(*[1] * 11)
    pump.happen(1)

    assert told(taken(subscriber)) == [(1, 11), 12]
