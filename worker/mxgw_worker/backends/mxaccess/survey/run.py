"""Runs the steps of the survey one after the other, and reports each as soon as it is over."""

from __future__ import annotations

import asyncio
import platform
import struct
import sys
import time
from collections.abc import Callable, Collection, Mapping
from importlib import metadata

from mxgw_worker.backends.base import BackendUnavailable
from mxgw_worker.backends.mxaccess.com import Com, Pump
from mxgw_worker.backends.mxaccess.survey.client import Client, Hung, NotSeen, Request
from mxgw_worker.backends.mxaccess.survey.reading import Facts
from mxgw_worker.backends.mxaccess.survey.recording import Recorder
from mxgw_worker.backends.mxaccess.survey.steps import START, STEPS, Step
from mxgw_worker.backends.mxaccess.survey.zones import offset_s

# Takes one report, a JSON object: `begin` or `end` of a step, or the `plan`, which has the names of all steps.
Report = Callable[[Mapping[str, object]], None]

ANSWERED, NOT_SEEN, LEFT_OUT, FAILED, HUNG = "answered", "not seen", "left out", "failed", "hung"
_MACHINE, _REGISTRATION = "machine", "registration"
_QUESTIONS = {
    _MACHINE: "What is the machine, and which Python is it?",
    _REGISTRATION: "How are MXAccess and the consumer of alarms registered?",
}
_REGISTRATION_S = 60.0
# For so long the object may take to be released.
_END_S = 3.0


class Survey:
    """The survey in one process. `done` has the names of the steps that an earlier process has made."""

    def __init__(
        self,
        request: Request,
        report: Report,
        connect: Callable[[Recorder], Com],
        pump: Pump,
        done: Collection[str] = (),
        registration: Callable[[], Mapping[str, object]] | None = None,
    ) -> None:
        self._request = request
        self._report = report
        self._connect = connect
        self._pump = pump
        self._done = done
        self._registration = registration

    async def run(self) -> bool:
        """Make all steps. Return False when a call has hung, after which only the end of this process helps."""
        self._report({"plan": [_MACHINE, _REGISTRATION, START.name, *(step.name for step in STEPS)]})
        for name, find in ((_MACHINE, machine), (_REGISTRATION, self._registration)):
            if name not in self._done and find is not None:
                self._begin(name, _QUESTIONS[name], "docs/reference/mxaccess.md#identifiers", _REGISTRATION_S)
                facts = dict(find())
                self._end(name, ANSWERED, _summary(name, facts), facts, 0.0)
        client = Client(self._connect, self._pump, self._request)
        is_hung = False
        try:
            await self._ask(client)
        except _IsHung:
            is_hung = True
        finally:
            # Also when the survey is cancelled: MXAccess is not to keep a client that has left.
            await client.end(0.0 if is_hung else _END_S)
        return not is_hung

    async def _ask(self, client: Client) -> None:
        left = [step for step in STEPS if step.name not in self._done]
        has_object = await self._made(START, client, is_silent=START.name in self._done)
        for step in left:
            if why := step.left_out(self._request) or ("" if has_object else "there is no object to ask"):
                self._leave_out(step, why)
            else:
                await self._made(step, client)

    async def _made(self, step: Step, client: Client, *, is_silent: bool = False) -> bool:
        """Make a step. Return False when there is no object.

        Raises:
            _IsHung: a call has hung; this was reported.
        """
        facts: Facts = {}
        outcome, has_object = ANSWERED, True
        began = time.perf_counter()
        if not is_silent:
            self._begin(step.name, step.question, step.see, step.limit_s)
        try:
            answer = await self._bounded(step, client, facts)
        except NotSeen as error:
            outcome, answer = NOT_SEEN, str(error)
            has_object = step is not START
        except (BackendUnavailable, OSError) as error:
            outcome, answer, has_object = FAILED, str(error), False
            facts["said"] = [
                {"call": method, "hresult": f"{hresult & 0xFFFFFFFF:#010x}", "text": text}
                for method, hresult, text in client.recorder.words
            ]
        except Hung as error:
            self._end(step.name, HUNG, str(error), facts, time.perf_counter() - began)
            raise _IsHung from None
        except Exception as error:
            # A step that meets what nobody thought of must not take the others with it.
            outcome, answer = FAILED, f"{type(error).__name__}: {error}"
        if not is_silent or outcome != ANSWERED:
            self._end(step.name, outcome, answer, facts, time.perf_counter() - began)
        return has_object

    async def _bounded(self, step: Step, client: Client, facts: Facts) -> str:
        try:
            async with asyncio.timeout(step.limit_s):
                return await step.run(client, facts)
        except TimeoutError:
            client.check_busy(1.0)
            raise NotSeen(f"it took more than {step.limit_s:g} s") from None

    def _leave_out(self, step: Step, why: str) -> None:
        self._begin(step.name, step.question, step.see, step.limit_s)
        self._end(step.name, LEFT_OUT, why, {}, 0.0)

    def _begin(self, name: str, question: str, see: str, limit_s: float) -> None:
        self._report({"begin": name, "question": question, "see": see, "limit_s": limit_s})

    def _end(self, name: str, outcome: str, answer: str, facts: Mapping[str, object], seconds: float) -> None:
        self._report({"end": name, "outcome": outcome, "answer": answer, "seconds": round(seconds, 3), "facts": facts})


class _IsHung(Exception):
    """The survey cannot go on in this process."""


def machine() -> Facts:
    """Return what matters of this machine. Its name and its users are not among it."""
    packages = {}
    for name in ("mxgw", "comtypes", "protobuf"):
        try:
            packages[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # it runs from a directory of sources
            packages[name] = ""
    return {
        "system": platform.platform(),
        "python": platform.python_version(),
        "bits": struct.calcsize("P") * 8,
        "packages": packages,
        "local_time_is_ahead_of_utc_by_s": offset_s(),
        "zone": list(time.tzname),
        "encoding": sys.getfilesystemencoding(),
        "date": time.strftime("%x %X"),
    }


def _summary(name: str, facts: Facts) -> str:
    if name == _MACHINE:
        return (
            f"{facts['system']}, Python {facts['python']} with {facts['bits']} bits, local time"
            f" {facts['local_time_is_ahead_of_utc_by_s'] / 3600:+g} h from UTC"
        )
    found = facts["class"]
    version = found.get("library_file", {}).get("version", "without a version")
    library = f"{found['library']} ({version})" if found["library"] else "MXAccess is not registered"
    return f"{library}; alarm consumers: {len(facts['alarm_consumers'])}"
