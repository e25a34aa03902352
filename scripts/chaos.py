"""Kill the gateway again and again under load; the last line is one JSON object, the exit code says whether it held.

    python scripts/chaos.py --kills 100

`unexplained` counts what the judge of streams found to be neither delivered nor within an exact gap, and everything
else that breaks a promise. With outages that fit the workers' outbox there must be no gap at all.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support.chaos import Plan, run

ADOPTED_WITHIN_S = 2.0


def main() -> int:
    """Run and return 0 when every promise was kept."""
    default = Plan()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=default.kills)
    parser.add_argument("--sessions", type=int, default=default.sessions)
    parser.add_argument("--subscribers", type=int, default=default.subscribers, help="per session")
    parser.add_argument("--rate", type=int, default=default.rate, help="events/s of all sessions together")
    parser.add_argument("--outage", type=float, default=default.outage_s[1], metavar="SECONDS", help="the longest")
    parser.add_argument("--outbox", type=int, default=default.outbox_events, metavar="EVENTS")
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--verbose", action="store_true", help="say what became of each kill")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO if given.verbose else logging.WARNING, format="%(asctime)s %(message)s")
    logging.getLogger("mxgw_client").setLevel(logging.ERROR)
    plan = Plan(
        kills=given.kills,
        sessions=given.sessions,
        subscribers=given.subscribers,
        rate=given.rate,
        outage_s=(0.0, given.outage),
        outbox_events=given.outbox,
        seed=given.seed,
    )
    outcome = asyncio.run(run(plan))
    line = outcome.line()
    failures = []
    if outcome.violations or outcome.lost_sessions or outcome.left_over:
        failures.append(outcome.report())
    if plan.fits_outbox and outcome.gaps:
        failures.append(f"{outcome.gaps} gaps, although every outage fits the outbox")
    if outcome.adoptions_s and max(outcome.adoptions_s) > ADOPTED_WITHIN_S:
        failures.append(f"an adoption took longer than {ADOPTED_WITHIN_S:g} s")
    for failure in failures:
        print(failure, file=sys.stderr)
    print(json.dumps(line))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
