"""End the gateway again and again under load, and check that no promise is broken.

    python scripts/chaos.py --rounds 100

There are rounds of four kinds in random order: SIGKILL, SIGTERM, `mxgw drain`, and a second gateway on a copy of the
data directory while the first one runs. The last line of the output is one JSON object. For each kind it has the number
of rounds, of sessions that went on (counted in each round), of events and of gaps, and the times that adoptions took.
`unexplained` counts sessions that ended, events that were neither delivered nor named in an exact gap, and all other
broken promises. As long as an outage fits the outbox of the workers there must be no gap. The exit code is 1 when a
promise was broken.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support.chaos import Kind, Plan, run


def main() -> int:
    """Run the plan. Return 0 when every promise was kept."""
    default = Plan()
    kinds = [kind.value for kind in Kind]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="of each kind")
    parser.add_argument("--kinds", nargs="+", choices=kinds, default=kinds)
    parser.add_argument("--sessions", type=int, default=default.sessions, help="all of one key")
    parser.add_argument("--subscribers", type=int, default=default.subscribers, help="per session")
    parser.add_argument("--rate", type=int, default=default.rate, help="events/s of all sessions together")
    parser.add_argument("--outage", type=float, default=default.outage_s[1], metavar="SECONDS", help="the longest")
    parser.add_argument("--outbox", type=int, default=default.outbox_events, metavar="EVENTS")
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--verbose", action="store_true", help="say what became of each round")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO if given.verbose else logging.WARNING, format="%(asctime)s %(message)s")
    logging.getLogger("mxgw_client").setLevel(logging.ERROR)
    plan = Plan(
        rounds={Kind(kind): given.rounds for kind in given.kinds},
        sessions=given.sessions,
        subscribers=given.subscribers,
        rate=given.rate,
        outage_s=(0.0, given.outage),
        outbox_events=given.outbox,
        seed=given.seed,
    )
    outcome = asyncio.run(run(plan))
    failures = []
    if outcome.unexplained:
        failures.append(outcome.report())
    if plan.fits_outbox and outcome.gaps:
        failures.append(f"{outcome.gaps} gaps, although every outage fits the outbox")
    for failure in failures:
        print(failure, file=sys.stderr)
    print(json.dumps(outcome.line()))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
