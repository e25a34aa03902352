"""Which provider speaks: three failures and it is the fallback, three clean probes and it is the primary again."""

from __future__ import annotations

from support.alarms import FALLBACK, PRIMARY

from mxgw_alarms.failover import Failover


def test_the_third_failure_in_a_row_switches_and_not_the_second() -> None:
    failover = Failover("automatic", 3, 3)

    assert [failover.failed(), failover.failed(), failover.failed()] == [False, False, True]
    assert failover.active == FALLBACK


def test_an_answer_in_between_begins_the_count_anew() -> None:
    failover = Failover("automatic", 2, 3)
    failover.failed()
    failover.worked()

    assert not failover.failed()
    assert failover.active == PRIMARY


def test_what_can_never_work_switches_at_once() -> None:
    failover = Failover("automatic", 3, 3)

    assert failover.failed(for_good=True)


def test_clean_probes_in_a_row_bring_the_primary_back() -> None:
    failover = Failover("automatic", 1, 3)
    failover.failed()

    assert [failover.probed(clean=clean) for clean in (True, True, False, True, True, True)] == [False] * 5 + [True]
    assert failover.active == PRIMARY
    assert not failover.probes


def test_after_its_return_the_primary_has_all_its_failures_again() -> None:
    failover = Failover("automatic", 2, 1)
    failover.failed()
    failover.failed()
    failover.probed(clean=True)

    assert not failover.failed()


def test_a_forced_primary_never_gives_up() -> None:
    failover = Failover("primary", 1, 1)

    assert not failover.failed(for_good=True)
    assert failover.active == PRIMARY
    assert not failover.probes


def test_a_forced_fallback_tries_nothing_else() -> None:
    failover = Failover("fallback", 1, 1)

    assert failover.active == FALLBACK
    assert not failover.probes
    assert not failover.probed(clean=True)
