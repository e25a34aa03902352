"""How the cost of one delivered event changes with the number of subscribers, and with the number of sessions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from bench.context import Context
from bench.gateway import MxgwPremade
from bench.measuring import Result
from bench.peers import Relay
from bench.systems import WARM_UP_S, Load

SUBSCRIBERS_TITLE = "Growth over subscribers"
SESSIONS_TITLE = "Growth over sessions"
SUBSCRIBERS = (1, 2, 4, 8, 16, 32, 64, 128)
SESSIONS = (1, 4, 8, 16, 32, 64)
SECONDS = 0.5
# These numbers are the same for each session, whatever the number of sessions: how many events the worker can be ahead
# of the subscriber, and how many events the log keeps.
WINDOW_EVENTS, RETAINED_EVENTS = 20_000, 60_000
# Measuring begins when each log is full, because a log that still grows takes new memory for every event. This is the
# assumed rate at which the logs are filled.
FILLED_EVENTS_PER_S = 2_000_000
# The goal is that the cost stays the same or falls. The factor allows for differences between short turns.
GOAL = 1.05

Runs = Mapping[str, Sequence[Mapping[str, Any]]]


def subscribers(context: Context) -> Result:
    """Measure one session with more and more subscribers.

    The relay beside it shows which part of the cost is gRPC's.
    """
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
    """Measure more and more sessions with one subscriber and one worker each.

    The numbers of sessions take turns within one run, so that their figures can be compared.
    """
    settings = {"window": WINDOW_EVENTS, "retained": RETAINED_EVENTS}
    result = Result("sessions", SESSIONS_TITLE, {"seconds": context.seconds(SECONDS), **settings})
    ours = MxgwPremade(window_events=WINDOW_EVENTS, retained_events=RETAINED_EVENTS)
    numbers = [number for number in SESSIONS if context.wants(f"S={number}")]
    with context.running([ours]):
        turns = {f"S={number}": partial(ours.turn, _load_of(number, context.seconds(SECONDS))) for number in numbers}
        runs = context.alternate("sessions", turns)
    _compare_with_first(result, ours.name, {number: {ours.name: found} for number, found in runs.items()})
    result.notes.append("every session's log retains what it may before measuring begins")
    return context.finish(result)


def _load_of(sessions: int, seconds: float) -> Load:
    warm_up_s = max(WARM_UP_S, sessions * RETAINED_EVENTS / FILLED_EVENTS_PER_S)
    return Load(1, seconds, sessions=sessions, warm_up_s=warm_up_s)


def _compare_with_first(result: Result, of: str, measured: Mapping[str, Runs]) -> None:
    first = next(iter(measured), "")
    for circumstance, runs in measured.items():
        result.add(runs, circumstance, events_per_s="events/s", cpu_s_per_million="s")
        if circumstance != first:
            both = {of: runs[of], f"at {first}": measured[first][of]}
            result.compare(both, "cpu_s_per_million", of, f"at {first}", circumstance, goal=GOAL, is_limit=True)
