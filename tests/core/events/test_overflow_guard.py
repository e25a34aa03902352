"""A failing policy does no harm: its subscriber gets all events, the gateway goes on, and one message is logged."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import pytest
from support.accounts import Account
from support.distributing import Told
from support.events import taken, told
from support.overflowing import RecordingPump

from mxgw_core.api.events import Action, Disconnect, DropOldest, Lag, QueueLimits
from mxgw_core.events.counts import POLICY_ERRORS
from mxgw_core.events.sources import Gathering
from mxgw_core.events.start import Start
from mxgw_core.events.subscriber import Subscriber

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


def test_the_same_failure_again_is_counted_and_not_said_again(caplog: pytest.LogCaptureFixture) -> None:
    pump = RecordingPump()
    for _ in range(5):
        attach(pump, Doing(lambda: 1 // 0))
    with caplog.at_level(logging.WARNING):
        pump.happen(1, 2, 3, 4)

    assert pump.distributor.counts.total(POLICY_ERRORS, SOURCE) == 5
    assert len(caplog.records) == 1


def test_what_a_policy_takes_from_the_clock_is_measured_at_every_question() -> None:
    pump = RecordingPump()
    pauses = iter([0.0, 0.0, 0.02])
    subscriber = attach(pump, Doing(lambda: time.sleep(pause) if (pause := next(pauses)) else None))
    ends = []
    for _ in range(3):
        pump.happen(1, 2, 3, 4)
        ends.append(subscriber.end_error is not None)

    assert ends == [False, False, True]


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
