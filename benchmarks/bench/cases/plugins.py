"""What each plugin costs while it is enabled and has nothing to do: the gateway with it against the one without."""

from __future__ import annotations

from importlib.metadata import entry_points

from bench.context import Context
from bench.gateway import MxgwPremade
from bench.measuring import Result
from bench.systems import Load, System

TITLE = "Cost of each plugin, enabled and idle"
SECONDS = 0.4
# A difference of two percent needs more turns than one of two times.
MORE_PAIRS = 2
# Processor time per event may rise by so much.
GOAL = 1.02


def run(context: Context) -> Result:
    """Compare at one subscriber, which needs no plugin; two gateways without any show how much is noise."""
    result = Result("plugins", TITLE, {"seconds": context.seconds(SECONDS)})
    context.pairs *= MORE_PAIRS
    without: System = MxgwPremade(name="without plugins", plugins=())
    installed = {entry.name for entry in entry_points(group="mxgw.plugins")}
    others: list[System] = [
        MxgwPremade(name="again without", plugins=()),
        *(MxgwPremade(name=f"with {plugin}", plugins=(plugin,)) for plugin in sorted(installed)),
    ]
    for other in others:
        if not context.wants(other.name):
            continue
        with context.running([without, other]):
            runs = context.turns("N=1", [without, other], Load(1, context.seconds(SECONDS)))
        result.add(runs, other.name, events_per_s="events/s", cpu_s_per_million="s")
        is_plugin = other is not others[0]
        result.compare(
            runs,
            "cpu_s_per_million",
            other.name,
            without.name,
            other.name,
            goal=GOAL if is_plugin else None,
            is_limit=True,
        )
        result.compare(runs, "events_per_s", other.name, without.name, other.name, goal=1 / GOAL if is_plugin else None)
    result.notes.append("'again without' compares two equal gateways: what it differs from 1 is noise")
    return context.finish(result)
