"""The tests under Windows Python: what they need is pinned, what does not run there is listed with its reason."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from support import not_on_windows, wine
from support.not_on_windows import Entry
from support.repository import ROOT, pyproject

_PIN = re.compile(r"^(?P<name>[\w.-]+)==(?P<version>\S+)(?P<hashes>(?: --hash=sha256:[0-9a-f]{64}){1,2})$")
# What the tests under Windows import, of the extras.
_EXTRAS = ("opcua", "acl", "dashboard", "metrics")


def pins(name: str) -> dict[str, str]:
    """Return the versions of a requirements file by name; its lines that are no pin fail the test."""
    lines = [line for line in (wine.SCRIPTS / name).read_text().splitlines() if line and not line.startswith("#")]
    matches = [_PIN.match(line) for line in lines]

    assert all(matches), [line for line, match in zip(lines, matches, strict=True) if not match]

    return {canonicalize_name(match["name"]): match["version"] for match in matches if match}


@pytest.fixture
def set_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The script, with a cache of its own."""
    monkeypatch.setenv(wine.CACHE_VARIABLE, str(tmp_path))
    spec = importlib.util.spec_from_file_location("windows_set_up", wine.SCRIPTS / "set_up.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_test_that_is_left_out_on_windows_exists() -> None:
    assert not list(not_on_windows.mistakes(not_on_windows.entries(), ROOT / "tests"))


def test_an_entry_that_names_nothing_is_a_mistake() -> None:
    wrong = [Entry("nowhere", "x"), Entry("house/test_windows_tests.py::test_nothing", "x"), Entry("system", " ")]

    assert list(not_on_windows.mistakes([*wrong, wrong[2]], ROOT / "tests")) == [
        "nowhere does not exist",
        "house/test_windows_tests.py has no test test_nothing",
        "system has no reason",
        "system is listed twice",
        "system has no reason",
    ]


def test_every_windows_package_has_one_version_and_a_hash_for_each_of_its_wheels() -> None:
    assert pins("interpreters.txt")
    assert pins("requirements.txt")


def test_the_windows_packages_are_those_that_pyproject_asks_for() -> None:
    project, pinned = pyproject()["project"], pins("requirements.txt")
    windows = {**default_environment(), "sys_platform": "win32", "os_name": "nt", "platform_system": "Windows"}
    lines = [*project["dependencies"], *(line for extra in _EXTRAS for line in project["optional-dependencies"][extra])]
    asked = [Requirement(line) for line in lines]
    wrong = [
        str(one)
        for one in asked
        if one.marker is None or one.marker.evaluate(windows)
        if not one.specifier.contains(pinned.get(canonicalize_name(one.name), "0"))
    ]

    assert not wrong


def test_what_an_interrupted_build_left_is_never_used(set_up: ModuleType, tmp_path: Path) -> None:
    def interrupted(part: Path) -> None:
        part.mkdir()
        (part / "half").touch()
        raise KeyboardInterrupt

    def whole(part: Path) -> None:
        part.mkdir()
        (part / "all").touch()

    target = tmp_path / "debian"
    with pytest.raises(KeyboardInterrupt):
        set_up.make(target, interrupted)

    assert not target.exists()
    assert set_up.make(target, whole)
    assert [path.name for path in target.iterdir()] == ["all"]
    assert not set_up.make(target, interrupted)


def test_a_root_of_an_earlier_version_is_removed_when_nothing_used_it_lately(
    set_up: ModuleType, tmp_path: Path
) -> None:
    names = ("debian-present", "debian-used", "debian-unused", "python-unused")
    for name in names:
        (tmp_path / name).mkdir()
        if name != "debian-used":
            os.utime(tmp_path / name, (0, 0))
    set_up.remove_unused(tmp_path / "debian-present")

    assert sorted(path.name for path in tmp_path.iterdir()) == ["debian-present", "debian-used", "python-unused"]


def test_without_root_the_set_up_says_what_to_do(
    set_up: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)

    assert set_up.main() == 1

    said = capsys.readouterr().err

    assert "sudo python3 scripts/windows/set_up.py" in said
    assert "docker run --privileged" in said


def test_a_build_that_fails_says_where_its_output_is(
    set_up: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    failing = [sys.executable, "-c", "print('no way to the mirror'); raise SystemExit(3)"]
    monkeypatch.setattr(set_up, "build_debian", lambda part: set_up.logged(failing))

    assert set_up.main() == 1

    said = capsys.readouterr().err

    assert str(tmp_path / "set-up.log") in said
    assert "no way to the mirror" in said
    assert not wine.debian().exists()


def test_root_that_may_not_mount_is_told_what_to_do(
    set_up: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "unshare").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "unshare").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(PermissionError, match="may mount"):
        set_up.build_debian(tmp_path / "part")


def test_what_a_killed_set_up_has_started_ends_with_it(set_up: ModuleType, tmp_path: Path) -> None:
    for name in ("report", "input"):
        os.mkfifo(tmp_path / name)
    command = ["sh", "-c", f"exec 9>{tmp_path}/report; echo started >&9; exec cat <{tmp_path}/input"]
    code = (
        "import importlib.util, sys\n"
        f"spec = importlib.util.spec_from_file_location('set_up', {set_up.__file__!r})\n"
        "module = importlib.util.module_from_spec(spec); spec.loader.exec_module(module)\n"
        f"module.logged({command!r})"
    )
    never_ends = os.open(tmp_path / "input", os.O_RDWR)
    killed = subprocess.Popen([sys.executable, "-c", code])
    with (tmp_path / "report").open("rb") as report:
        assert report.readline() == b"started\n"

        killed.kill()
        killed.wait()

        # The file ends when the last process that writes to it has ended.
        assert report.read() == b""

    os.close(never_ends)


def test_a_machine_without_windows_names_the_command_that_makes_it(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(wine.SCRIPTS / "run_tests.py")],
        env={"PATH": "/usr/bin:/bin", wine.CACHE_VARIABLE: str(tmp_path)},
        capture_output=True,
        text=True,
    )

    assert done.returncode == 1
    assert wine.ENABLE in done.stderr
