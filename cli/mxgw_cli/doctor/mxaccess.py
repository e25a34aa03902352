"""`mxgw doctor --mxaccess`: collects the facts about MXAccess on this machine that the documentation leaves open.

The questions are asked by a process in the Python of the workers (`mxgw_worker.backends.mxaccess.survey`), because
MXAccess needs a 32-bit one. This module starts it, shows its answers, and writes them to a file. When a call of
MXAccess hangs, or the process crashes, another process asks the rest.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

from mxgw_cli.children import temporary_directory
from mxgw_cli.doctor.report import Check, Report, failed, is_healthy, ok, skipped
from mxgw_cli.options import SettingsChoice
from mxgw_cli.shell import CliFailure, ExitCode, SilentFailure, run
from mxgw_core.api.errors import SettingsError
from mxgw_core.config.loader import load_settings
from mxgw_core.printable import printable
from mxgw_core.workers.interpreter import check_python, python_command
from mxgw_worker.platform import open_private, start_child

AREA = "MXAccess"
_MODULE = "mxgw_worker.backends.mxaccess.survey"
_READY_S = 120.0
# So much longer than a step's own limit is waited for its answer: the process itself ends what takes too long.
_GRACE_S = 30.0
_LEAVE_S = 10.0
# So many processes are started at most. Each but the last has ended because MXAccess hung or crashed.
_MOST_PROCESSES = 5
_LOG_LINES = 20
_TAG_NAME = re.compile(r"[^\s.\[\]]+")
_ABOUT = (
    "What `mxgw doctor --mxaccess` found out about MXAccess on one machine. Values are only those of the scratch "
    "object; the names of its attributes and of the tags that were given are in it."
)


@dataclass(frozen=True, slots=True)
class Questions:
    """What the user asks for: an object to write to ("" for none), tags to read, and the file for the answers."""

    scratch: str
    tags: Sequence[str]
    output: Path | None


def collect(choice: SettingsChoice, questions: Questions, *, as_json: bool) -> None:
    """Ask all questions, print the answers, and write them to the file.

    Raises:
        CliFailure: this machine cannot have MXAccess, or the file cannot be written.
        SilentFailure: MXAccess does not start, hung or crashed (exit code 1).
    """
    if questions.scratch and not _TAG_NAME.fullmatch(questions.scratch):
        raise CliFailure(
            f"--scratch {printable(questions.scratch, 100)} is not the tag name of an object", exit_code=ExitCode.USAGE
        )
    python = _python_of_workers(choice)
    path = questions.output or Path(time.strftime("mxaccess-facts-%Y%m%d-%H%M%S.json"))
    answers = _Answers()
    report = Report(as_json=as_json)
    with _new_file(path) as file:
        try:
            run(lambda: _ask(python, questions, answers, report))
        finally:
            # Also what was found out until Ctrl-C.
            file.write(_document(questions, answers) if answers.steps else "")
            if not answers.steps:
                file.close()
                path.unlink(missing_ok=True)
    report.finish_with_file(path)
    if not is_healthy(report.checks):
        raise SilentFailure


def _python_of_workers(choice: SettingsChoice) -> Path | None:
    try:
        python = load_settings(choice.file, overrides=choice.overrides).settings.workers.python
        if python is not None:
            check_python(python)
    except SettingsError as error:
        raise CliFailure(printable(str(error), 2000)) from None
    return python


def _new_file(path: Path) -> IO[str]:
    try:
        descriptor = open_private(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    except FileExistsError:
        raise CliFailure(f"{path} exists: name another file with --output") from None
    except OSError as error:
        raise CliFailure(f"{path} cannot be written: {error.strerror}") from None
    return os.fdopen(descriptor, "w", encoding="utf-8")


def _document(questions: Questions, answers: _Answers) -> str:
    made = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    document = {
        "about": _ABOUT,
        "mxgw": version("mxgw"),
        "made": made,
        "scratch": questions.scratch,
        "tags": list(questions.tags),
        "answers": list(answers.steps.values()),
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


@dataclass(slots=True)
class _Answers:
    """What is known so far. Key of `steps`: name of the step; a step that was begun and not ended has no outcome."""

    steps: dict[str, dict[str, Any]] = field(default_factory=dict)

    def ended(self) -> list[str]:
        return [name for name, step in self.steps.items() if "outcome" in step]


async def _ask(python: Path | None, questions: Questions, answers: _Answers, report: Report) -> None:
    for _ in range(_MOST_PROCESSES):
        request = {"scratch": questions.scratch, "tags": list(questions.tags), "done": answers.ended()}
        if await _ask_in_one_process(python, request, answers, report):
            return
    report.add(skipped(AREA, "the rest", f"{_MOST_PROCESSES} processes have not got through"))


async def _ask_in_one_process(
    python: Path | None, request: Mapping[str, object], answers: _Answers, report: Report
) -> bool:
    """Start a process and take its answers. Return False when there are questions for another process.

    Raises:
        CliFailure: this machine cannot have MXAccess.
    """
    command, environment = python_command(python, "-m", _MODULE)
    with temporary_directory("mxgw-doctor-") as directory:
        log = directory / "survey.log"
        with log.open("wb") as stderr:
            process = await start_child(
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=stderr,
                env={**os.environ, **environment},
            )
        try:
            assert process.stdin is not None
            process.stdin.write(json.dumps(request).encode() + b"\n")
            is_over, running = await _take(process, answers, report)
        finally:
            await _end(process)
        if is_over:
            return True
        if running is not None:
            said = " / ".join(log.read_text("utf-8", errors="replace").splitlines()[-_LOG_LINES:])
            _end_step(running, "failed", f"the process ended with exit code {process.returncode} in it: {said}", report)
        elif not answers.steps:
            said = printable(log.read_text("utf-8", errors="replace")[-2000:], 2000)
            raise CliFailure(f"the survey of MXAccess ended with exit code {process.returncode}: {said}")
        return False


async def _take(
    process: asyncio.subprocess.Process, answers: _Answers, report: Report
) -> tuple[bool, dict[str, Any] | None]:
    """Take answers until all are there, or the process ends. Return whether all are, and the step in which it ended."""
    assert process.stdout is not None
    running: dict[str, Any] | None = None
    limit_s, plan = _READY_S, [""]
    lines = _lines(process.stdout)
    while True:
        try:
            async with asyncio.timeout(limit_s + _GRACE_S):
                line = await anext(lines, b"")
        except TimeoutError:
            if running is not None:
                _end_step(running, "hung", f"nothing was heard for {limit_s + _GRACE_S:.0f} s", report)
            return False, None
        if not line:
            return False, running
        said = json.loads(line)
        if "refused" in said:
            raise CliFailure(str(said["refused"]))
        if "plan" in said:
            plan = [str(name) for name in said["plan"]]
        elif "begin" in said:
            limit_s = float(said["limit_s"])
            running = {"step": said["begin"], "question": said["question"], "see": said["see"]}
            answers.steps[said["begin"]] = running
            report.waiting_for(said["question"])
        elif "end" in said:
            # A step that only prepares the process is told of when it fails.
            running = answers.steps.setdefault(said["end"], {"step": said["end"], "question": said["end"]})
            running |= {"seconds": said["seconds"], "facts": said["facts"]}
            _end_step(running, said["outcome"], said["answer"], report)
            running, limit_s = None, _READY_S
            if set(plan) <= set(answers.ended()):
                return True, None


async def _lines(stream: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """Yield the lines of a stream. They can be longer than the limit of the stream's own method."""
    rest = bytearray()
    while block := await stream.read(65536):
        *whole, last = (rest + block).split(b"\n")
        for line in whole:
            yield bytes(line)
        rest = bytearray(last)


def _end_step(step: dict[str, Any], outcome: str, answer: str, report: Report) -> None:
    step["outcome"], step["answer"] = outcome, answer
    report.add(_check(str(step["question"]), outcome, answer))


def _check(question: str, outcome: str, answer: str) -> Check:
    match outcome:
        case "answered":
            return ok(AREA, question, answer)
        case "not seen" | "left out":
            return skipped(AREA, question, answer)
        case "hung":
            return failed(
                AREA, question, answer, "Look at the platform on this machine. Another process asks the rest."
            )
        case _:
            return failed(
                AREA, question, answer, "Correct it if you can, and run this again; the file has what was said."
            )


async def _end(process: asyncio.subprocess.Process) -> None:
    """Let the process release its object, and end it when that takes too long."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    try:
        async with asyncio.timeout(_LEAVE_S):
            while await process.stdout.read(65536):
                pass
            await process.wait()
    except TimeoutError:
        pass
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
    await process.wait()
