"""The documentation says what is so: links lead somewhere, lists are complete, printed programs run."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.repository import CODE, ROOT, anchors_of, files, plugin_directories, pyproject, shown, sources

from mxgw.v1.events_pb2 import GapReason
from mxgw_core.api import errors
from mxgw_core.api.types import CloseReason

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")

DOCUMENTS = sorted(path for path in files() if path.suffix == ".md")


def text_of(name: str) -> str:
    return (ROOT / name).read_text()


@pytest.mark.parametrize("path", DOCUMENTS, ids=shown)
def test_relative_links_lead_to_files_and_headings(path: Path) -> None:
    broken: list[str] = []
    for link in _LINK.findall(CODE.sub("", path.read_text())):
        if "://" in link or link.startswith("mailto:"):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors_of(target)):
            broken.append(link)

    assert not broken


def rows_of(name: str) -> set[str]:
    """Return what stands in code in the first column of a page's tables."""
    return set(re.findall(r"^\| `([A-Z_]+)` \|", text_of(name), re.MULTILINE))


def reasons_of(kind: type[errors.GatewayError]) -> set[str]:
    # Other tests define errors too, some of them broken on purpose.
    derived = (one for one in kind.__subclasses__() if one.__module__.startswith("mxgw"))
    return {kind.reason}.union(*map(reasons_of, derived))


def test_troubleshooting_has_every_reason_of_an_error() -> None:
    assert reasons_of(errors.GatewayError) <= rows_of("docs/troubleshooting.md")


def test_troubleshooting_has_every_close_reason() -> None:
    assert {reason.name for reason in CloseReason} <= rows_of("docs/troubleshooting.md")


def test_troubleshooting_has_every_reason_of_a_worker() -> None:
    said = {
        reason
        for path in sources("mxgw_worker")
        if not shown(path).startswith("worker/mxgw_worker/ipc/")
        for reason in re.findall(r'\breason ?= ?"([A-Z_]+)"|(?:Failure|Refused)\(\s*"([A-Z_]+)"', path.read_text())
        for reason in reason
        if reason
    }

    assert {"READ_TIMED_OUT", "WRITE_COMPLETION_MISSING", "ITEM_CHANGED"} <= said
    assert said <= rows_of("docs/troubleshooting.md")


def test_troubleshooting_names_no_reason_that_does_not_exist() -> None:
    code = "\n".join(path.read_text() for path in sources("mxgw_core", "mxgw_worker"))
    unknown = {reason for reason in rows_of("docs/troubleshooting.md") if reason not in code}

    assert not unknown


def test_concepts_explain_every_reason_of_a_gap() -> None:
    names = {name.removeprefix("GAP_REASON_") for name, _ in GapReason.items()} - {"UNSPECIFIED"}

    assert names == rows_of("docs/concepts.md")


def test_the_changelog_has_the_version() -> None:
    newest = re.search(r"^## (\S+)", text_of("CHANGELOG.md"), re.MULTILINE)

    assert newest
    assert newest[1] == pyproject()["project"]["version"]


def test_every_decision_is_listed() -> None:
    pages = {path.name for path in (ROOT / "docs" / "decisions").glob("[0-9]*.md")}

    assert pages
    assert pages == set(re.findall(r"\]\((\d{4}-[\w-]+\.md)\)", text_of("docs/decisions/README.md")))


def test_every_make_target_a_page_names_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):.*##", text_of("Makefile"), re.MULTILINE))
    named = {
        target
        for path in DOCUMENTS
        for target in re.findall(r"^(?:.*&& )?make ([a-z-]+)\b", code_of(path), re.MULTILINE)
    }

    assert {"demo", "test", "check", "format", "proto", "docs", "bench", "clean", "help"} <= targets
    assert named
    assert named <= targets


def code_of(path: Path) -> str:
    """Return what a page sets as code."""
    text = path.read_text()
    return "\n".join([*CODE.findall(text), *(f"{code}`" for code in re.findall(r"`([^`\n]+)`", CODE.sub("", text)))])


