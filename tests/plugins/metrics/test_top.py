"""`mxgw top`: what it makes of two looks, and what it shows."""

from __future__ import annotations

import io
import json
import math

import pytest
from rich.console import Console

from mxgw_metrics.top.reading import Reading
from mxgw_metrics.top.run import _plain
from mxgw_metrics.top.screen import lines_of, screen
from mxgw_metrics.top.summary import Summary, quantile_of, summary_of

BEFORE = """
mxgw_build_info{version="1.2.3"} 1
mxgw_start_time_seconds 1000
mxgw_sessions{state="ready"} 2
mxgw_sessions_limit 64
mxgw_events_received_total 100
mxgw_events_received_bytes_total 10000
mxgw_gap_frames_total{reason="CONFLATED"} 5
mxgw_gap_frames_total{reason="RING_EVICTED"} 1
mxgw_events_lost_total{reason="RING_EVICTED"} 10
mxgw_sessions_ended_total{reason="WORKER_EXITED"} 0
mxgw_subscriber_lag_seconds{policy="disconnect"} 0
mxgw_rpc_requests_total{method="/mxgw.v1.CommandService/Invoke",code="OK"} 10
mxgw_rpc_duration_seconds_bucket{method="a",le="0.001"} 10
mxgw_rpc_duration_seconds_bucket{method="a",le="+Inf"} 10
mxgw_authentications_total{outcome="ok"} 10
mxgw_authentications_total{outcome="denied"} 0
mxgw_adoptions_total{outcome="failed"} 0
mxgw_plugin_up{plugin="replay"} 1
mxgw_pump_stall_seconds_total 1
mxgw_replay_detach_grace_seconds 30
process_cpu_seconds_total 10
"""


def reading(text: str, at_s: float) -> Reading:
    return Reading.of(text, at_s, 1060.0 + at_s)


def changed(**values: str) -> str:
    """Return the second look: lines of the first whose name begins so get another value."""
    lines = []
    for line in BEFORE.strip().splitlines():
        name, _, value = line.rpartition(" ")
        new = next((v for key, v in values.items() if name.startswith((f"mxgw_{key}", key))), value)
        lines.append(f"{name} {new}")
    return "\n".join(lines) + "\n"


def summary(**values: str) -> Summary:
    return summary_of(reading(BEFORE, 0.0), reading(changed(**values), 2.0))


def bad(f: Summary) -> set[str]:
    return {line.name for line in lines_of(f) if line.is_bad}


def test_rates_are_those_of_the_time_between() -> None:
    f = summary(events_received_total="300", rpc_requests_total="30", process_cpu_seconds_total="11")

    assert f.events_in_per_s == 100
    assert f.bytes_in_per_s == 0
    assert f.events_in == 300
    assert f.calls_per_s == 10
    assert f.busiest == {"Invoke": 10}
    assert f.cpu_share == 0.5
    assert f.uptime_s == 62
    assert f.version == "1.2.3"


def test_nothing_deserves_a_look_where_nothing_is_wrong() -> None:
    assert not bad(summary())
    # What subscribers let be conflated is nothing wrong.
    assert not bad(summary(**{'gap_frames_total{reason="CONFLATED"': "9"}))


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({'gap_frames_total{reason="RING': "2"}, "gaps"),
        ({"events_lost_total": "11"}, "lost"),
        ({"sessions_ended_total": "1"}, "ended"),
        ({"subscriber_lag_seconds": "5.1"}, "subscribers"),
        ({'authentications_total{outcome="denied': "1"}, "refused"),
        ({"adoptions_total": "1"}, "adoptions"),
        ({"plugin_up": "0"}, "plugins"),
        ({"pump_stall_seconds_total": "1.3"}, "delays"),
    ],
)
def test_what_alerts_tell_is_marked(values: dict[str, str], line: str) -> None:
    assert bad(summary(**values)) == {line}


def test_a_log_that_is_shorter_than_the_grace_is_marked() -> None:
    text = changed() + "mxgw_replay_horizon_seconds 12\n"
    f = summary_of(reading(BEFORE, 0.0), reading(text, 2.0))

    assert bad(f) == {"replay"}
    assert "reaches back 12 s; grace 30 s" in screen(f, "here", 80).plain


def test_a_gateway_that_was_restarted_between_has_no_rates() -> None:
    f = summary(start_time_seconds="1059", events_received_total="5")

    assert f.was_restarted
    assert f.events_in_per_s == 0
    assert f.events_in == 5
    assert "restarted just now" in screen(f, "here", 80).plain


def test_a_quantile_is_the_bound_that_holds_it() -> None:
    buckets = {0.1: 90.0, 1.0: 98.0, math.inf: 100.0}

    assert quantile_of(buckets, 0.5) == 0.1
    assert quantile_of(buckets, 0.95) == 1.0
    assert quantile_of(buckets, 0.99) == math.inf
    assert quantile_of({}, 0.5) is None
    assert quantile_of({0.1: 0.0, math.inf: 0.0}, 0.5) is None


@pytest.mark.parametrize("width", [40, 80])
def test_it_fits_the_terminal(width: int) -> None:
    text = screen(summary(), "127.0.0.1:9464", width, "as of 3 s ago: no metrics").plain

    assert len(text.splitlines()) <= 24
    assert max(map(len, text.splitlines())) <= width


def test_without_colour_the_mark_still_tells() -> None:
    file = io.StringIO()
    console = Console(file=file, no_color=True, force_terminal=True, width=80, markup=False)
    console.print(screen(summary(plugin_up="0"), "here", 80))

    assert "\n\x1b[1m! plugins" in file.getvalue()
    assert "\x1b[31m" not in file.getvalue()
    assert ";31m" not in file.getvalue()


def test_json_has_a_form_for_what_lies_beyond_the_last_bound() -> None:
    document = json.dumps(_plain([("p99_s", math.inf), ("p50_s", 0.1)]), allow_nan=False)

    assert json.loads(document) == {"p99_s": "Infinity", "p50_s": 0.1}
