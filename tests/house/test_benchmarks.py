"""The benchmarks run, what they print is what they found, and a stream that is not right is no result."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.repository import ROOT

sys.path.append(str(ROOT / "benchmarks"))

from mxgw.v1.event_service_pb2 import StreamEventsResponse
from mxgw.v1.events_pb2 import EventBatch

from bench.calls import Calls
from bench.counting import MarkerCounter, StrideCounter, WrongStream
from bench.events import RECORD_BYTES, SEQUENCE_AT, Blocks, record_of
from bench.http2 import Kept
from bench.measuring import Ratio, Result, alternate, result_from_json
from bench.reader import check, delays_of_pieces
from bench.report import outcome


def run(script: str, *arguments: str, timeout_s: float = 55) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / script), *arguments],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env={key: value for key, value in os.environ.items() if not key.startswith("MXGW_")},
    )


def stream(sequences: list[int]) -> bytearray:
    return bytearray(b"".join(record_of(sequence) for sequence in sequences))


def feed_in_pieces(counter: StrideCounter | MarkerCounter, data: bytearray, size: int) -> None:
    for start in range(0, len(data), size):
        piece = data[start : start + size]
        counter.feed(piece, 0, len(piece))


def counters() -> list[StrideCounter | MarkerCounter]:
    return [StrideCounter(RECORD_BYTES, SEQUENCE_AT), MarkerCounter()]


@pytest.mark.parametrize("size", [1, 7, 120, 121, 4096])
def test_both_counters_count_every_event_however_the_bytes_are_cut(size: int) -> None:
    for counter in counters():
        feed_in_pieces(counter, stream(list(range(1, 601))), size)

        assert counter.sequence == 600


WRONG = {
    "lost": [1, 2, 4, 5, 6],
    "repeated": [1, 2, 2, 3, 4],
    "swapped at the end": [1, 2, 3, 5, 4],
    "256 lost": [*range(1, 10), *range(266, 280)],
}


@pytest.mark.parametrize("sequences", WRONG.values(), ids=WRONG.keys())
def test_both_counters_refuse_a_stream_that_is_not_complete_and_in_order(sequences: list[int]) -> None:
    for counter in counters():
        with pytest.raises(WrongStream):
            counter.feed(stream(sequences), 0, RECORD_BYTES * len(sequences))


def test_what_a_server_puts_between_events_is_no_event() -> None:
    data = stream(list(range(1, 100)))
    data[RECORD_BYTES * 40 : RECORD_BYTES * 40] = b"PING\r\n"
    for size in (RECORD_BYTES * 3, 10_000_000):
        counter = StrideCounter(RECORD_BYTES, SEQUENCE_AT, noise=b"PING\r\n")
        feed_in_pieces(counter, data, size)

        assert counter.sequence == 99


def test_blocks_made_beforehand_are_consecutive_events() -> None:
    blocks = Blocks()
    data = b"".join(blocks.block(number)[2] for number in (*range(3), 255, 256, 257))
    sequences = [event.sequence for event in EventBatch.FromString(data).events]

    assert sequences == [*range(1, 3 * 256), *range(255 * 256, 258 * 256)]


def message(*sequences: int) -> bytes:
    events = EventBatch.FromString(bytes(stream(list(sequences))))
    return StreamEventsResponse(events=events).SerializeToString()


def opened() -> Kept:
    return Kept(0, StreamEventsResponse(opened={"epoch": b"e" * 16}).SerializeToString())


def test_sampled_messages_must_reach_up_to_the_next_one() -> None:
    assert check([opened(), Kept(0, message(5, 6, 7), next_sequence=8)], is_complete=False) == 3
    with pytest.raises(WrongStream, match="5 to 8"):
        check([opened(), Kept(0, message(5, 6, 7), next_sequence=9)], is_complete=False)


def test_complete_streams_are_checked_by_the_checker_of_the_system_tests() -> None:
    assert check([opened(), Kept(0, message(1, 2)), Kept(0, message(3))], is_complete=True) == 3
    with pytest.raises(WrongStream, match="missing without a Gap"):
        check([opened(), Kept(0, message(1, 2)), Kept(0, message(4))], is_complete=True)


def test_a_delay_ends_with_the_last_byte_of_its_event() -> None:
    data = record_of(1, 1_000) + record_of(2, 2_000)
    pieces = [(5_000, data[:100]), (6_000, data[100:130]), (9_000, data[130:])]

    assert delays_of_pieces(pieces, 0) == [5_000, 7_000]
    with pytest.raises(WrongStream):
        delays_of_pieces([(1, record_of(1) + record_of(3))], 0)


def test_systems_take_turns_forwards_and_backwards() -> None:
    order: list[str] = []

    def turn(name: str) -> dict[str, float]:
        order.append(name)
        return {"x": len(order)}

    runs = alternate({"a": lambda: turn("a"), "b": lambda: turn("b")}, pairs=3)

    assert order == ["a", "b", "b", "a", "a", "b"]
    result = Result("case", "Title")
    result.compare(runs, "x", "a", "b", "here", goal=1.0)
    (ratio,) = result_from_json(json.loads(json.dumps(result.as_json()))).ratios
    assert ratio.values == pytest.approx([1 / 2, 4 / 3, 5 / 6], rel=1e-5)
    assert ratio.is_reached is False
    assert Ratio("x", "here", [0.5], 1.0, is_limit=True).is_reached is True


def test_many_pairs_are_compared_by_the_interval_of_their_median() -> None:
    few = Ratio("x", "here", [1.01] * 19, 1.02, is_limit=True)
    clear = Ratio("x", "here", [1.00, 1.01] * 20, 1.02, is_limit=True)
    dear = Ratio("x", "here", [1.10, 1.20] * 20, 1.02, is_limit=True)
    noisy = Ratio("x", "here", [0.8, 1.2, 0.9, 1.1] * 10, 1.02, is_limit=True)

    assert few.interval is None
    assert [outcome(ratio) for ratio in (few, clear, dear, noisy)] == [
        "reached",
        "reached",
        "not reached",
        "not shown (noise)",
    ]
    assert noisy.interval == noisy.interval


def test_calls_are_counted_while_others_look(tmp_path: Path) -> None:
    (tmp_path / "calls").write_bytes(bytes(8))
    seen = Calls(tmp_path / "calls")
    before = sys.getprofile()
    try:
        Calls(tmp_path / "calls").count()
        for _ in range(100):
            abs(1)
    finally:
        sys.setprofile(before)

    assert 100 <= seen.number < 110


def test_a_case_measures_and_keeps_its_result(tmp_path: Path) -> None:
    done = run(
        *("run.py", "--case", "latency", "--only", "N=8", "--only", "1000/s", "--quick", "--pairs", "1"),
        *("--peer", "none", "--output", str(tmp_path)),
    )

    assert done.returncode == 0, done.stderr
    result = result_from_json(json.loads((tmp_path / "latency.json").read_text()))
    figures = {(figure.system, figure.what): figure.median for figure in result.figures}
    for system in ("mxgw", "relay", "raw"):
        assert 0 < figures[system, "p50_us"] <= figures[system, "p99_us"]
    assert result.environment["cores"] == str(os.cpu_count())


def test_the_page_shows_the_results_that_are_kept() -> None:
    done = run("document.py", "--check")

    assert done.returncode == 0, done.stderr


def figures_of(script: str, *arguments: str) -> dict[str, Any]:
    done = run(script, *arguments)

    assert done.returncode == 0, done.stderr

    (line,) = done.stdout.splitlines()
    result: dict[str, Any] = json.loads(line)
    return result


def test_alarms_are_listed_whole_and_followed_in_order() -> None:
    figures = figures_of("alarms.py", "--alarms", "500", "--rate", "200", "--clients", "3", "--seconds", "2")

    assert figures["snapshot_alarms"] == 500
    assert 0 < figures["snapshot_alone_s"] <= figures["snapshot_alone_max_s"] < 1
    assert figures["transitions_per_s"] > 50
    assert figures["missing"] == 0
    assert figures["all_saw_the_same"] == 1
