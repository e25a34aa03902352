"""What holds for every file of the repository (docs/development.md, house rules)."""

from __future__ import annotations

import ast
import re

import pytest
from support.repository import ROOT, doc_of, files, shown, sources

MODULE_LINES = 400

# Written in pieces, so that this file does not find itself.
_REGISTRY_HOSTS = [".".join(parts) for parts in (("pypi", "org"), ("files", "pythonhosted", "org"), ("npmjs", "com"))]
_MACHINE_PATH = re.compile(r"(?<![\w./~-])/(?:home|root|Users|work|mnt)/\w+")
_TEXT = {".py", ".pyi", ".md", ".toml", ".proto", ".sh", ".yml", ".yaml", ".cfg", ".ini", ".service", ".txt", ""}


def text_files() -> list[tuple[str, str]]:
    # A pepper has no suffix either, and is no text.
    return [(shown(path), path.read_text()) for path in files() if path.suffix in _TEXT and path.name != "pepper"]


def test_no_file_names_a_package_registry() -> None:
    wrong = [f"{name}: {host}" for name, text in text_files() for host in _REGISTRY_HOSTS if host in text]

    assert not wrong


def test_no_file_holds_a_path_of_one_machine() -> None:
    wrong = [f"{name}: {found[0]}" for name, text in text_files() if (found := _MACHINE_PATH.search(text))]

    assert not wrong


def test_every_module_of_more_than_400_lines_says_why_it_is_not_split() -> None:
    wrong: list[str] = []
    for path in sources():
        if path.name.startswith("test_"):
            continue  # a list of behaviours may be as long as it needs
        lines = path.read_text().count("\n")
        if lines > MODULE_LINES and not re.search(r"\blines\b", doc_of(path)):
            wrong.append(f"{shown(path)} has {lines} lines: split it, or say in its docstring why it has so many lines")

    assert not wrong


def test_every_module_has_a_docstring() -> None:
    wrong = [shown(path) for path in sources() if path.stat().st_size and not doc_of(path)]

    assert not wrong


def test_every_public_class_and_function_of_the_api_and_the_client_has_a_docstring() -> None:
    wrong: list[str] = []
    for path in sources("mxgw_core", "mxgw_client"):
        if not shown(path).startswith(("mxgw_core/api/", "clients/python/")) or path.name.startswith("_"):
            continue
        for node in ast.parse(path.read_text()).body:
            if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if not node.name.startswith("_") and not ast.get_docstring(node):
                wrong.append(f"{shown(path)}: {node.name}")

    assert not wrong


@pytest.mark.parametrize("name", [".ci/run", "scripts/generate_protos.sh"])
def test_scripts_can_be_run(name: str) -> None:
    assert (ROOT / name).stat().st_mode & 0o111