def test_every_mxgw_command_a_page_names_exists() -> None:
    from mxgw_cli.commands import COMMANDS
    from mxgw_cli.loading import commands_of
    from mxgw_core.config.models import PluginsSettings, Settings
    from mxgw_core.plugins import PluginHost

    plugins = {path.name for path in plugin_directories()}
    host = PluginHost.load(Settings(plugins=PluginsSettings(enabled=tuple(plugins))), keep_going=True)
    known = {name for section in COMMANDS.values() for name in section} | commands_of(host).commands.keys()
    known |= {"hello"}  # the example plugin's
    named = {
        name for path in DOCUMENTS for name in re.findall(r"^(?:\$ )?mxgw ([a-z]+)\b", code_of(path), re.MULTILINE)
    }

    assert {"serve", "doctor"} <= named
    assert named <= known


def test_the_readme_has_its_two_commands_in_the_first_block() -> None:
    block = CODE.search(text_of("README.md"))

    assert block
    assert re.findall(r"^make \w+", block[0], re.MULTILINE) == ["make demo", "make test"]


def programs_of(name: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", text_of(name), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Run `mxgw serve` as a process of its own, on a free port, and yield its address.

    Each program opens a session of its own, with a simulated plant of its own, so that one gateway serves all of them.
    """
    with tempfile.TemporaryDirectory(prefix="mxgw-") as directory:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "mxgw_cli", "serve", "--json", "--listen", "127.0.0.1:0"),
                *("--set", f"gateway.data_dir={directory}/d"),
            ],
            cwd=directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={key: value for key, value in os.environ.items() if not key.startswith("MXGW_")},
        )
        try:
            assert process.stdout is not None
            with process.stdout as announced:
                yield json.loads(announced.readline())["addresses"][0]
        finally:
            process.terminate()
            process.wait(60)


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ("README.md", [r"^StreamOpened\(", r"^Tank_001\.Level None BAD$", r"^Tank_001\.Level \d+\.\d+ GOOD$"]),
        ("docs/quick-start.md", [r"^level is \d+", r"^Tank_001\.Level has no good value: BAD", r"^Tank_001\.Level \d"]),
    ],
)
def test_the_program_on_the_page_runs_as_printed(page: str, expected: list[str], address: str) -> None:
    (program,) = programs_of(page)
    # Only where the gateway listens is another one.
    assert program.count("127.0.0.1:50051") == 1
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", program.replace("127.0.0.1:50051", address)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        said: list[str] = []
        deadline = time.monotonic() + 60
        while not all(any(re.match(what, line) for line in said) for what in expected):
            line = process.stdout.readline()

            assert line, process.stderr.read() if process.stderr else ""
            assert time.monotonic() < deadline, said

            said.append(line.rstrip())
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)


def test_the_commands_of_the_quick_start_work_as_printed(address: str) -> None:
    section = text_of("docs/quick-start.md").partition("## 3.")[2].partition("## 4.")[0]
    commands = [line.partition("#")[0].split() for line in section.splitlines() if line.startswith("mxgw ")]
    for name, *arguments in commands:
        endless = ["--count", "2"] if "stream" in arguments else []
        done = subprocess.run(
            [sys.executable, "-m", "mxgw_cli", *arguments, *endless],
            env={**os.environ, "MXGWCLI_GATEWAY": address},
            capture_output=True,
            text=True,
            timeout=60,
        )

        assert name == "mxgw"
        assert done.returncode == 0, (arguments, done.stderr)
        assert done.stdout.strip(), arguments
    assert len(commands) == 5


def test_the_readme_example_has_about_ten_lines() -> None:
    (program,) = programs_of("README.md")

    assert len([line for line in program.splitlines() if line.strip()]) <= 10


def test_every_file_that_the_map_on_the_development_page_names_exists() -> None:
    map_ = text_of("docs/development.md").partition("## Where things are")[2].partition("## House rules")[0]
    missing: list[str] = []
    for line in map_.splitlines():
        folder = ROOT
        for name in re.findall(r"`([\w./-]+/[\w./-]*|\w+\.py)`", line):
            path = ROOT / name if "/" in name else folder / name
            # `outbox.py` after `worker/mxgw_worker/sink.py` is in the same folder.
            folder = path if path.is_dir() else path.parent
            if not path.exists() and "NAME" not in name:
                missing.append(name)

    assert "`mxgw_core/" in map_
    assert not missing
