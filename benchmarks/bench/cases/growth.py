"""What one delivered event costs as subscribers, and as sessions, become more: two cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench.context import Context
from bench.gateway import MxgwPremade
from bench.measuring import Result
from bench.peers import Relay
from bench.systems import Load

SUBSCRIBERS_TITLE = "Growth over subscribers"
SESSIONS_TITLE = "Growth over sessions"
SUBSCRIBERS = (1, 2, 4, 8, 16, 32, 64, 128)
SESSIONS = (1, 4, 8, 16, 32, 64)
SECONDS = 0.5
# "Flat or falling", with what turns of so few seconds differ by.
GOAL = 1.05

Runs = Mapping[str, Sequence[Mapping[str, Any]]]


def subscribers(context: Context) -> Result:
    """One session; the relay beside the gateway shows what of the curve is gRPC's."""
    result = Result("growth", SUBSCRIBERS_TITLE, {"seconds": context.seconds(SECONDS)})
    ours, relay = MxgwPremade(), Relay()
    with context.running([ours, relay]):
        measured = {
            f"N={number}": context.turns(f"N={number}", [ours, relay], Load(number, context.seconds(SECONDS)))
            for number in SUBSCRIBERS
            if context.wants(f"N={number}")
        }
    _compare_with_first(result, ours.name, measured)
    return context.finish(result, [relay])


def sessions(context: Context) -> Result:
    """One subscriber and one worker each."""
    result = Result("sessions", SESSIONS_TITLE, {"seconds": context.seconds(SECONDS)})
    ours = MxgwPremade()
    with context.running([ours]):
        measured = {
            f"S={number}": context.turns(f"S={number}", [ours], Load(1, context.seconds(SECONDS), sessions=number))
            for number in SESSIONS
            if context.wants(f"S={number}")
        }
    _compare_with_first(result, ours.name, measured)
    result.notes.append("a worker may be 100,000 events ahead divided by the sessions, and 20,000 at least")
    return context.finish(result)


def _compare_with_first(result: Result, of: str, measured: Mapping[str, Runs]) -> None:
    first = next(iter(measured), "")
    for circumstance, runs in measured.items():
        result.add(runs, circumstance, events_per_s="events/s", cpu_s_per_million="s")
        if circumstance != first:
            both = {of: runs[of], f"at {first}": measured[first][of]}
            result.compare(both, "cpu_s_per_million", of, f"at {first}", circumstance, goal=GOAL, is_limit=True)
