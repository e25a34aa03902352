"""The conformance kit: the Python client passes, and clients that break a rule do not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mxgw.v1 import event_service_pb2, events_pb2
from mxgw_cli.conformance.judging import broken_promises, problems_of
from mxgw_cli.conformance.matching import differences, unmatched
from mxgw_cli.conformance.process import FailedTestee
from mxgw_cli.conformance.run import Verdict, expected_failures, judge_all
from mxgw_cli.conformance.scenario import EPOCH, ScenarioError, chosen, load
from mxgw_cli.conformance.scripted import change

TESTEE = f"{sys.executable} -m mxgw_cli.conformance.testee"
RUN = [sys.executable, "-m", "mxgw_cli", "conformance", "run"]


def test_the_python_client_passes_every_scenario() -> None:
    done = subprocess.run([*RUN, "--testee", TESTEE, "--json"], capture_output=True, text=True, timeout=250)
    result = json.loads(done.stdout)
    failed = {entry["name"]: entry["problems"] for entry in result["scenarios"] if entry["problems"]}

    assert not failed
    assert done.returncode == 0, done.stderr
    assert result["passed"] == len(load()) > 45


OTHER_IDS = """
        async def unary(self, method, request, *rest, old=_calls.Calls.unary):
            if getattr(request, "request_id", b""):
                request.request_id = os.urandom(16)
            return await old(self, method, request, *rest)
        _calls.Calls.unary = unary
"""
# Clients that break one rule each. Key: the scenario that must notice. Value: what is put in place of a part of the
# Python client before its testee runs.
BROKEN = {
    "resume-of-a-reset": """
        resume.ResumePoint.request_from_here = lambda self: self._request  # from the start again
    """,
    "gap-that-did-not-come-yet": """
        def hand_out(self, frame, old=resume.ResumePoint.hand_out):
            old(self, frame)
            if type(frame).__name__ == "StreamOpened":
                self._after_gap = None
                self.position = frame.position if frame.recovered else after_the_gap(frame)
        def after_the_gap(frame):
            return type(frame.position)(frame.position.epoch, frame.oldest_sequence - 1)
        resume.ResumePoint.hand_out = hand_out
    """,
    "gap-with-runs-keeps-the-position": """
        frames.Gap.covers_its_range = property(lambda self: bool(self.last_lost))
    """,
    "retry-ends-when-the-session-is-gone": """
        resume.is_temporary = lambda error, *, was_open: was_open
    """,
    "retry-is-not-for-the-first-attempt": """
        resume.is_temporary = lambda error, *, was_open: True
    """,
    "retry-after-an-overflow": """
        resume.is_temporary = lambda error, *, was_open: False
    """,
    "opening-repeats-a-lost-answer": OTHER_IDS,
    "write-whose-answer-was-lost": OTHER_IDS,
    "unknown-frame-is-skipped": """
        def frame_of(message, context):
            frame = frames.frame_from_message(message, context)
            assert frame is not None
            return frame
        streams.EVENTS = dataclasses.replace(streams.EVENTS, frame_of=frame_of)
    """,
    "values-at-their-limits": """
        from mxgw_client import events
        events.DataChange.value = property(lambda self: float(self.raw.data_change.value.integer))
    """,
}
_RUN_BROKEN = """
import asyncio
import dataclasses
import os

from mxgw_client import _calls, frames, resume, streams

{change}

