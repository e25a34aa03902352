"""What one delivered event costs as subscribers and sessions become more."""

from __future__ import annotations

from bench.context import Context
from bench.measuring import Result
from bench.systems import Load, MxgwPremade, Relay

TITLE = "Growth over subscribers and sessions"
SUBSCRIBERS = (1, 2, 4, 8, 16, 32, 64, 128)
SESSIONS = (1, 4, 8, 16, 32, 64)
SECONDS = 0.5


def run(context: Context) -> Result:
    """Measure the gateway alone; the relay beside it shows what of the curve is gRPC's."""
    result = Result("growth", TITLE, {"seconds": context.seconds(SECONDS)})
    ours, relay = MxgwPremade(), Relay()
    with context.running([ours, relay]):
        smallest = {}
        for subscribers in SUBSCRIBERS:
            circumstance = f"N={subscribers}"
            if not context.wants(circumstance):
                continue
            runs = context.turns(circumstance, [ours, relay], Load(subscribers, context.seconds(SECONDS)))
            result.add(runs, circumstance, events_per_s="events/s", cpu_s_per_million="s")
            smallest.setdefault("subscribers", runs)
            if runs is not smallest["subscribers"]:
                both = {ours.name: runs[ours.name], "at N=1": smallest["subscribers"][ours.name]}
                result.compare(both, "cpu_s_per_million", ours.name, "at N=1", circumstance, goal=1.05, is_limit=True)
        for sessions in SESSIONS:
            circumstance = f"S={sessions}"
            if not context.wants(circumstance):
                continue
            load = Load(1, context.seconds(SECONDS), sessions=sessions)
            runs = context.turns(circumstance, [ours], load)
            result.add(runs, circumstance, events_per_s="events/s", cpu_s_per_million="s")
            smallest.setdefault("sessions", runs)
            if runs is not smallest["sessions"]:
                both = {ours.name: runs[ours.name], "at S=1": smallest["sessions"][ours.name]}
                result.compare(both, "cpu_s_per_million", ours.name, "at S=1", circumstance, goal=1.05, is_limit=True)
    result.notes.append("S sessions have one worker and one subscriber each; all producers together run 100,000 ahead")
    return context.finish(result, [relay])
