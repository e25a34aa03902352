"""A failing policy does no harm: its subscriber gets all events, the gateway goes on, and one message is logged."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from support.accounts import Account
from support.distributing import Told
from support.events import taken, told
from support.overflowing import RecordingPump
from support.plugins import owner_of

from mxgw_core.api.events import (
    Action,
    Block,
    Disconnect,
    DropNewest,
    DropOldest,
    Lag,
    QueueLimits,
    Select,
    SelectEvents,
    Tolerate,
)
from mxgw_core.events import policy_guard
from mxgw_core.events.counts import OVERFLOW, POLICY_ERRORS
from mxgw_core.events.sources import Gathering
from mxgw_core.events.start import Start
from mxgw_core.events.subscriber import Subscriber
from mxgw_core.plugins.blame import DELAYS
from mxgw_core.plugins.watching import CallWatch

THREE = QueueLimits(3, 0, 0.0)
SOURCE = "acme-policies 1.2"


class Doing:
    """A policy that calls a function before it answers."""

    name = "acme"

    def __init__(self, does: Callable[[], object]) -> None:
        self._does = does

    def on_overflow(self, lag: Lag) -> Action:
        self._does()
        return DropOldest(1)


class NoArgument:
    name = "acme"

    def on_overflow(self) -> Action:
        return Disconnect()


def burn() -> None:
    until = time.thread_time() + 0.02
    while time.thread_time() < until:
        pass


def attach(pump: RecordingPump, policy: Any) -> Subscriber:
    return pump.distributor.attach(
        f"s{len(pump.distributor.subscribers)}", Start.NOW, limits=THREE, policy=policy, policy_source=SOURCE
    )


@pytest.mark.usefixtures("uninterrupted")
@pytest.mark.parametrize(
    ("policy", "says"),
    [
        pytest.param(Doing(lambda: 1 // 0), "raised", id="raises"),
        pytest.param(Doing(lambda: time.sleep(0.02)), "ms of the event loop's time", id="sleeps"),
        pytest.param(Doing(burn), "ms of the event loop's time", id="burns"),
        pytest.param(Told("drop it", name="acme"), "'drop it', which is no action", id="wrong type"),
        pytest.param(NoArgument(), "raised", id="wrong signature"),
    ],
)
def test_a_policy_that_cannot_be_relied_on_becomes_disconnect_for_its_subscriber_only(
    policy: Any, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    pump = RecordingPump()
    bad, good = attach(pump, policy), attach(pump, Told(DropOldest(2)))
    with caplog.at_level(logging.WARNING):
        pump.happen(1, 2, 3, 4)
        pump.happen(5)
    account = Account()
    account.take(taken(bad))

    assert sorted(account.events) == [1, 2, 3, 4]
    assert bad.end_error is not None
    assert good.end_error is None
    assert pump.distributor.counts.total(POLICY_ERRORS, SOURCE) == 1
    (record,) = caplog.records
    assert "acme" in record.getMessage()
    assert SOURCE in record.getMessage()
    assert says in record.getMessage()


NAN = float("nan")


@pytest.mark.parametrize(
    ("action", "says"),
    [
        (DropOldest(-1), "returned a DropOldest whose keep_events is -1; it must be 0 or more, and finite"),
        (DropOldest(2.5), "returned a DropOldest whose keep_events is a float"),
        (DropOldest(True), "returned a DropOldest whose keep_events is a bool"),
        (DropNewest(-5), "returned a DropNewest whose resume_below_events is -5; it must be 0 or more, and finite"),
        (Tolerate(NAN), "returned a Tolerate whose recheck_s is nan; it must be 0 or more, and finite"),
        (Tolerate(float("inf")), "returned a Tolerate whose recheck_s is inf; it must be 0 or more, and finite"),
        (Tolerate(-0.5), "returned a Tolerate whose recheck_s is -0.5; it must be 0 or more, and finite"),
        (Tolerate(False), "returned a Tolerate whose recheck_s is a bool"),
        (Block(NAN, then=Disconnect()), "returned a Block whose timeout_s is nan; it must be from 0 to 60"),
        (Block(61.0, then=Disconnect()), "returned a Block whose timeout_s is 61.0; it must be from 0 to 60"),
        (Block(1.0, then=Tolerate(1.0)), "returned a Block whose then is a Tolerate"),
        (Block(1.0, then=DropOldest(-1)), "returned a Block whose then is a DropOldest whose keep_events is -1"),
        (Select("all"), "returned an action whose keep is a str"),
        (SelectEvents(None), "returned an action whose keep is None"),
    ],
    ids=repr,
)
def test_an_action_with_a_wrong_value_is_the_policy_s_failure_and_says_what_is_wrong(
    action: Any, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    pump = RecordingPump()
    subscriber = attach(pump, Told(action, name="acme"))
    with caplog.at_level(logging.WARNING):
        pump.happen(1, 2, 3, 4)

    assert told(taken(subscriber)) == [1, 2, 3, 4, "end SUBSCRIBER_OVERFLOW"]
    assert pump.distributor.counts.total(POLICY_ERRORS, SOURCE) == 1
    (record,) = caplog.records
    assert record.getMessage().startswith(f"overflow policy acme of {SOURCE} {says}")


class Ending:
    """A policy of which one part raises an exception, after `calls` calls of this part."""

    def __init__(self, part: str, error: BaseException, calls: int = 0) -> None:
        self._part, self._error, self._calls = part, error, calls

    def _reach(self, part: str) -> None:
        self._calls -= part == self._part
        if part == self._part and self._calls < 0:
            raise self._error

    @property
    def name(self) -> str:
        self._reach("name")
        return "acme"

    def on_overflow(self, lag: Lag) -> Action:
        self._reach("on_overflow")
        if self._part == "action":
            return Unreadable(3)
        return SelectEvents(self._keep) if self._part == "SelectEvents" else Select(self._keep)

    def _keep(self, *_: object) -> bool:
        self._reach("Select")
        self._reach("SelectEvents")
        return True


class EndingPaced(Ending):
    @property
    def interval_s(self) -> float:
        self._reach("interval_s")
        return 0.001


class Unreadable(DropOldest):
    def __getattribute__(self, name: str) -> Any:
        if name == "keep_events":
            raise SystemExit(4)
        return super().__getattribute__(name)


class Unprintable:
    def __repr__(self) -> str:
        raise SystemExit(5)


@pytest.mark.parametrize(
    "error", [SystemExit(3), asyncio.CancelledError(), KeyboardInterrupt(), BaseException()], ids=repr
)
@pytest.mark.parametrize("part", ["name", "interval_s", "on_overflow", "Select", "SelectEvents", "action"])
def test_no_part_of_a_policy_can_end_the_gateway(
    part: str, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    owner = owner_of("mxgw_overflow_policy", "acme")
    pump = RecordingPump()
    policy = (EndingPaced if part == "interval_s" else Ending)(part, error)
    bad = pump.distributor.attach(
        *("bad", Start.NOW), limits=THREE, policy=policy, policy_source=SOURCE, policy_owner=owner
    )
    good = attach(pump, Told(DropOldest(2)))
    pump.happen(1, 2, 3, 4)

    assert (bad.end_error is not None, good.end_error) == (True, None)
    assert pump.distributor.counts.total(POLICY_ERRORS, SOURCE) == 1
    assert owner.calls.failures == {("acme", "mxgw_overflow_policy"): 1}
    assert [record.getMessage().count(SOURCE) for record in caplog.records] == [1]


@pytest.mark.parametrize("part", ["name", "interval_s"])
def test_what_a_policy_was_attached_with_is_not_read_again(part: str) -> None:
    pump = RecordingPump()
    subscriber = attach(pump, EndingPaced(part, SystemExit(3), calls=1))
    pump.happen(1, 2)

    assert subscriber.policy_name == "acme"
    assert subscriber.end_error is None


@pytest.mark.parametrize("answer", [Unprintable(), Select(lambda *_: Unprintable())], ids=["action", "keep"])  # type: ignore[arg-type, return-value]
def test_an_answer_that_cannot_be_shown_is_a_failure_too(answer: object) -> None:
    pump = RecordingPump()
    subscriber = attach(pump, Told(answer, name="acme"))
    pump.happen(1, 2, 3, 4)

    assert subscriber.end_error is not None
    assert pump.distributor.counts.total(POLICY_ERRORS, SOURCE) == 1


@pytest.mark.parametrize("part", ["on_overflow", "Select"])
def test_the_reader_is_told_that_the_policy_failed_and_every_failure_counts_as_disconnect(part: str) -> None:
    pump = RecordingPump()
    subscriber = attach(pump, Ending(part, SystemExit(3)))
    pump.happen(1, 2, 3, 4)

    error = subscriber.end_error
    assert error is not None
    assert "the overflow policy 'acme' failed when the subscriber was 4 events behind" in error.message
    assert "read faster" not in error.message
    assert (error.metadata["policy_failed"], error.metadata["lost_from"]) == ("true", "5")
    counted = [(labels, count) for metric, labels, count in pump.distributor.counts.items() if metric == OVERFLOW]
    assert counted == [({"policy": "acme", "kind": "Disconnect"}, 1)]


@pytest.mark.parametrize("part", ["on_overflow", "keep"])
def test_a_policy_that_hangs_is_named_while_it_hangs(part: str) -> None:
    owner = owner_of("mxgw_overflow_policy", "acme")
    owner.calls.slow_call_s = 0.001
    named = threading.Event()
    texts: list[str] = []

    def end(text: str) -> None:
        texts.append(text)
        named.set()

    def hang(*_: object) -> bool:
        return named.wait(60)

    pump = RecordingPump()
    policy: Any = Told(Select(hang), name="acme") if part == "keep" else Doing(hang)
    pump.distributor.attach("s", Start.NOW, limits=THREE, policy=policy, policy_source=SOURCE, policy_owner=owner)
    with CallWatch(owner.calls, 0.01, end):
        pump.happen(1, 2, 3, 4)

    what = "Select.keep" if part == "keep" else "OverflowPolicy.on_overflow"
    assert f"plugin acme (unknown distribution): {what} (mxgw_overflow_policy) has not returned" in texts[0]


def test_the_same_failure_again_is_counted_and_not_said_again(caplog: pytest.LogCaptureFixture) -> None:
    pump = RecordingPump()
    for _ in range(5):
        attach(pump, Doing(lambda: 1 // 0))
    with caplog.at_level(logging.WARNING):
        pump.happen(1, 2, 3, 4)

    assert pump.distributor.counts.total(POLICY_ERRORS, SOURCE) == 5
    assert len(caplog.records) == 1


@pytest.mark.usefixtures("uninterrupted")
def test_what_a_policy_takes_from_the_clock_is_measured_at_every_question() -> None:
    pump = RecordingPump()
    pauses = iter([0.0, 0.0, 0.02])
    subscriber = attach(pump, Doing(lambda: time.sleep(pause) if (pause := next(pauses)) else None))
    ends = []
    for _ in range(3):
        pump.happen(1, 2, 3, 4)
        ends.append(subscriber.end_error is not None)

    assert ends == [False, False, True]


def test_where_waits_are_not_counted_a_policy_is_given_up_after_a_few_delays_in_succession(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr(policy_guard, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(policy_guard, "exact_thread_use", lambda: (0.0, None, 0))
    delays = [0.03] * (DELAYS - 1)
    takes_s = iter([*delays, 0.000_9, *delays, 0.03])

    def take() -> None:
        now[0] += next(takes_s)

    pump = RecordingPump()
    subscriber = attach(pump, Doing(take))
    ends = []
    for _ in range(2 * DELAYS):
        pump.happen(1, 2, 3, 4)
        ends.append(subscriber.end_error is not None)

    assert ends == [False] * (2 * DELAYS - 1) + [True]
    assert pump.distributor.counts.total(POLICY_ERRORS, SOURCE) == 1


class Nameless:
    def on_overflow(self, lag: Lag) -> Action:
        return Disconnect()


class Numbered(Nameless):
    name = 7


class Explosive(Nameless):
    @property
    def name(self) -> str:
        raise RuntimeError("boom")


class Paced(Nameless):
    name = "paced"

    def __init__(self, interval_s: object) -> None:
        self.interval_s = interval_s


@pytest.mark.parametrize(
    "policy",
    [
        "conflate",
        object(),
        Nameless(),
        Numbered(),
        Explosive(),
        *(Paced(interval_s) for interval_s in (0, -1.0, float("nan"), float("inf"), "1", True, None)),
    ],
    ids=lambda policy: f"{type(policy).__name__} {getattr(policy, 'interval_s', '')}",
)
def test_what_is_no_policy_becomes_disconnect_as_its_subscriber_attaches(
    policy: Any, caplog: pytest.LogCaptureFixture
) -> None:
    pump = RecordingPump()
    with caplog.at_level(logging.WARNING):
        subscriber = attach(pump, policy)
    pump.happen(1, 2, 3, 4)

    assert subscriber.policy_name == "disconnect"
    assert told(taken(subscriber)) == [1, 2, 3, 4, "end SUBSCRIBER_OVERFLOW"]
    assert pump.distributor.counts.total(POLICY_ERRORS, SOURCE) == 1
    assert SOURCE in caplog.text


def test_a_policy_with_a_sensible_pace_is_taken() -> None:
    source = attach(RecordingPump(), Paced(0.5)).source

    assert isinstance(source, Gathering)
    assert source.interval_s == 0.5
