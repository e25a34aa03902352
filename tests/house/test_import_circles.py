"""No module imports itself by way of others: each can be read, and loaded, after what it builds on.

Every import counts, wherever in the file it stands: an import inside a function, or under TYPE_CHECKING, only hides a
circle from the interpreter, not from a reader.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest
from support.repository import ROOT, files

Graph = Mapping[str, set[str]]


def product_files() -> Iterator[Path]:
    """Yield the Python files that people wrote of every import package called `mxgw_…`, but for tests and examples."""
    for path in files():
        parts = path.relative_to(ROOT).parts
        is_ours = (
            path.suffix == ".py" and "_pb2" not in path.name and any(part.startswith("mxgw_") for part in parts[:-1])
        )
        if is_ours and parts[0] not in ("tests", "examples", "benchmarks"):
            yield path


def module_name(path: Path) -> str:
    """Return the dotted name of a file of an import package: its root is the first directory called `mxgw_…`."""
    parts = list(path.with_suffix("").parts)
    root = next(index for index, part in enumerate(parts) if part.startswith("mxgw_"))
    named = parts[root:]
    return ".".join(named[:-1] if named[-1] == "__init__" else named)


def import_graph(paths: Iterable[Path]) -> Graph:
    """Return for each module the modules among `paths` whose code it imports.

    `from package import module` imports the module, not the package beside it: that the interpreter runs the package's
    `__init__` as well is true of every import below it, and no dependency that a reader has to follow.
    """
    modules = {module_name(path): path for path in paths}
    return {name: set(_imported(name, path, modules)) - {name} for name, path in modules.items()}


def _imported(importer: str, path: Path, modules: Mapping[str, Path]) -> Iterator[str]:
    package = importer if path.name == "__init__.py" else importer.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(), path.name)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom):
            parent = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (parent, node.module)))
            for alias in node.names:
                submodule = f"{module}.{alias.name}"
                if submodule in modules:
                    yield submodule
                elif module in modules:
                    yield module


def circles(graph: Graph) -> list[list[str]]:
    """Return the modules of each circle of imports: the strongly connected components of more than one module.

    Source: Tarjan, Depth-first search and linear graph algorithms, 1972.
    """
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    path: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        order[module] = lowest[module] = len(order)
        path.append(module)
        for imported in sorted(graph[module]):
            if imported not in order:
                visit(imported)
                lowest[module] = min(lowest[module], lowest[imported])
            elif imported in path:
                lowest[module] = min(lowest[module], order[imported])
        if lowest[module] == order[module]:
            start = path.index(module)
            component = path[start:]
            del path[start:]
            if len(component) > 1:
                found.append(sorted(component))

    for module in sorted(graph):
        if module not in order:
            visit(module)
    return found


def explained(graph: Graph, circle: list[str]) -> str:
    """Return a circle as text: each of its modules with those of the circle that it imports."""
    lines = [f"    {module} imports {', '.join(sorted(graph[module] & set(circle)))}" for module in circle]
    return "\n".join([f"{len(circle)} modules import each other in a circle:", *lines])


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph = import_graph(product_files())
    found = circles(graph)

    assert {"mxgw_core.app", "mxgw_worker.main", "mxgw_client.gateway", "mxgw_acl.plugin"} <= set(graph)
    assert not found, "\n".join(explained(graph, circle) for circle in found)


MADE_UP = {
    "__init__": "",
    "plain": "import os\nfrom mxgw_made_up import hidden\n",
    "hidden": "def late():\n    from mxgw_made_up.typed import Thing\n",
    "typed": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from mxgw_made_up.room import whole\n",
    "room/__init__": "from .whole import Thing\n",
    "room/whole": "import mxgw_made_up.plain\n",
    "outside": "from mxgw_made_up import room\nfrom mxgw_made_up.plain import late\n",
}


@pytest.fixture
def made_up(tmp_path: Path) -> dict[str, Path]:
    """A small package with one circle: plain, hidden, typed and room.whole."""
    package = tmp_path / "mxgw_made_up"
    (package / "room").mkdir(parents=True)
    paths = {name: package / f"{name}.py" for name in MADE_UP}
    for name, text in MADE_UP.items():
        paths[name].write_text(text)
    return paths


def test_a_circle_is_found_through_functions_and_type_checking_and_is_named(made_up: dict[str, Path]) -> None:
    graph = import_graph(made_up.values())
    (circle,) = circles(graph)

    assert explained(graph, circle).splitlines() == [
        "4 modules import each other in a circle:",
        "    mxgw_made_up.hidden imports mxgw_made_up.typed",
        "    mxgw_made_up.plain imports mxgw_made_up.hidden",
        "    mxgw_made_up.room.whole imports mxgw_made_up.plain",
        "    mxgw_made_up.typed imports mxgw_made_up.room.whole",
    ]


@pytest.mark.parametrize("removed", ["plain", "hidden", "typed", "room/whole"])
def test_without_any_one_of_its_imports_there_is_no_circle(made_up: dict[str, Path], removed: str) -> None:
    made_up[removed].write_text("")

    assert circles(import_graph(made_up.values())) == []


def test_a_package_that_gathers_its_modules_is_a_circle_when_one_of_them_imports_the_package(
    made_up: dict[str, Path],
) -> None:
    made_up["room/whole"].write_text("from mxgw_made_up.room import Thing\n")

    assert circles(import_graph(made_up.values())) == [["mxgw_made_up.room", "mxgw_made_up.room.whole"]]
