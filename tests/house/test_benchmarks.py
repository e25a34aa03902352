"""The benchmarks run and print what they promise; what they measure is for `make bench`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from support.repository import ROOT


def figures_of(name: str, *arguments: str) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / name), *arguments],
        capture_output=True,
        text=True,
        timeout=50,
        env={key: value for key, value in os.environ.items() if not key.startswith("MXGW_")},
    )

    assert done.returncode == 0, done.stderr

    (line,) = done.stdout.splitlines()
    result: dict[str, float] = json.loads(line)
    return result


def test_the_full_path_is_measured_beside_a_relay_and_a_raw_stream() -> None:
    figures = figures_of("full_path.py", "--seconds", "1", "--rounds", "1")

    for system in ("", "gateway_", "relay_", "raw_"):
        assert figures[f"{system}events_per_s"] > 0
    for system in ("", "gateway_", "relay_"):
        assert figures[f"{system}cpu_s_per_million"] > 0
    for rate in (1000, 5000):
        assert 0 < figures[f"p50_us_at_{rate}_per_s"] <= figures[f"p99_us_at_{rate}_per_s"]
    assert figures["ratio"] == pytest.approx(figures["events_per_s"] / figures["raw_events_per_s"], abs=0.001)
    assert figures["event_bytes"] > 0


def test_sessions_are_measured_one_by_one_and_at_once() -> None:
    figures = figures_of("sessions.py", "--sessions", "4")

    assert figures["open_at_once"] == 4
    assert 0 < figures["open_median_ms"] <= figures["open_max_ms"]
    assert 0 < figures["worker_own_mib"] <= figures["worker_rss_mib"]
    assert figures["left_over_processes"] == 0


def test_access_control_is_measured_beside_a_gateway_without_it() -> None:
    figures: dict[str, Any] = figures_of("acl_cost.py", "--seconds", "1", "--rounds", "1")

    for system in ("off", "on", "limited"):
        assert figures[f"{system}_events_per_s"] > 0
        assert figures[f"{system}_cpu_us_per_event"]["median"] >= 0
    for system in ("on", "limited"):
        spread = figures[f"{system}_to_off"]

        assert 0 < spread["least"] <= spread["median"] <= spread["greatest"]
    # A key with limits is really limited: its events are looked at one by one.
    assert figures["limited_cpu_us_per_event"]["median"] > figures["on_cpu_us_per_event"]["median"]


def test_alarms_are_listed_whole_and_followed_in_order() -> None:
    figures = figures_of("alarms.py", "--alarms", "500", "--rate", "200", "--clients", "3", "--seconds", "2")

    assert figures["snapshot_alarms"] == 500
    assert 0 < figures["snapshot_alone_s"] <= figures["snapshot_alone_max_s"] < 1
    assert figures["transitions_per_s"] > 50
    assert figures["missing"] == 0
    assert figures["all_saw_the_same"] == 1
