"""The distributor of one session: attaching, overflow, the end, and retention."""

from __future__ import annotations

import logging

import pytest
from support.distributing import EVERYTHING, NO_LIMITS, Pump, Told
from support.events import EPOCH, OTHER_EPOCH, batch, taken, told

from mxgw.v1 import events_pb2 as e
from mxgw_core.api.errors import SessionEnded, SubscriberOverflow
from mxgw_core.api.events import Disconnect, DropNewest, DropOldest, FailSession, QueueLimits, Retention
from mxgw_core.api.types import ItemRecord, Position
from mxgw_core.events.counts import POLICY_ERRORS
from mxgw_core.events.log import OutOfOrder
from mxgw_core.events.pieces import Gap
from mxgw_core.events.policies import DisconnectPolicy
from mxgw_core.events.start import Start
from mxgw_core.events.subscriber import End

CLOSED = SessionEnded("the session ended", close_reason="CLIENT")
FEW = QueueLimits(events=3, bytes=0, seconds=0.0)


# attaching


def test_events_before_the_first_subscriber_are_there_for_it() -> None:
    pump = Pump()
    pump.events(3)
    pump.gap(1)
    pump.events(2)
    subscriber = pump.attach(Start.OLDEST_RETAINED)

    assert told(taken(subscriber)) == [1, 2, 3, (4, 4), 5, 6]
    assert (subscriber.place.was_resuming, subscriber.place.recovered) == (False, False)


def test_now_means_only_what_comes() -> None:
    pump = Pump()
    pump.events(3)
    subscriber = pump.attach(Start.NOW)
    pump.events(2)

    assert told(taken(subscriber)) == [4, 5]


def test_resuming_within_the_log_repeats_and_loses_nothing() -> None:
    pump = Pump()
    pump.distributor.retain(Retention(100, 1 << 20, 0.0))
    first = pump.attach()
    pump.events(5)
    seen = told([item for item in [first.take(1)] if item is not None])
    position = Position(EPOCH, first.delivered)
    pump.distributor.detach(first)
    pump.events(2)

    assert seen + told(taken(pump.attach(position))) == [1, 2, 3, 4, 5, 6, 7]


def test_resuming_amid_a_block_and_amid_a_gap_starts_there() -> None:
    pump = Pump()
    pump.events(5)
    pump.gap(4)

    assert told(taken(pump.attach(Position(EPOCH, 3)))) == [4, 5, (6, 9)]
    assert told(taken(pump.attach(Position(EPOCH, 7)))) == [(8, 9)]


@pytest.mark.parametrize(
    ("after", "gap", "reason"),
    [
        (Position(EPOCH, 1), (2, 4), e.GAP_REASON_RING_EVICTED),
        (Position(EPOCH, 99), (0, 0), e.GAP_REASON_CURSOR_AHEAD),
        (Position(OTHER_EPOCH, 5), (0, 0), e.GAP_REASON_EPOCH_CHANGED),
    ],
)
def test_a_resume_that_cannot_be_complete_begins_with_its_gap(
    after: Position, gap: tuple[int, int], reason: int
) -> None:
    pump = Pump(unattached=Retention(2, 1 << 20, 0.0))
    pump.events(4, text="x" * 70_000)
    pump.events(2)
    subscriber = pump.attach(after)
    items = taken(subscriber)

    assert isinstance(items[0], Gap)
    assert items[0].reason == reason
    assert told(items) == [gap] + ([] if reason == e.GAP_REASON_CURSOR_AHEAD else [5, 6])
    assert subscriber.place.recovered is False


def test_with_a_history_store_the_evicted_range_is_left_to_it() -> None:
    pump = Pump(unattached=Retention(2, 1 << 20, 0.0))
    pump.events(4, text="x" * 70_000)
    pump.events(2)
    whole = pump.attach(Position(EPOCH, 1), older_until=4)
    part = pump.attach(Position(EPOCH, 1), older_until=3)

    assert (whole.place.recovered, part.place.recovered) == (True, False)
    for subscriber in (whole, part):
        assert subscriber.place.gap is not None
        assert subscriber.delivered == 1
        assert told(taken(subscriber)) == [5, 6]


def test_a_history_store_hides_no_other_gap() -> None:
    pump = Pump()
    pump.events(2)

    assert told(taken(pump.attach(Position(OTHER_EPOCH, 1), older_until=4))) == [(0, 0), 1, 2]


# retention by time


