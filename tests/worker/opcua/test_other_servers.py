"""The table of the tests that also run against a server by another library."""

from __future__ import annotations

import re

from .node_server import HERE, entries, version

_TEST = re.compile(r"^(?:async )?def (test_\w+)\(([^)]*)\)", re.MULTILINE)


def test_every_entry_names_a_test_that_takes_a_server_once_and_with_a_reason() -> None:
    listed = entries()
    files = {entry.test.partition("::")[0] for entry in listed}
    found = {
        f"{file}::{name}"
        for file in files
        for name, arguments in _TEST.findall((HERE / file).read_text(encoding="utf-8"))
        if "demo: str" in arguments
    }

    assert [entry.test for entry in listed if entry.test not in found] == []
    assert len({entry.test for entry in listed}) == len(listed)
    assert all(entry.reason.strip() for entry in listed)


def test_the_manifest_names_one_exact_version() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", version())
