"""`mxgw bench`: figures of a gateway, and what they mean."""

from __future__ import annotations

import json
import subprocess
import sys

from mxgw_cli.bench.run import BenchRequest, Followed, Measured, report_lines
from mxgw_cli.children import clean_environment


def mxgw(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mxgw_cli", *arguments],
        capture_output=True,
        text=True,
        timeout=55,
        env=clean_environment(),
    )


def test_a_gateway_of_its_own_is_measured_and_gone_afterwards() -> None:
    done = mxgw("bench", "--private", "--seconds", "1", "--json")

    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert 0 < result["open_median_ms"] <= result["open_slowest_ms"]
    assert 0 < result["paced"]["p50_ms"] <= result["paced"]["p99_ms"]
    assert result["paced"]["gaps"] == 0
    assert result["load"]["events"] > result["paced"]["events"] > 0


def test_without_a_gateway_it_says_so_with_exit_code_3() -> None:
    done = mxgw("bench", "--gateway", "127.0.0.1:1", "--timeout", "2")

    assert done.returncode == 3
    assert "mxgw serve" in done.stderr


def request(*tags: str) -> BenchRequest:
    return BenchRequest(tags, False, 5.0, "", False)


def test_what_is_slow_is_said_with_what_to_look_at() -> None:
    followed = Followed(5.0, 5_000, 0, 30.0, 90.0)
    text = "\n".join(report_lines(Measured(900.0, 1200.0, followed, None), request("Tank")))

    assert "slow: the machine is busy" in text
    assert "late: the machine or this client is busy" in text
    assert "Nothing lost" in text


def test_what_is_well_is_called_so_and_a_loss_is_not_hidden() -> None:
    followed = Followed(5.0, 5_000, 2, 0.4, 1.5)
    text = "\n".join(report_lines(Measured(90.0, 120.0, followed, None), request("Tank")))

    assert text.count(": well.") == 2
    assert "LOST: 2 gaps" in text


def test_tags_that_never_change_are_no_measurement() -> None:
    followed = Followed(5.0, 0, 0, None, None)

    assert "None came within 5 s" in "\n".join(report_lines(Measured(90.0, 120.0, followed, None), request("Tank")))
