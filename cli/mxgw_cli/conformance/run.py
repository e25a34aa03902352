"""`mxgw conformance`: plays scenarios for a testee and judges it, or plays one scenario for any client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mxgw_cli.conformance.judging import broken_promises, problems_of
from mxgw_cli.conformance.process import FailedTestee, Line, Testee, started
from mxgw_cli.conformance.scenario import QUICK, Scenario, chosen, load, with_epochs
from mxgw_cli.conformance.stage import Stage, staged
from mxgw_cli.render import write_json
from mxgw_cli.shell import CliFailure, SilentFailure, console

# How long one command may take. A scenario with heartbeats takes about two seconds.
_COMMAND_S = 40.0
# The keys of a step that say what must come of it.
_OF_THE_JUDGE = ("ok", "error", "lines", "may_fail")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one scenario. `problems` is empty when the client passed."""

    group: str
    name: str
    says: str
    seconds: float
    problems: tuple[str, ...]
    was_expected: bool = False

    @property
    def passed(self) -> bool:
        return not self.problems

    @property
    def is_as_expected(self) -> bool:
        """Whether it passed, or is listed among the expected failures and failed."""
        return self.passed != self.was_expected


def expected_failures(file: Path | None) -> set[str]:
    """Return the names in a file: one on each line, `#` begins a comment."""
    if file is None:
        return set()
    lines = (line.partition("#")[0].strip() for line in file.read_text(encoding="utf-8").splitlines())
    return {line for line in lines if line}


async def judge_all(command: str, scenarios: Iterable[Scenario], expected: Collection[str] = ()) -> list[Verdict]:
    """Run scenarios one after the other with one testee; where it fails to answer, another one is started.

    Raises:
        FailedTestee: a testee cannot be started.
    """
    verdicts = []
    async with AsyncExitStack() as stack:
        testee: Testee | None = None
        for scenario in scenarios:
            if testee is None:
                testee = await stack.enter_async_context(started(command))
            began = time.perf_counter()
            try:
                problems = await play(scenario, testee)
            except FailedTestee as failed:
                problems = [f"the testee: {failed}"]
                testee.kill()
                testee = None
            seconds = time.perf_counter() - began
            facts = (scenario.group, scenario.name, scenario.says, seconds, tuple(problems))
            verdicts.append(Verdict(*facts, was_expected=scenario.name in expected))
    return verdicts


async def play(scenario: Scenario, testee: Testee) -> list[str]:
    """Play one scenario and return what was wrong.

    Raises:
        FailedTestee: the testee did not answer.
    """
    problems: list[str] = []
    failure: FailedTestee | None = None
    async with staged(scenario) as stage:
        try:
            await _play(scenario, testee, stage, problems)
        except FailedTestee as failed:  # raised again outside: here it would become a part of an exception group
            failure = failed
    if failure is not None:
        raise failure
    return problems + stage.finish()


async def _play(scenario: Scenario, testee: Testee, stage: Stage, problems: list[str]) -> None:
    steps: Sequence[Any] = scenario.steps
    if steps[0]["do"] != "connect":
        steps = [{"do": "connect"}, *steps]
    for step in steps:
        lines: list[Line] = []
        answer = await testee.ask(_command(step, stage), _COMMAND_S, partial(_take, lines, stage))
        problems += problems_of(step, answer, lines)
        if step["do"] == "stream" and not scenario.unchecked:
            problems += broken_promises(lines, stage.opened, stage.sent)
    answer = await testee.ask({"do": "reset"}, _COMMAND_S, partial(_take, [], stage))
    problems += problems_of({"do": "reset"}, answer, ())


def _take(lines: list[Line], stage: Stage, line: Line) -> None:
    lines.append(line)
    stage.saw(line)


