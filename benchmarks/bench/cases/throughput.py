"""Events delivered at full speed, and the processor time that the server needs, compared with floors and peers.

There are two kinds of load. With `made beforehand` the source needs no time in any system, so that the servers are
compared. With `encoded` each event is built one by one, by the worker of mxgw or by a publisher with the protobuf
library, so that complete paths are compared.
"""

from __future__ import annotations

from bench.context import Context
from bench.gateway import Mxgw, MxgwPremade
from bench.measuring import Result
from bench.peers import Nats, Raw, Relay
from bench.systems import Load

TITLE = "Throughput and processor time"
SUBSCRIBERS = (1, 8, 32)
SECONDS = 0.8
GOALS = {"NATS core": 4.0, "NATS JetStream": 25.0, "relay": 0.8}
CPU_GOAL_S = 0.1


def run(context: Context) -> Result:
    """Measure both kinds of load for every number of subscribers."""
    result = Result("throughput", TITLE, {"seconds": context.seconds(SECONDS)})
    ours, whole = MxgwPremade(), Mxgw()
    peers = context.installed_peers()
    systems = [ours, whole, Relay(), Raw(), *peers]
    with context.running(systems):
        for subscribers in SUBSCRIBERS:
            circumstance = f"N={subscribers}, made beforehand"
            if context.wants(circumstance):
                load = Load(subscribers, context.seconds(SECONDS))
                chosen = [system for system in systems if system is not whole]
                runs = context.turns(circumstance, chosen, load)
                result.add(runs, circumstance, events_per_s="events/s", cpu_s_per_million="s")
                if subscribers == 8:
                    result.limit(runs, ours.name, "cpu_s_per_million", circumstance, CPU_GOAL_S)
                for system in chosen[1:]:
                    goal = GOALS.get(system.name) if subscribers == 8 else None
                    result.compare(runs, "events_per_s", ours.name, system.name, circumstance, goal=goal)
            circumstance = f"N={subscribers}, encoded"
            if context.wants(circumstance):
                load = Load(subscribers, context.seconds(SECONDS), encode=True)
                chosen = [whole, *(peer for peer in peers if isinstance(peer, Nats))]
                runs = context.turns(circumstance, chosen, load)
                result.add(runs, circumstance, events_per_s="events/s", cpu_s_per_million="s")
                for system in chosen[1:]:
                    result.compare(runs, "events_per_s", whole.name, system.name, circumstance)
    return context.finish(result, systems)
