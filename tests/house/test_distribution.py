"""The wheel and the sdist, as a user gets them: built, installed into a fresh environment, run from there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest
from support.repository import PACKAGES, ROOT, pyproject, shown, sources

VERSION = pyproject()["project"]["version"]


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build both with the build back end alone: no network, no isolation."""
    target = tmp_path_factory.mktemp("dist")
    build = "import sys\nfrom hatchling.build import build_sdist, build_wheel\nbuild_{kind}(sys.argv[1])"
    for kind in ("wheel", "sdist"):
        done = subprocess.run(
            [sys.executable, "-c", build.format(kind=kind), str(target)], cwd=ROOT, capture_output=True, text=True
        )

        assert done.returncode == 0, done.stderr
    return target


@pytest.fixture(scope="module")
def environment(distributions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel in it; what mxgw depends on comes from this one, mxgw itself does not."""
    venv = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    (wheel,) = distributions.glob("*.whl")
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "--python",
            str(venv),
            "install",
            "--quiet",
            "--no-deps",
            "--no-index",
            str(wheel),
        ],
        check=True,
        # pip says nothing about versions of itself, and asks nobody.
        env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
    )
    site = next(venv.glob("lib/python*/site-packages"))
    # Added behind the wheel's own packages, and without the .pth file of an editable install.
    (site / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n{sysconfig.get_path('platlib')}\n")
    return venv


def test_the_wheel_holds_every_module_the_generated_code_the_data_and_the_type_markers(distributions: Path) -> None:
    (wheel,) = distributions.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {path.relative_to(root.parent).as_posix() for root in PACKAGES.values() for path in sources_below(root)}

    assert wheel.name == f"mxgw-{VERSION}-py3-none-any.whl"
    assert not expected - names
    assert {f"{package}/py.typed" for package in PACKAGES} <= names
    assert "mxgw_worker/backends/sim/data/steel_week_2018.csv" in names
    assert "mxgw_worker/backends/sim/data/README.md" in names
    assert "mxgw/v1/events_pb2.pyi" in names
    assert "mxgw/v1/events.proto" in names
    assert "mxgw_cli/plugins/templates/policy/module/policy.py.template" in names
    assert "mxgw_cli/plugins/templates/service/protos/module/v1/notes.proto.template" in names
    assert not [name for name in names if name.startswith(("tests", "plugins/", "worker/", "protos/", "cli/"))]


def sources_below(root: Path) -> list[Path]:
    generated = list(root.rglob("*_pb2*.py"))
    return [path for path in sources() if path.is_relative_to(root)] + generated


def test_the_sdist_holds_what_a_packager_needs(distributions: Path) -> None:
    (sdist,) = distributions.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}

    assert {"pyproject.toml", "LICENSE", "README.md", "CHANGELOG.md", "Makefile", "settings.toml"} <= names
    assert {"tests/house/test_distribution.py", "protos/mxgw/v1/events.proto", "scripts/set_up.py"} <= names
    assert not [name for name in names if "__pycache__" in name or name.startswith((".venv", "var/"))]
    assert not {shown(path) for path in sources()} - names


def test_mxgw_runs_from_the_wheel(environment: Path) -> None:
    program = environment / "bin" / "mxgw"
    where = subprocess.run(
        [environment / "bin" / "python", "-c", "import mxgw, mxgw_core; print(mxgw.__file__, mxgw_core.__file__)"],
        capture_output=True,
        text=True,
        check=True,
        cwd=environment,
    )

    assert all(path.startswith(str(environment)) for path in where.stdout.split())

    shows_version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True, cwd=environment)
    shows_help = subprocess.run([program, "--help"], capture_output=True, text=True, check=True, cwd=environment)

    assert shows_version.stdout == f"mxgw {VERSION}\n"
    assert "demo" in shows_help.stdout


def test_the_demo_runs_from_the_wheel(environment: Path) -> None:
    done = subprocess.run(
        [environment / "bin" / "mxgw", "demo", "--seconds", "1", "--json"],
        capture_output=True,
        text=True,
        timeout=50,
        cwd=environment,
    )

    assert done.returncode == 0, done.stderr

    result = json.loads(done.stdout.splitlines()[-1])

    assert result["backend"] == "sim"
    assert result["events"] > 0
    assert result["gaps"] == result["duplicates"] == result["out_of_order"] == 0
