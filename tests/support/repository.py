"""The repository for the tests of its rules: its files, its pyproject.toml and its imports."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

CODE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
ROOT = Path(__file__).resolve().parent.parent.parent

# Key: an import package. Value: its directory. The plugins are found and added separately.
PACKAGES = {
    "mxgw": ROOT / "protos" / "mxgw",
    "mxgw_core": ROOT / "mxgw_core",
    "mxgw_worker": ROOT / "worker" / "mxgw_worker",
    "mxgw_client": ROOT / "clients" / "python" / "mxgw_client",
    "mxgw_cli": ROOT / "cli" / "mxgw_cli",
}


@cache
def pyproject() -> dict[str, Any]:
    """Return the content of pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@cache
def files() -> tuple[Path, ...]:
    """Return every file of the repository.

    With git, these are the files that git tracks; in an unpacked release, all files.
    """
    if (ROOT / ".git").exists():
        listed = subprocess.run(
            # As root, git refuses a repository of another user without this option.
            ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z"],
            cwd=ROOT,
            capture_output=True,
            check=True,
        )
        paths = [ROOT / name.decode() for name in listed.stdout.split(b"\0") if name]
    else:
        paths = [path for path in ROOT.rglob("*") if not any(part.startswith(".") for part in path.parts)]
    return tuple(path for path in paths if path.is_file() and "__pycache__" not in path.parts)


def sources(*packages: str) -> Iterator[Path]:
    """Yield the Python files that are not generated, of these import packages or of the whole repository."""
    for path in files():
        if path.suffix != ".py" or "_pb2" in path.name:
            continue
        if not packages or any(path.is_relative_to(PACKAGES[name]) for name in packages):
            yield path


def plugin_directories() -> list[Path]:
    """Return the directories of the built-in plugins."""
    return sorted(
        path.parent.parent for path in files() if path.relative_to(ROOT).match("plugins/*/mxgw_*/__init__.py")
    )


@cache
def doc_of(path: Path) -> str:
    """Return the docstring of a Python file, or "" without one."""
    return ast.get_docstring(ast.parse(path.read_text(), path.name)) or ""


@cache
def imports_of(path: Path) -> frozenset[str]:
    """Return the dotted names that a file imports anywhere. `from a import b` counts as `a` and `a.b`."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(), path.name)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(names)


def belongs_to(name: str, package: str) -> bool:
    """Return True when a dotted name is `package` or lies in it."""
    return name == package or name.startswith(f"{package}.")


def shown(path: Path) -> str:
    """Return a path relative to the repository, with slashes."""
    return path.relative_to(ROOT).as_posix()


@cache
def anchors_of(page: Path) -> frozenset[str]:
    """Return the anchors that GitHub makes for the headings of a Markdown page."""
    headings = re.findall(r"^#+ (.+)$", CODE.sub("", page.read_text()), re.MULTILINE)
    return frozenset(re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings)