@pytest.mark.parametrize("text", ["", "x" * 20_000])
def test_events_are_forgotten_when_they_are_old_although_none_come(text: str) -> None:
    pump = Pump()
    pump.distributor.retain(Retention(1_000, 1 << 30, 300.0))
    reader = pump.attach()
    for _ in range(10):
        pump.events(5, text=text)
    taken(reader)
    pump.clock.now += 300.0
    pump.distributor.check()

    assert pump.distributor.log.events == 50

    pump.clock.now += 1.0

    # This also holds before the regular check has run: who attaches now learns what can no longer be read.
    assert pump.attach(Position(EPOCH, 0)).place.gap is not None
    assert pump.distributor.log.events == 0


def test_where_few_events_come_each_is_forgotten_in_its_time() -> None:
    pump = Pump()
    pump.distributor.retain(Retention(1_000, 1 << 30, 300.0))
    reader = pump.attach()
    for _ in range(100):
        pump.clock.now += 60.0
        pump.events(1)
        taken(reader)

    # Events are kept for up to an eighth longer than the limit.
    assert 5 <= pump.distributor.log.events <= 6


@pytest.mark.parametrize("attach", [Start.NOW, Start.OLDEST_RETAINED])
def test_the_oldest_event_told_to_a_subscriber_is_there_until_time_or_an_event_or_its_reader_takes_it(
    attach: Start,
) -> None:
    pump = Pump()
    pump.distributor.retain(Retention(1, 1 << 20, 0.0))
    for _ in range(4):
        pump.events(3, text="x" * 30_000)
    pump.attach(attach)
    oldest = pump.distributor.log.oldest
    pump.distributor.check()
    pump.distributor.flush()

    assert pump.distributor.log.oldest == oldest
    assert told(taken(pump.attach(Position(EPOCH, oldest - 1)))) == [*range(oldest, 13)]


# the horizon


def _at_rate(pump: Pump, seconds: int) -> None:
    for _ in range(seconds):
        pump.clock.now += 1.0
        pump.events(500)


def test_the_horizon_is_how_long_the_retention_lasts_at_the_present_rate() -> None:
    pump = Pump()
    pump.distributor.retain(Retention(20_000, 1 << 30, 0.0))
    pump.events(1)

    assert pump.distributor.horizon_s is None

    _at_rate(pump, 5)

    assert pump.distributor.horizon_s == pytest.approx(40.0)


def test_what_a_worker_that_was_taken_over_sends_at_once_is_no_rate() -> None:
    pump = Pump()
    pump.distributor.retain(Retention(20_000, 1 << 30, 0.0))
    pump.distributor.refill_after(1_000)
    for _ in range(4):
        pump.clock.now += 1.0  # the machine is busy, so the events arrive slowly
        pump.events(2_000)

        assert pump.distributor.horizon_s is None

    pump.distributor.refilled()
    pump.events(1_500)  # events that happened during the handshake

    assert pump.distributor.horizon_s is None

    _at_rate(pump, 2)

    assert pump.distributor.horizon_s is None

    _at_rate(pump, 2)

    assert pump.distributor.horizon_s == pytest.approx(40.0)


# before anybody attached


def test_what_was_evicted_before_anybody_attached_is_told_to_the_first_who_asks_for_the_oldest() -> None:
    pump = Pump(unattached=Retention(10, 1 << 20, 0.0))
    for _ in range(5):
        pump.events(5, text="x" * 20_000)
    oldest = pump.distributor.log.oldest

    assert oldest > 1

    first = told(taken(pump.attach(Start.OLDEST_RETAINED)))

    assert first == [(1, oldest - 1), *range(oldest, 26)]
    # The first subscriber has read these events, and nothing is retained. The next subscriber gets neither events nor a
    # gap.
    assert told(taken(pump.attach(Start.OLDEST_RETAINED))) == []


def test_that_gap_reaches_to_where_the_events_begin_even_if_more_went_since() -> None:
    pump = Pump(unattached=Retention(10, 1 << 20, 0.0))
    for _ in range(5):
        pump.events(5, text="x" * 20_000)
    passer_by = pump.attach(Start.NOW)
    pump.events(3)
    taken(passer_by)
    pump.events(2)
    oldest = pump.distributor.log.oldest

    assert told(taken(pump.attach(Start.OLDEST_RETAINED))) == [(1, oldest - 1), *range(oldest, 31)]


