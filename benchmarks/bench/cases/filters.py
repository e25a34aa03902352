"""The cost of a filter: a key that can read half of the items, compared with a key without limits."""

from __future__ import annotations

from contextlib import ExitStack

from bench.context import Context
from bench.gateway import Mxgw
from bench.measuring import Result
from bench.systems import Load

TITLE = "Filter of a limited key"
SUBSCRIBERS = 8
SECONDS = 0.8
# At least a million events are considered per second of processor time.
GOAL_S = 1.0


class MxgwLimited(Mxgw):
    """The gateway with subscribers whose key can read the items with an even number. Another key opens the session."""

    name = "limited key"

    def start(self, stack: ExitStack) -> None:
        super().start(stack)
        even = [option for digit in "02468" for option in ("--read", f"Bench.Item*{digit}")]
        self.stream_key = self.make_key("--scopes", "open,read,events,all-sessions", *even)


def run(context: Context) -> Result:
    """Compare gateways whose subscribers use different keys. All events that the filter considered are counted."""
    result = Result("filters", TITLE, {"seconds": context.seconds(SECONDS)})
    plugins = ("backpressure", "replay", "acl")
    limited, free = MxgwLimited(plugins=plugins), Mxgw(name="key without limits", plugins=plugins)
    circumstance = f"N={SUBSCRIBERS}"
    with context.running([limited, free]):
        load = Load(SUBSCRIBERS, context.seconds(SECONDS), is_filtered=True)
        runs = context.alternate(
            circumstance,
            {
                limited.name: lambda: limited.turn(load),
                free.name: lambda: free.turn(Load(SUBSCRIBERS, context.seconds(SECONDS))),
            },
        )
    result.add(runs, circumstance, events_per_s="events/s", cpu_s_per_million="s")
    result.limit(runs, limited.name, "cpu_s_per_million", circumstance, GOAL_S)
    result.compare(runs, "cpu_s_per_million", limited.name, free.name, circumstance)
    result.notes.append("cpu s per million: of events considered, whether they passed the filter or not")
    return context.finish(result)
