"""The short form of `make chaos`: the gateway ended in each way under load, all streams judged, all sessions go on."""

from __future__ import annotations

import pytest
from support.chaos import Kind, Outcome, Plan, run

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(600)]


def _nothing_wrong(outcome: Outcome, plan: Plan) -> None:
    assert outcome.unexplained == 0, outcome.report()
    assert {kind: figures.rounds for kind, figures in outcome.kinds.items()} == plan.rounds
    assert all(figures.went_on == figures.rounds * plan.sessions for figures in outcome.kinds.values())
    assert outcome.adopted == plan.restarts * plan.sessions
    assert min(checker.resumes for checker in outcome.checkers) >= plan.restarts


async def test_no_way_to_end_the_gateway_ends_a_session_of_an_owner_with_many_or_leaves_a_gap() -> None:
    # More sessions than any limit on waiting ones ever was.
    plan = Plan(dict.fromkeys(Kind, 1), sessions=10, rate=1000, outage_s=(0.0, 0.3))
    outcome = await run(plan)

    _nothing_wrong(outcome, plan)
    assert plan.fits_outbox
    assert outcome.gaps == 0, outcome.report()
    assert outcome.kinds[Kind.COPY].told == plan.sessions


async def test_outages_that_do_not_fit_leave_exact_gaps_and_nothing_else() -> None:
    plan = Plan({Kind.KILL: 2}, sessions=2, subscribers=2, rate=4000, outage_s=(0.4, 0.6), outbox_events=500)
    outcome = await run(plan)

    _nothing_wrong(outcome, plan)
    assert not plan.fits_outbox
    assert outcome.gaps >= plan.restarts * plan.sessions * plan.subscribers