def test_a_passer_by_at_now_is_not_told_what_it_did_not_ask_for() -> None:
    pump = Pump(unattached=Retention(1, 1 << 20, 0.0))
    pump.events(3)
    pump.events(70_000 // 30)

    assert told(taken(pump.attach(Start.NOW))) == []
    assert pump.distributor.never_delivered is not None


def test_a_reader_whose_filter_cannot_be_used_takes_that_gap_from_nobody() -> None:
    class Unhashable:
        revision = 1
        __hash__ = None  # type: ignore[assignment]

        def keep(self, item: ItemRecord, kind: int) -> bool:
            return True

    pump = Pump(unattached=Retention(10, 1 << 20, 0.0))
    for _ in range(5):
        pump.events(5, text="x" * 20_000)
    oldest = pump.distributor.log.oldest
    with pytest.raises(TypeError):
        pump.attach(Start.OLDEST_RETAINED, filters=(Unhashable(),))

    assert told(taken(pump.attach(Start.OLDEST_RETAINED))) == [(1, oldest - 1), *range(oldest, 26)]


# retention


def test_nothing_is_retained_after_delivery() -> None:
    pump = Pump()
    subscriber = pump.attach()
    pump.events(5)

    assert pump.distributor.log.events == 5

    taken(subscriber)
    pump.events(1)

    assert pump.distributor.log.oldest in (1, 6)  # a segment of the log is dropped as a whole

    taken(subscriber)
    pump.distributor.flush()

    assert (pump.distributor.log.events, pump.distributor.log.bytes) == (0, 0)


def test_the_log_holds_what_the_slowest_live_subscriber_still_has_to_read() -> None:
    pump = Pump()
    slow, fast = pump.attach(), pump.attach()
    for _ in range(3):
        pump.events(4, text="x" * 70_000)
        taken(fast)

    assert pump.distributor.log.oldest == 1
    assert told(taken(slow)) == list(range(1, 13))


def test_what_is_to_be_retained_stays_for_resumes() -> None:
    pump = Pump()
    pump.distributor.retain(Retention(8, 1 << 20, 0.0))
    subscriber = pump.attach()
    for _ in range(10):
        pump.events(2, text="x" * 70_000)
        taken(subscriber)
    pump.distributor.detach(subscriber)

    assert told(taken(pump.attach(Position(EPOCH, 12)))) == list(range(13, 21))
    assert told(taken(pump.attach(Position(EPOCH, 2))))[0] == (3, 12)


def test_detach_tells_who_was_the_last_and_is_idempotent() -> None:
    pump = Pump()
    one, other = pump.attach(), pump.attach()

    assert pump.distributor.detach(one) is False
    assert pump.distributor.detach(one) is False
    assert pump.distributor.detach(other) is True
    assert pump.distributor.detach(other) is False


def test_the_log_knows_whether_it_has_more_than_one_reader() -> None:
    pump = Pump()
    one = pump.attach()
    assert not pump.distributor.log.is_shared

    mirror = pump.distributor.attach_internal("mirror", limits=NO_LIMITS, policy=DisconnectPolicy())
    assert pump.distributor.log.is_shared

    pump.distributor.detach(mirror)
    assert not pump.distributor.log.is_shared

    pump.attach()
    assert pump.distributor.log.is_shared
    pump.distributor.detach(one)
    assert not pump.distributor.log.is_shared


def test_the_worker_breaking_the_numbering_is_an_error_for_the_link() -> None:
    pump = Pump()
    pump.events(2)
    with pytest.raises(OutOfOrder):
        pump.distributor.append(2, 3, batch([2, 3]))
    with pytest.raises(OutOfOrder):
        pump.distributor.append_gap(Gap(5, 6, e.GAP_REASON_WORKER_OUTBOX_OVERRUN))


# overflow


def test_disconnect_delivers_what_was_unread_and_says_where_the_loss_begins_and_what_helps() -> None:
    pump = Pump()
    subscriber = pump.attach(limits=FEW, policy=Told(Disconnect(), name="disconnect"))
    pump.events(4)
    pump.events(2)
    items = taken(subscriber)

    assert told(items) == [1, 2, 3, 4, "end SUBSCRIBER_OVERFLOW"]
    end = items[-1]
    assert isinstance(end, End)
    assert isinstance(end.error, SubscriberOverflow)
    assert end.error.metadata == {"policy": "disconnect", "lag_events": "4", "limit_events": "3", "lost_from": "5"}
    assert "events.queue_events" in end.error.message
    assert end.error.retry_after_s is not None


def test_an_overflow_touches_nobody_else() -> None:
    pump = Pump()
    slow = pump.attach(limits=FEW)
    fast = pump.attach(limits=FEW)
    seen: list[object] = []
    for _ in range(10):
        pump.events(2)
        seen += told(taken(fast))

    assert slow.end_error is not None
    assert fast.end_error is None
    assert seen == list(range(1, 21))


def test_fail_session_ends_the_stream_and_asks_for_the_session_to_be_faulted() -> None:
    pump = Pump()
    subscriber = pump.attach(limits=FEW, policy=Told(FailSession()))
    pump.events(4)

    assert subscriber.end_error is not None
    assert pump.session_failures == ["subscriber s1 fell 4 events behind"]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(ZeroDivisionError("x"), id="raises"),
        pytest.param(None, id="none"),
        pytest.param("disconnect", id="text"),
        pytest.param(Disconnect, id="class instead of object"),
        pytest.param(DropOldest("many"), id="no number to keep"),  # type: ignore[arg-type]
        pytest.param(DropNewest(None), id="no number to resume at"),  # type: ignore[arg-type]
    ],
)
def test_a_policy_that_fails_disconnects_its_subscriber_and_is_logged_once(
    answer: object, caplog: pytest.LogCaptureFixture
) -> None:
    pump = Pump()
    subscribers = [pump.attach(limits=FEW, policy=Told(answer)) for _ in range(3)]
    fast = pump.attach()
    with caplog.at_level(logging.WARNING):
        pump.events(4)

    for subscriber in subscribers:
        assert told(taken(subscriber)) == [1, 2, 3, 4, "end SUBSCRIBER_OVERFLOW"]
    assert fast.end_error is None
    assert pump.distributor.counts.total(POLICY_ERRORS, "support.distributing") == 3
    assert len(caplog.records) == 1
    assert "support.distributing" in caplog.text


