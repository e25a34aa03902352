"""The table of the tests that also run against a server by another library."""

from __future__ import annotations

import re

from .node_server import HERE, entries, version

_TEST = re.compile(r"^(?:async )?def (test_\w+)\(([^)]*)\)", re.MULTILINE)


def _tests_that_take(fixture: str) -> set[str]:
    return {
        f"{path.name}::{name}"
        for path in HERE.glob("test_*.py")
        for name, arguments in _TEST.findall(path.read_text(encoding="utf-8"))
        if f"{fixture}: str" in arguments
    }


def test_every_entry_names_a_test_that_takes_a_server_once_and_with_a_reason() -> None:
    listed = [entry.test for entry in entries()]

    assert sorted(set(listed) - _tests_that_take("demo")) == []
    assert len(set(listed)) == len(listed)
    assert all(entry.reason.strip() for entry in [*entries(), *entries("only")])


def test_the_table_has_every_test_of_the_other_server_alone() -> None:
    assert {entry.test for entry in entries("only")} == _tests_that_take("other_server")


def test_the_manifest_names_one_exact_version() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", version())
