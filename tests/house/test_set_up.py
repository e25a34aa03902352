"""`make` on a machine that lacks something says what, and an environment that is ready costs nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.repository import ROOT

BASE_PYTHON = Path(getattr(sys, "_base_executable", sys.executable))


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A directory with what the set-up needs; its name has a space on purpose."""
    return clone_in(tmp_path)


def clone_in(parent: Path) -> Path:
    directory = parent / "a clone"
    (directory / "scripts").mkdir(parents=True)
    for name in ("scripts/set_up.py", "pyproject.toml", "Makefile"):
        shutil.copy(ROOT / name, directory / name)
    return directory


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A clone with an environment that the set-up made, which takes seconds, and what it said meanwhile."""
    directory = clone_in(tmp_path_factory.mktemp("first"))
    (directory / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "mxgw"\nversion = "0"\n[project.optional-dependencies]\nopcua = []\ndev = []\n'
    )
    (directory / "backend.py").write_text(_BACKEND)
    return directory, set_up(directory, "opcua")


@pytest.fixture
def no_venv(tmp_path: Path) -> str:
    """A directory for PYTHONPATH in which `python -m venv` fails as it does on Debian without its package."""
    fake = tmp_path / "modules" / "venv"
    fake.mkdir(parents=True)
    (fake / "__init__.py").write_text("")
    (fake / "__main__.py").write_text("raise SystemExit('The virtual environment was not created: no ensurepip')")
    return str(fake.parent)


def set_up(
    clone: Path, *extras: str, python: tuple[str, ...] = (), **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(BASE_PYTHON), *(python or (str(clone / "scripts" / "set_up.py"),)), *extras],
        cwd=clone,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=50,
    )


def test_a_python_that_is_too_old_is_told_so(clone: Path) -> None:
    pretend = (
        "import runpy, sys; sys.version_info = (3, 9, 1); sys.version = '3.9.1 (old)'; "
        "sys.argv = ['set_up.py', 'opcua']; runpy.run_path('scripts/set_up.py', run_name='__main__')"
    )
    done = set_up(clone, python=("-c", pretend), PATH=str(clone))

    assert done.returncode == 1
    assert "needs Python 3.11 or newer" in done.stderr
    assert "is 3.9.1" in done.stderr
    assert "make PYTHON=" in done.stderr


def test_a_python_without_ensurepip_is_told_which_package_to_install(clone: Path, no_venv: str) -> None:
    done = set_up(clone, "opcua", PYTHONPATH=no_venv)

    assert done.returncode == 1
    assert f"apt install python3.{sys.version_info[1]}-venv" in done.stderr


def test_an_environment_that_does_not_run_is_removed_and_made_anew(clone: Path, no_venv: str) -> None:
    (clone / ".venv" / "bin").mkdir(parents=True)
    (clone / ".venv" / "bin" / "python").symlink_to("/nonexistent/python")
    done = set_up(clone, "opcua", PYTHONPATH=no_venv)

    assert "virtual environment ..." in done.stderr
    assert not (clone / ".venv").exists()


def test_packages_that_cannot_be_had_show_what_pip_said(
    clone: Path, first: tuple[Path, subprocess.CompletedProcess[str]]
) -> None:
    # An environment with pip and without a package, so that the set-up goes on to the packages at once.
    shutil.copytree(first[0] / ".venv", clone / ".venv", symlinks=True)
    (clone / ".venv" / "set-up.json").unlink()
    (clone / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "missing"\nbackend-path = ["."]\n'
        '[project]\nname = "mxgw"\nversion = "0"\n'
    )
    done = set_up(clone, "opcua")

    assert done.returncode == 1
    assert "packages could not be installed" in done.stderr
    assert "missing" in done.stderr
    assert not (clone / ".venv" / "set-up.json").exists()


def test_an_environment_that_is_ready_is_left_alone_until_pyproject_changes(
    first: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    clone, made = first

    assert made.returncode == 0, made.stderr
    assert "virtual environment" in made.stderr

    again = set_up(clone, "opcua")

    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")

    more = set_up(clone, "dev")

    assert "mxgw and what it needs" in more.stderr
    assert "virtual environment ..." not in more.stderr
    assert json.loads((clone / ".venv" / "set-up.json").read_text())["extras"] == ["dev", "opcua"]
    assert set_up(clone, "opcua").stderr == ""

    with (clone / "pyproject.toml").open("a") as file:
        file.write("# changed\n")

    assert "mxgw and what it needs" in set_up(clone, "opcua").stderr


# A build back end without any dependency: the tests above are about the set-up and need no package index.
_BACKEND = """
import pathlib, zipfile

def _wheel(directory):
    name = "mxgw-0-py3-none-any.whl"
    with zipfile.ZipFile(pathlib.Path(directory) / name, "w") as wheel:
        wheel.writestr("mxgw-0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: mxgw\\nVersion: 0\\n"
                       "Provides-Extra: opcua\\nProvides-Extra: dev\\n")
        wheel.writestr("mxgw-0.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("mxgw-0.dist-info/RECORD", "")
    return name

def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    return _wheel(wheel_directory)

def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    return _wheel(wheel_directory)
"""


def test_help_lists_every_target(clone: Path) -> None:
    done = subprocess.run(["make"], cwd=clone, capture_output=True, text=True, check=True)

    for target in ("demo", "test", "check", "format", "proto", "docs", "bench", "clean"):
        assert f"\n  {target} " in done.stdout
    assert not (clone / ".venv").exists()
