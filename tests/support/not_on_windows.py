"""Which tests do not run on Windows, and why: tests/not_on_windows.toml, which tests/conftest.py applies there."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

LIST = Path(__file__).resolve().parents[1] / "not_on_windows.toml"
_TEST = re.compile(r"^(?:async )?def (test_\w+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Entry:
    """A directory or file of tests, or one test (`file.py::test_name`), relative to tests/; and why it does not run."""

    place: str
    reason: str

    @property
    def path(self) -> str:
        """The directory or file."""
        return self.place.partition("::")[0]

    @property
    def test(self) -> str:
        """The name of the test, or "" for all of the path."""
        return self.place.partition("::")[2]


def entries(text: str | None = None) -> list[Entry]:
    """Return the entries of the list."""
    document = tomllib.loads(LIST.read_text(encoding="utf-8") if text is None else text)
    return [Entry(place, group["reason"]) for group in document["skip"] for place in group["tests"]]


def mistakes(listed: Iterable[Entry], tests: Path) -> Iterator[str]:
    """Yield a sentence for each entry that names nothing under `tests`, gives no reason, or comes twice."""
    seen: set[str] = set()
    for entry in listed:
        path = tests / entry.path
        if entry.place in seen:
            yield f"{entry.place} is listed twice"
        seen.add(entry.place)
        if not entry.reason.strip():
            yield f"{entry.place} has no reason"
        if not path.exists():
            yield f"{entry.path} does not exist"
        elif entry.test and entry.test not in _TEST.findall(path.read_text(encoding="utf-8")):
            yield f"{entry.path} has no test {entry.test}"


class NotOnWindows:
    """A plugin of pytest: leaves out what is listed, and says at the end how much that was and why."""

    def __init__(self, listed: list[Entry], tests: Path) -> None:
        self._tests = tests
        self._whole = {tests / entry.path: entry.reason for entry in listed if not entry.test}
        self._single = {(tests / entry.path, entry.test): entry.reason for entry in listed if entry.test}
        # How many tests each reason left out; in files that cannot be imported they are counted in the source. With
        # xdist, each process that runs tests collects them all and counts, and the one that reports gets it from them.
        self._left_out: dict[str, int] = {}

    def pytest_ignore_collect(self, collection_path: Path) -> bool | None:
        """Do not import what is listed as a whole."""
        reason = self._whole.get(collection_path)
        if reason is None:
            return None
        files = collection_path.rglob("test_*.py") if collection_path.is_dir() else [collection_path]
        self._count(reason, sum(len(_TEST.findall(file.read_text(encoding="utf-8"))) for file in files))
        return True

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Skip the single tests that are listed."""
        for item in items:
            reason = self._single.get((item.path, getattr(item, "originalname", item.name)))
            if reason is not None:
                item.add_marker(pytest.mark.skip(reason=f"not on Windows: {reason}"))
                self._count(reason, 1)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """In a process of xdist that runs tests, hand the counts over."""
        output: dict[str, object] | None = getattr(session.config, "workeroutput", None)
        if output is not None:
            output["left_out"] = self._left_out

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take the counts of a process of xdist: all of them have the same."""
        self._left_out = getattr(node, "workeroutput", {}).get("left_out", self._left_out)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say what was left out."""
        terminalreporter.section("left out on Windows (tests/not_on_windows.toml)")
        for reason, count in sorted(self._left_out.items(), key=lambda pair: -pair[1]):
            terminalreporter.line(f"{count:5} {reason}")
        ran = sum(len(terminalreporter.stats.get(outcome, ())) for outcome in ("passed", "failed"))
        terminalreporter.line(f"{ran} tests ran on Windows, {sum(self._left_out.values())} were left out")

    def _count(self, reason: str, tests: int) -> None:
        self._left_out[reason] = self._left_out.get(reason, 0) + tests