def test_a_policy_may_answer_otherwise_every_time() -> None:
    pump = Pump()
    policy = Told(DropOldest(1))
    subscriber = pump.attach(limits=FEW, policy=policy)
    pump.events(4)  # events 1 to 3 are dropped
    policy.answer = DropNewest(0)
    pump.events(3)  # events 4 to 7 are set aside for the subscriber
    pump.events(2)  # these events are refused
    first = told(taken(subscriber))
    policy.answer = Disconnect()
    pump.events(4)

    assert first == [(1, 3), 4, 5, 6, 7, (8, 9)]
    assert told(taken(subscriber)) == [10, 11, 12, 13, "end SUBSCRIBER_OVERFLOW"]


# the end


def test_every_stream_ends_with_the_reason_after_what_is_in_the_log() -> None:
    pump = Pump()
    one, other = pump.attach(), pump.attach()
    pump.events(2)
    taken(one)
    pump.distributor.end(CLOSED)
    pump.distributor.flush()

    assert told(taken(one)) == ["end SESSION_CLOSED"]
    assert told(taken(other)) == [1, 2, "end SESSION_CLOSED"]


def test_giving_the_memory_of_an_ended_session_back_takes_nothing_from_its_readers() -> None:
    pump = Pump()
    pump.distributor.retain(Retention(100, 1 << 20, 0.0))
    one, other = pump.attach(), pump.attach()
    pump.events(2)
    taken(one)
    pump.distributor.end(CLOSED)
    pump.distributor.release()

    assert (pump.distributor.log.bytes, one.unread.events, other.unread.events) == (0, 0, 2)
    assert told(taken(other)) == [1, 2, "end SESSION_CLOSED"]
    assert told(taken(one)) == ["end SESSION_CLOSED"]
    assert pump.distributor.detach(one) is False
    assert pump.distributor.detach(other) is True


def test_whoever_attaches_after_the_end_gets_the_same_error_at_once() -> None:
    pump = Pump()
    pump.distributor.end(CLOSED)
    pump.distributor.end(SessionEnded("later", close_reason="WORKER_EXITED"))
    with pytest.raises(SessionEnded) as raised:
        pump.attach()

    assert raised.value is CLOSED
    assert not pump.distributor.subscribers


def test_a_subscriber_that_overflowed_keeps_its_own_reason_when_the_session_ends() -> None:
    pump = Pump()
    subscriber = pump.attach(limits=FEW)
    pump.events(4)
    pump.distributor.end(CLOSED)

    assert told(taken(subscriber)) == [1, 2, 3, 4, "end SUBSCRIBER_OVERFLOW"]


def test_a_log_begins_behind_what_was_lost_in_front_of_it_unless_somebody_reads_there() -> None:
    lost = Gap(1, 3, e.GAP_REASON_WORKER_OUTBOX_OVERRUN)
    empty, read = Pump(), Pump()
    empty.distributor.retain(EVERYTHING)
    reader = read.attach(Start.OLDEST_RETAINED)
    for pump in (empty, read):
        pump.distributor.begin_behind(lost)
        pump.events(2)

    assert (empty.distributor.log.oldest, read.distributor.log.oldest) == (4, 1)
    assert told(taken(reader)) == [(1, 3), 4, 5]
    # No subscriber of this log has got a gap for these events, so the first one that asks for the oldest event gets it.
    assert told(taken(empty.attach(Start.OLDEST_RETAINED))) == [(1, 3), 4, 5]
    assert told(taken(empty.attach(Start.OLDEST_RETAINED))) == [4, 5]

    empty.distributor.begin_behind(Gap(6, 7, e.GAP_REASON_WORKER_OUTBOX_OVERRUN))

    assert empty.distributor.log.oldest == 4