from mxgw_cli.conformance.testee import main
asyncio.run(main())
"""


@pytest.mark.asyncio
@pytest.mark.parametrize("name", BROKEN)
async def test_a_client_that_breaks_a_rule_fails_the_scenario_of_this_rule(name: str, tmp_path: Path) -> None:
    lines = BROKEN[name].strip("\n").splitlines()
    program = tmp_path / "broken.py"
    program.write_text(_RUN_BROKEN.format(change="\n".join(line[8:] for line in lines)))
    (verdict,) = await judge_all(f"{sys.executable} {program}", [s for s in load() if s.name == name])

    assert not verdict.passed


@pytest.mark.asyncio
async def test_after_a_testee_that_fails_another_is_started(tmp_path: Path) -> None:
    program = tmp_path / "testee.py"
    program.write_text(
        'print(\'{"testee": "brief", "protocol": 1}\', flush=True)\ninput()\nprint("no JSON", flush=True)'
    )
    verdicts = await judge_all(f"{sys.executable} {program}", load()[:2])

    assert len(verdicts) == 2
    for verdict in verdicts:
        assert "no JSON object" in verdict.problems[0]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("program", "text"),
    [
        ("pass", "it ended with exit code 0"),
        ("""print('{"testee": "old", "protocol": 0}')""", "its first line must be"),
    ],
)
async def test_a_testee_that_does_not_greet_is_refused(program: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "testee.py").write_text(program)
    with pytest.raises(FailedTestee, match=text):
        await judge_all(f"{sys.executable} {tmp_path / 'testee.py'}", load()[:1])


@pytest.mark.asyncio
async def test_a_testee_that_does_not_exist_is_refused() -> None:
    with pytest.raises(FailedTestee, match="cannot be started"):
        await judge_all("/no/such/testee", load()[:1])


# What is judged


def changed(sequence: int, *, position: int | None = None) -> dict[str, Any]:
    at = sequence if position is None else position
    place = {"epoch": EPOCH.hex(), "sequence": at}
    return {"item": "change", "sequence": sequence, "serial": 1, "position": place}


OPENED = {
    "item": "opened",
    "at": {"epoch": EPOCH.hex(), "sequence": 0},
    "head": 0,
    "oldest": 1,
    "resuming": False,
    "recovered": False,
    "position": {"epoch": EPOCH.hex(), "sequence": 0},
}
SENT = {(EPOCH, n): change(n).SerializeToString() for n in range(1, 6)}
REQUESTS = [event_service_pb2.StreamEventsRequest()]


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        ([changed(1), changed(2)], None),
        ([changed(1), changed(1)], "event 1 came again"),
        ([changed(1), changed(3)], "2 to 2 missing without a Gap"),
        ([changed(2), changed(1)], "1 to 1 missing"),
        ([{**changed(1), "serial": 9}], "the worker produced"),
        ([changed(1, position=2)], "the position is 2, but only 1 was handed out"),
        ([OPENED], "more openings than there were streams"),
    ],
    ids=["kept", "twice", "lost", "order", "invented", "position", "openings"],
)
def test_what_a_client_hands_out_is_held_to_the_promises(lines: list[dict[str, Any]], text: str | None) -> None:
    found = broken_promises([OPENED, *lines], REQUESTS, SENT)

    assert not found if text is None else any(text in problem for problem in found), found


def test_a_resume_behind_what_was_handed_out_is_found() -> None:
    after = events_pb2.Position(epoch=EPOCH, sequence=2)
    start = event_service_pb2.StartPosition(after=after)
    requests = [*REQUESTS, event_service_pb2.StreamEventsRequest(start=start)]
    cut = {"item": "cut", "error": {"reason": "", "kind": "connection_lost"}}
    back = {**OPENED, "at": {"epoch": EPOCH.hex(), "sequence": 2}, "resuming": True, "recovered": True, "head": 2}

    found = broken_promises([OPENED, changed(1), cut, back], requests, SENT)

    assert any("only 1 had been handed over" in problem for problem in found)


def test_an_answer_must_be_what_the_step_expects() -> None:
    refused = {"kind": "gateway", "reason": "SESSION_GONE"}

    assert problems_of({"do": "x", "error": refused}, {"error": {**refused, "code": "NOT_FOUND"}}, ()) == []
    assert problems_of({"do": "x", "error": refused}, {"ok": {}}, ()) == [f"x succeeded, expected the error {refused}"]
    assert problems_of({"do": "x"}, {"error": refused}, ()) == [f"x failed: {refused}"]
    assert problems_of({"do": "x", "may_fail": True}, {"error": refused}, ()) == []
    assert problems_of({"do": "x"}, {"unsupported": "x"}, ()) == ["the testee does not know x"]
    assert problems_of({"do": "x", "ok": {"id": 1}}, {"ok": {"id": 2}}, ()) == ["x: ok.id is 2, expected 1"]
    assert problems_of({"do": "x", "lines": [{"a": 1}]}, {"ok": {}}, [{"a": 2}]) == [
        "x: line 1 ({'a': 2}): a is 2, expected 1"
    ]


def test_expected_fields_must_be_there_and_others_may_be() -> None:
    assert differences({"a": 1, "b": [{}]}, {"a": 1.0, "b": [{"c": 2}], "d": 3}) == []
    assert differences({"a": True}, {"a": 1}) == ["a is 1, expected True"]
    assert differences({"a": {"b": 1}}, {"a": {}}) == ["a.b is missing, expected 1"]
    assert differences({"a": [1]}, {"a": [1, 2]}) == ["a is [1, 2], expected [1]"]


def test_lines_too_many_and_missing_are_named() -> None:
    assert unmatched([{"a": 1}], [{"a": 1}, {"a": 2}]) == ["1 lines too many, the first is {'a': 2}"]
    assert unmatched([{"a": 1}, {"a": 2}], [{"a": 1}]) == ["1 lines are missing, the first is {'a': 2}"]


def test_an_expected_failure_that_passes_is_no_success(tmp_path: Path) -> None:
    file = tmp_path / "failures.txt"
    file.write_text("# for now\nresume-of-a-reset  # reconnects too late\n\n")

    assert expected_failures(file) == {"resume-of-a-reset"}
    assert Verdict("g", "n", "", 0, ()).is_as_expected
    assert Verdict("g", "n", "", 0, ("bad",), was_expected=True).is_as_expected
    assert not Verdict("g", "n", "", 0, ("bad",)).is_as_expected
    assert not Verdict("g", "n", "", 0, (), was_expected=True).is_as_expected


def test_an_expected_failure_ends_the_run_well_and_one_that_passes_does_not(tmp_path: Path) -> None:
    file = tmp_path / "failures.txt"
    file.write_text("openings-have-ids-of-their-own\n")
    run = [*RUN, "--testee", TESTEE, "openings-have", "--expected-failures", str(file)]
    done = subprocess.run(run, capture_output=True, text=True, timeout=60)

    assert done.returncode == 1
    assert "PASSED although expected to fail  openings-have-ids-of-their-own" in done.stdout


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ({"name": "a", "says": "b", "steps": [], "extra": 1}, "unknown key 'extra'"),
        ({"name": "a", "steps": []}, "needs a name and a sentence"),
        ({"name": "a", "says": "b"}, "either steps or a stream"),
    ],
)
def test_a_malformed_scenario_is_refused(entry: dict[str, Any], text: str, tmp_path: Path) -> None:
    (tmp_path / "odd.json").write_text(json.dumps([entry]))
    with pytest.raises(ScenarioError, match=text):
        load(tmp_path)


def test_scenarios_are_chosen_by_group_and_by_words_of_their_names() -> None:
    scenarios = load()

    assert {s.group for s in chosen(scenarios, ["gaps"])} == {"gaps"}
    assert [s.name for s in chosen(scenarios, ["of-a-reset"])] == ["resume-of-a-reset"]
    assert chosen(scenarios, []) == scenarios
