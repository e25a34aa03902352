"""The short form of `make chaos`: the gateway killed under load, every stream judged, every worker adopted."""

from __future__ import annotations

import pytest
from support.chaos import Outcome, Plan, run

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(150)]


def _nothing_wrong(outcome: Outcome, plan: Plan) -> None:
    assert not outcome.violations, outcome.report()
    assert not outcome.lost_sessions, outcome.report()
    assert not outcome.left_over, outcome.report()
    assert len(outcome.adoptions_s) == plan.kills * plan.sessions
    assert min(checker.resumes for checker in outcome.checkers) >= plan.kills


async def test_outages_that_fit_the_outbox_leave_no_gap() -> None:
    plan = Plan(kills=3, sessions=3, subscribers=2, rate=1500, outage_s=(0.0, 0.3))
    outcome = await run(plan)

    _nothing_wrong(outcome, plan)
    assert plan.fits_outbox
    assert outcome.gaps == 0, outcome.report()


async def test_outages_that_do_not_fit_leave_exact_gaps_and_nothing_else() -> None:
    plan = Plan(kills=2, sessions=2, subscribers=2, rate=4000, outage_s=(0.4, 0.6), outbox_events=500)
    outcome = await run(plan)

    _nothing_wrong(outcome, plan)
    assert not plan.fits_outbox
    assert outcome.gaps >= plan.kills * plan.sessions * plan.subscribers
