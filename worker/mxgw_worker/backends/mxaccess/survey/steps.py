"""The steps of the survey, in their order: each answers one question."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from mxgw_worker.backends.mxaccess.survey import reading, writing
from mxgw_worker.backends.mxaccess.survey.client import Client, Request
from mxgw_worker.backends.mxaccess.survey.reading import Facts

_PAGE = "docs/reference/mxaccess.md"


class Needs(enum.Enum):
    """What a step needs the user to name; its value is the sentence for a step that is left out."""

    NOTHING = ""
    TAG = "needs a tag to read: --tag Object.Attribute"
    SCRATCH = "needs an object to write to: --scratch Object"


@dataclass(frozen=True, slots=True)
class Step:
    """One question. `see` is where the documentation leaves it open, `limit_s` the most that the answer may take."""

    name: str
    question: str
    see: str
    needs: Needs
    limit_s: float
    run: Callable[[Client, Facts], Awaitable[str]]

    def left_out(self, request: Request) -> str:
        """Return "" when the request has what the step needs, otherwise what is missing."""
        missing = (self.needs is Needs.TAG and not request.tags) or (
            self.needs is Needs.SCRATCH and not request.scratch
        )
        return self.needs.value if missing else ""


def _step(
    name: str,
    question: str,
    heading: str,
    run: Callable[[Client, Facts], Awaitable[str]],
    needs: Needs = Needs.NOTHING,
    limit_s: float = 120.0,
) -> Step:
    return Step(name, question, f"{_PAGE}#{heading}", needs, limit_s, run)


# Makes the object; every other step needs it.
START = _step("start", "Which version is it, and how long does it take to start?", "methods", reading.start)

STEPS = (
    _step("tags", "What are the first events of a tag?", "first-values", reading.tags, Needs.TAG, 300.0),
    _step("wrong names", "What becomes of a wrong name?", "wrong-names", reading.wrong_names),
    _step("handles", "Which handles are given out, and again?", "handles", reading.handles),
    _step("attributes", "Does an object list its attributes?", "references", reading.attributes, Needs.SCRATCH),
    _step("types", "Which VARTYPE has each data type?", "data-types", reading.types, Needs.SCRATCH, 600.0),
    _step("references", "Which references are valid?", "references", reading.references, Needs.SCRATCH, 300.0),
    _step(
        "early write", "What becomes of a write that is too early?", "early-writes", writing.early_write, Needs.SCRATCH
    ),
    _step("writes", "How do writes of each type end?", "write-outcomes", writing.writes, Needs.SCRATCH, 600.0),
    _step("conversions", "Which values are converted?", "conversions", writing.conversions, Needs.SCRATCH, 300.0),
    _step("completion", "When does a write complete?", "events", writing.completion_times, Needs.SCRATCH, 300.0),
    _step("times", "In which type and zone do times come?", "times", writing.times, Needs.SCRATCH),
    _step("elapsed times", "How do elapsed times come and go?", "data-types", writing.elapsed, Needs.SCRATCH),
    _step("suspend", "What do Suspend and Activate do?", "events", writing.suspend, Needs.SCRATCH),
    _step("buffered", "What do buffered items report?", "events", writing.buffered, Needs.SCRATCH),
    _step(
        "supervisory",
        "Can an item be advised as supervisory?",
        "operator-and-supervisory",
        reading.supervisory,
        Needs.SCRATCH,
    ),
    _step("taking down", "Which events come too late?", "taking-down", writing.taking_down, Needs.SCRATCH),
)