def _command(step: Any, stage: Stage) -> Line:
    """Return a step without what is expected of it, and with what the testee must know."""
    command = {key: with_epochs(value) for key, value in step.items() if key not in _OF_THE_JUDGE}
    if step["do"] == "connect":
        command["target"] = stage.target
    if step["do"] == "stream" and command.get("resume", {}) is not None:
        command["resume"] = QUICK | command.get("resume", {})
    return command


async def judge(
    command: str, words: Sequence[str], *, failures: Path | None, folder: Path | None, as_json: bool, verbose: bool
) -> None:
    """Judge a testee and print the verdicts.

    Raises:
        SilentFailure: a scenario failed that was not expected to, or passed that was expected to fail.
        CliFailure: there is no such scenario, or the testee cannot be started.
    """
    scenarios = chosen(load() if folder is None else load(folder), words)
    if not scenarios:
        raise CliFailure("no scenario fits", hint="List them:  mxgw conformance list")
    expected = expected_failures(failures)
    try:
        verdicts = await judge_all(command, scenarios, expected)
    except FailedTestee as failed:
        raise CliFailure(f"the testee: {failed}", hint="Run it by itself: docs/clients/conformance.md") from failed
    unknown = expected - {scenario.name for scenario in load()} if folder is None else set()
    wrong = [verdict for verdict in verdicts if not verdict.is_as_expected]
    if as_json:
        write_json(
            {
                "passed": sum(verdict.passed for verdict in verdicts),
                "failed": sum(not verdict.passed for verdict in verdicts),
                "unexpected": [verdict.name for verdict in wrong],
                "scenarios": [asdict(verdict) for verdict in verdicts],
            }
        )
    else:
        _show(verdicts, verbose=verbose)
    for name in sorted(unknown):
        console(stderr=True).print(f"expected to fail, and no scenario: {name}", markup=False)
    if wrong or unknown:
        raise SilentFailure


def _show(verdicts: Sequence[Verdict], *, verbose: bool) -> None:
    out = console()
    for verdict in verdicts:
        if verdict.passed and verdict.was_expected:
            out.print(f"PASSED although expected to fail  {verdict.name}", markup=False)
        elif not verdict.passed:
            word = "failed, as expected" if verdict.was_expected else "FAILED"
            out.print(f"{word}  {verdict.name}: {verdict.says}", markup=False, soft_wrap=True)
            for problem in verdict.problems:
                out.print(f"    {problem}", markup=False, soft_wrap=True)
        elif verbose:
            out.print(f"passed  {verdict.name} ({verdict.seconds:.2f} s)", markup=False)
    passed = sum(verdict.passed for verdict in verdicts)
    seconds = sum(verdict.seconds for verdict in verdicts)
    out.print(f"{passed} of {len(verdicts)} scenarios passed in {seconds:.1f} s", markup=False)


async def serve(name: str, *, folder: Path | None) -> None:
    """Play one scenario for any client until Ctrl-C, and say at the end which calls were not as expected.

    Raises:
        CliFailure: there is no such scenario.
    """
    found = [scenario for scenario in (load() if folder is None else load(folder)) if scenario.name == name]
    if not found:
        raise CliFailure(f"no scenario is called {name!r}", hint="List them:  mxgw conformance list")
    out = console()
    async with staged(found[0], is_watched=False) as stage:
        out.print(f"{found[0].says}\nserving on {stage.target}, Ctrl-C ends", markup=False, soft_wrap=True)
        try:
            await asyncio.Event().wait()
        finally:
            for problem in stage.finish():
                out.print(f"    {problem}", markup=False, soft_wrap=True)


def list_scenarios(folder: Path | None, *, as_json: bool) -> None:
    """Print the names and sentences of all scenarios."""
    scenarios = load() if folder is None else load(folder)
    if as_json:
        write_json([{"group": s.group, "name": s.name, "says": s.says} for s in scenarios])
        return
    out, group = console(), ""
    for scenario in scenarios:
        if scenario.group != group:
            group = scenario.group
            out.print(group, markup=False)
        out.print(f"  {scenario.name}: {scenario.says}", markup=False, soft_wrap=True)
