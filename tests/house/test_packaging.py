"""pyproject.toml against what is there: nothing is half added, and nothing comes without a reason."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import entry_points

from support.repository import PACKAGES, ROOT, plugin_directories, pyproject, shown

import mxgw_core


def plugin_packages() -> list[str]:
    return [shown(next(directory.glob("mxgw_*"))) for directory in plugin_directories()]


def test_the_wheel_has_every_package() -> None:
    listed = pyproject()["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]

    assert sorted(listed) == sorted([*map(shown, PACKAGES.values()), *plugin_packages()])


def test_every_built_in_plugin_has_its_entry_point() -> None:
    declared = pyproject()["project"].get("entry-points", {}).get("mxgw.plugins", {})
    modules = {value.partition(":")[0].partition(".")[0] for value in declared.values()}

    assert set(declared) == {directory.name for directory in plugin_directories()}
    assert modules == {path.rpartition("/")[2] for path in plugin_packages()}


def test_mypy_looks_at_every_package() -> None:
    mypy = pyproject()["tool"]["mypy"]
    parents = {path.rpartition("/")[0] for path in [*map(shown, PACKAGES.values()), *plugin_packages()]}
    names = {path.rpartition("/")[2] for path in [*map(shown, PACKAGES.values()), *plugin_packages()]}

    assert set(mypy["mypy_path"]) == parents - {""}
    assert set(mypy["packages"]) == names - {"mxgw"}  # generated code has stubs of its own


def test_every_package_is_typed() -> None:
    for package in [*map(shown, PACKAGES.values()), *plugin_packages()]:
        assert (ROOT / package / "py.typed").is_file(), f"{package} lacks py.typed"


def test_the_sdist_names_what_exists() -> None:
    named = pyproject()["tool"]["hatch"]["build"]["targets"]["sdist"]["only-include"]
    # An empty directory is not in a clone, and no reason to fail.
    missing = [name for name in named if not (ROOT / name).exists() and name != "plugins"]

    assert not missing


def test_every_dependency_says_what_it_is_for() -> None:
    section = ""
    wrong: list[str] = []
    for line in (ROOT / "pyproject.toml").read_text().splitlines():
        if opening := re.match(r"(\w[\w-]*) = \[$", line):
            section = opening[1]
        elif line == "]":
            section = ""
        elif section in ("dependencies", *pyproject()["project"]["optional-dependencies"]):
            requirement = re.match(r'\s+"([^"]+)",\s*(#\s*\S.*)?$', line)

            assert requirement, f"not one requirement to a line: {line}"

            if not requirement[2] and not requirement[1].startswith("mxgw["):
                wrong.append(requirement[1])

    assert not wrong


def test_every_lint_exception_says_why() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    block = text[text.index("\nignore = [") : text.index("]", text.index("\nignore = ["))]
    wrong = [line for line in block.splitlines()[2:] if line.strip() and not re.search(r'",\s+# \S', line)]

    assert not wrong


def test_the_running_version_is_the_one_of_pyproject() -> None:
    from importlib.metadata import version

    assert version("mxgw") == pyproject()["project"]["version"]
    assert mxgw_core.__doc__


def test_the_installed_entry_points_are_those_of_pyproject() -> None:
    declared = pyproject()["project"]["scripts"]
    installed = {e.name: e.value for e in entry_points(group="console_scripts") if e.dist and e.dist.name == "mxgw"}

    assert installed == declared, "pyproject.toml changed since the last set-up: run make set-up"


def test_examples_pin_nothing_that_mxgw_refuses() -> None:
    for path in sorted(ROOT.glob("examples/*/pyproject.toml")):
        project = tomllib.loads(path.read_text())["project"]

        assert any(re.match(r"mxgw\b", requirement) for requirement in project["dependencies"]), shown(path)
