"""How fast a subscriber gets the retained events when it comes back, compared with the peers that can replay events."""

from __future__ import annotations

from bench.context import Context
from bench.gateway import MxgwPremade
from bench.measuring import Result
from bench.peers import JetStream, RedisStream
from bench.systems import Load

TITLE = "Resume and replay"
SUBSCRIBERS = (1, 8)
EVENTS = 400_000
LONGEST_S = 20.0
GOAL = 25.0


def run(context: Context) -> Result:
    """Fill the log, attach a subscriber at its oldest event, and measure the time until it has all events."""
    events = EVENTS // 4 if context.quick else EVENTS
    result = Result("replay", TITLE, {"events": events})
    ours = MxgwPremade(retained_events=2 * EVENTS)
    peers = context.installed_peers(JetStream, RedisStream)
    systems = [ours, *peers]
    with context.running(systems):
        for subscribers in SUBSCRIBERS:
            circumstance = f"N={subscribers}"
            if not context.wants(circumstance):
                continue
            runs = context.turns(circumstance, systems, Load(subscribers, LONGEST_S, replay_events=events))
            result.add(runs, circumstance, events_per_s="events/s", cpu_s_per_million="s", attach_ms="ms")
            for peer in peers:
                result.compare(runs, "events_per_s", ours.name, peer.name, circumstance)
    return context.finish(result, systems)
