"""The delay from the source to a subscriber at steady rates, compared with the same delay in the peers."""

from __future__ import annotations

from bench.context import Context
from bench.gateway import Mxgw
from bench.measuring import Result
from bench.peers import Nats, Raw, RedisStream, Relay
from bench.systems import Load

TITLE = "Latency at fixed rates"
SUBSCRIBERS = (1, 8, 32)
RATES = (1_000, 5_000)
SECONDS = 1.6
# The goals apply to eight subscribers.
GOAL_N, GOALS = 8, {"p50_us": 1.0, "p99_us": 1.2}


def run(context: Context) -> Result:
    """Measure every combination of a number of subscribers and a rate."""
    result = Result("latency", TITLE, {"seconds": context.seconds(SECONDS)})
    systems = [Mxgw(), Relay(), Raw(), *context.installed_peers(Nats, RedisStream)]
    with context.running(systems):
        for rate in RATES:
            for subscribers in SUBSCRIBERS:
                circumstance = f"N={subscribers}, {rate}/s"
                if not context.wants(circumstance):
                    continue
                load = Load(subscribers, context.seconds(SECONDS), rate=rate)
                runs = context.turns(circumstance, systems, load)
                result.add(runs, circumstance, p50_us="us", p99_us="us")
                for key in ("p50_us", "p99_us"):
                    goal = GOALS[key] if subscribers == GOAL_N else None
                    result.compare(runs, key, "mxgw", "NATS core", circumstance, goal=goal, is_limit=True)
                    result.compare(runs, key, "mxgw", "relay", circumstance)
    return context.finish(result, systems)
