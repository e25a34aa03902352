"""How long to wait between attempts, and when to give up."""

from __future__ import annotations

import grpc
import pytest
from support.events import Clock

from mxgw_client import ResumePolicy, errors
from mxgw_client.options import ConnectOptions, Target
from mxgw_client.resume import Backoff, is_temporary

LOST = errors.ConnectionLost("cut")


def delays(policy: ResumePolicy, count: int, chance: float = 1.0) -> list[float | None]:
    backoff = Backoff(policy, Clock(), lambda: chance)
    return [backoff.next_delay_s(LOST) for _ in range(count)]


def test_the_longest_delay_doubles_from_a_fifth_of_a_second_to_ten_seconds() -> None:
    assert delays(ResumePolicy(), 8) == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]


def test_the_delay_is_any_time_up_to_the_longest() -> None:
    assert delays(ResumePolicy(), 3, chance=0.0) == [0.0, 0.0, 0.0]
    assert delays(ResumePolicy(), 3, chance=0.5) == [0.1, 0.2, 0.4]

    many = [ResumePolicy().delay_s(4, None, n / 100) for n in range(101)]

    assert len(set(many)) == 101
    assert min(many) == 0
    assert max(many) == 3.2


def test_attempts_without_number_keep_the_longest_delay() -> None:
    assert ResumePolicy().delay_s(100_000, None, 1.0) == 10.0


def test_the_gateways_delay_is_waited_for_and_spread_too() -> None:
    policy = ResumePolicy()

    assert policy.delay_s(0, 5.0, 0.0) == 5.0
    assert policy.delay_s(0, 5.0, 1.0) == 5.2


def test_a_stream_that_works_begins_anew() -> None:
    backoff = Backoff(ResumePolicy(), Clock(), lambda: 1.0)
    backoff.next_delay_s(LOST)
    backoff.next_delay_s(LOST)
    backoff.reset()

    assert backoff.next_delay_s(LOST) == 0.2


def test_the_number_of_attempts_is_a_limit() -> None:
    assert delays(ResumePolicy(maximum_attempts=2), 3) == [0.2, 0.4, None]


def test_the_time_since_the_cut_is_a_limit_and_counts_what_would_still_be_waited() -> None:
    clock = Clock()
    backoff = Backoff(ResumePolicy(maximum_outage_s=10), clock, lambda: 1.0)

    assert backoff.next_delay_s(LOST) == 0.2

    clock.now += 9.7

    assert backoff.next_delay_s(errors.GatewayUnreachable("no")) is None

    backoff.reset()

    assert backoff.next_delay_s(LOST) == 0.2


def test_who_gives_up_says_after_what() -> None:
    clock = Clock()
    backoff = Backoff(ResumePolicy(maximum_attempts=1), clock)
    backoff.next_delay_s(LOST)
    clock.now += 2
    last = errors.GatewayUnreachable("no")
    backoff.next_delay_s(last)

    assert last.__notes__ == ["gave up after 1 attempts in 2.0 s"]


@pytest.mark.parametrize(
    "options",
    [
        {"first_delay_s": 0},
        {"first_delay_s": 2, "longest_delay_s": 1},
        {"attempt_timeout_s": 0},
        {"maximum_attempts": 0},
        {"maximum_outage_s": 0},
    ],
    ids=str,
)
def test_a_policy_that_cannot_work_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(errors.ConnectionOptionError, match=next(iter(options))):
        ResumePolicy(**options)


def test_only_what_may_pass_is_temporary_and_only_for_a_stream_that_was_open() -> None:
    busy = errors.CallFailed("busy", code=grpc.StatusCode.RESOURCE_EXHAUSTED)
    odd = errors.CallFailed("odd", code=grpc.StatusCode.FAILED_PRECONDITION)

    assert is_temporary(LOST, was_open=True)
    assert not is_temporary(LOST, was_open=False)
    assert is_temporary(busy, was_open=True)
    assert not is_temporary(odd, was_open=True)
    assert not is_temporary(errors.ProtocolViolation("bad"), was_open=True)
    assert not is_temporary(errors.StreamEnded("no reason"), was_open=True)


def test_the_transport_never_waits_longer_than_a_second_to_connect_again() -> None:
    options = dict(ConnectOptions(Target.parse("127.0.0.1:1")).channel_options())

    assert options["grpc.initial_reconnect_backoff_ms"] == 100
    assert options["grpc.max_reconnect_backoff_ms"] == 1_000
    # How long one try may take; gRPC's default is 20 s.
    assert options["grpc.min_reconnect_backoff_ms"] == 5_000
