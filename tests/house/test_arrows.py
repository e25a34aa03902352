"""Who may import whom (docs/development.md): proved on `sys.modules` of real interpreters, and on the sources."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable
from functools import cache

import pytest
from support.repository import PACKAGES, belongs_to, imports_of, plugin_directories, shown, sources

import mxgw_core.api

# Imports every module of the packages named as arguments, then prints what is loaded. Modules for another platform
# cannot be imported: those of the platform layer, and those of the backend for MXAccess that call Windows.
_IMPORT_ALL = """
import importlib, pkgutil, sys
elsewhere = ".platform.posix." if sys.platform == "win32" else ".windows."
for package in sys.argv[1:]:
    root = importlib.import_module(package)
    for module in pkgutil.walk_packages(root.__path__, f"{package}.", onerror=lambda name: None):
        if not module.name.endswith(".__main__") and elsewhere not in f"{module.name}.":
            importlib.import_module(module.name)
print(*sorted(sys.modules))
"""


@cache
def modules_after(*packages: str) -> frozenset[str]:
    """Return what an interpreter of its own has loaded after every module of `packages`."""
    done = subprocess.run(
        [sys.executable, "-I", "-W", "ignore", "-c", _IMPORT_ALL, *packages], capture_output=True, text=True, timeout=50
    )

    assert done.returncode == 0, done.stderr

    return frozenset(done.stdout.split())


def among(modules: Iterable[str], *packages: str) -> set[str]:
    return {name for name in modules if any(belongs_to(name, package) for package in packages)}


def test_every_module_of_the_worker_loads_without_core_client_and_grpc() -> None:
    modules = modules_after("mxgw_worker")

    assert among(modules, "mxgw_worker.backends.sim", "mxgw_worker.ipc")
    assert not among(
        modules, "mxgw_core", "mxgw_client", "mxgw_cli", "grpc", "dynaconf", "pydantic", "click", "rich", "pluggy"
    )


def test_a_worker_that_starts_loads_no_backend_it_was_not_asked_for() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-c", "import mxgw_worker.main, sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )

    assert not among(done.stdout.split(), "mxgw_worker.backends.sim", "mxgw_worker.backends.opcua", "asyncua")


def test_every_module_of_the_client_loads_without_core_and_worker() -> None:
    modules = modules_after("mxgw_client")

    assert among(modules, "mxgw_client.gateway", "grpc")
    assert not among(modules, "mxgw_core", "mxgw_worker", "mxgw_cli", "dynaconf", "pydantic", "click", "rich", "pluggy")


def test_every_module_of_core_loads_without_plugins_and_what_belongs_to_them() -> None:
    modules = modules_after("mxgw_core")
    plugins = {name for name in modules if name.startswith("mxgw_")} - among(modules, *PACKAGES)

    assert among(modules, "mxgw_core.app", "mxgw_cli")
    assert not plugins
    assert not among(modules, "textual", "ldap3", "asyncua", "prometheus_client")


def test_core_takes_nothing_from_the_worker_but_ipc_and_the_platform_layer() -> None:
    wrong = {
        f"{shown(path)}: {name}"
        for path in sources("mxgw_core")
        for name in among(imports_of(path), "mxgw_worker")
        if not any(belongs_to(name, part) for part in ("mxgw_worker.ipc", "mxgw_worker.platform"))
        and name != "mxgw_worker"
    }

    assert not wrong
    assert not among(modules_after("mxgw_core"), "mxgw_worker.backends", "mxgw_worker.worker", "mxgw_worker.main")


def test_what_calls_plugins_and_keeps_events_knows_nothing_of_the_calls_of_clients() -> None:
    users = {
        shown(path)
        for part in ("plugins", "events")
        for path in sources("mxgw_core")
        if path.parent.name == part and among(imports_of(path), "mxgw_core.rpc")
    }

    assert not users


def test_core_knows_neither_the_client_nor_the_command_line() -> None:
    outer = ("mxgw_client", "mxgw_cli")
    users = {shown(path) for path in sources("mxgw_core") if among(imports_of(path), *outer)}

    assert not users
    assert not among(modules_after("mxgw_core"), *outer)


def test_the_command_line_imports_core_client_and_the_platform_layer_and_neither_plugins_nor_the_worker() -> None:
    modules = modules_after("mxgw_cli")

    assert among(modules, "mxgw_cli.main", "mxgw_cli.serve.run", "mxgw_core.serving", "mxgw_client")
    assert not {name for name in modules if name.startswith("mxgw_")} - among(modules, *PACKAGES)
    for path in sources("mxgw_cli"):
        ours = among(imports_of(path), "mxgw_worker")

        assert all(belongs_to(name, "mxgw_worker.platform") for name in ours), shown(path)


def test_a_command_imports_nothing_of_another_command() -> None:
    folders = {path.parent.name for path in sources("mxgw_cli") if path.name == "command.py"}
    wrong = {
        f"{shown(path)}: {name}"
        for path in sources("mxgw_cli")
        for name in imports_of(path)
        if name.startswith("mxgw_cli.") and name.split(".")[1] in folders - {path.parent.name}
    }

    assert not wrong


def test_the_contract_and_ipc_need_protobuf_and_nothing_else_of_ours() -> None:
    for path in sources("mxgw"):
        assert not among(imports_of(path), "mxgw_core", "mxgw_worker", "mxgw_client", "grpc"), shown(path)
    for path in sources("mxgw_worker"):
        if shown(path).startswith("worker/mxgw_worker/ipc/"):
            ours = among(imports_of(path), "mxgw_worker")
            allowed = ("mxgw_worker.ipc", "mxgw_worker.platform")

            assert all(among((name,), *allowed) or name == "mxgw_worker" for name in ours), shown(path)


def test_the_platform_layer_needs_the_standard_library_and_nothing_else() -> None:
    modules = [path for path in sources("mxgw_worker") if "mxgw_worker/platform/" in shown(path)]

    assert len(modules) > 3
    for path in modules:
        for name in imports_of(path):
            assert name.split(".")[0] in sys.stdlib_module_names or belongs_to(name, "mxgw_worker.platform"), name


def test_dynaconf_is_read_in_one_module() -> None:
    users = {shown(path) for path in sources(*PACKAGES) if among(imports_of(path), "dynaconf")}

    assert users == {"mxgw_core/config/merging.py"}


@pytest.mark.parametrize("package", ["textual", "ldap3", "prometheus_client"])
def test_a_plugins_library_stays_in_its_plugin(package: str) -> None:
    users = {shown(path) for path in sources(*PACKAGES) if among(imports_of(path), package)}

    assert not users


def test_plugins_import_the_api_of_core_and_no_other_part_and_no_other_plugin() -> None:
    allowed = ("mxgw", "mxgw_core.api")
    wrong: set[str] = set()
    for directory in plugin_directories():
        own = next(directory.glob("mxgw_*")).name
        for path in directory.rglob("*.py"):
            wrong |= {
                f"{shown(path)}: {name}"
                for name in imports_of(path)
                if name.partition(".")[0].startswith("mxgw")
                and name != "mxgw_core"
                and not any(belongs_to(name, package) for package in (*allowed, own))
            }

    assert not wrong


def test_a_name_that_a_plugin_imports_from_a_module_of_the_api_can_be_imported_from_the_api_itself() -> None:
    apart = ("mxgw_core.api.cli", "mxgw_core.api.errors", "mxgw_core.api.files")
    wrong = [
        f"{shown(path)}: {node.module}.{alias.name}"
        for directory in plugin_directories()
        for path in directory.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(), path.name))
        if isinstance(node, ast.ImportFrom) and belongs_to(node.module or "", "mxgw_core.api")
        for alias in node.names
        if node.module not in apart and alias.name not in mxgw_core.api.__all__
    ]

    assert not wrong


def test_examples_import_the_api_of_core_and_no_other_part() -> None:
    wrong = {
        f"{shown(path)}: {name}"
        for path in sources()
        if shown(path).startswith("examples/") and "/tests/" not in shown(path)
        for name in among(imports_of(path), "mxgw_core", "mxgw_worker")
        if name != "mxgw_core" and not belongs_to(name, "mxgw_core.api")
    }

    assert not wrong
