"""The page of hooks says what the code says, and the example of the other page is a real, installable plugin."""

from __future__ import annotations

import ast
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import pytest

import mxgw_core.api.cli
import mxgw_core.api.errors
import mxgw_core.testing
import mxgw_worker.backends
import mxgw_worker.testing
from mxgw_core.api import hookspecs
from mxgw_core.plugins.loading import HOOKS

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "plugins" / "hooks.md").read_text(encoding="utf-8")
GUIDE = (ROOT / "docs" / "plugins" / "writing-a-plugin.md").read_text(encoding="utf-8")
EXAMPLE = ROOT / "examples" / "mxgw-plugin-hello"


def sections() -> dict[str, str]:
    parts = re.split(r"^### (\w+)$", PAGE, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def specifications() -> dict[str, ast.FunctionDef]:
    tree = ast.parse(inspect.getsource(hookspecs.Hooks))
    (hooks,) = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    return {node.name: node for node in hooks.body if isinstance(node, ast.FunctionDef)}


def words(text: str) -> str:
    return " ".join(text.split())


def test_the_page_has_a_heading_for_each_hook_in_the_same_order() -> None:
    assert tuple(sections()) == HOOKS
    assert tuple(specifications()) == HOOKS


@pytest.mark.parametrize("hook", HOOKS)
def test_signature_and_contract_on_the_page_are_those_of_the_code(hook: str) -> None:
    specification = specifications()[hook]
    returns = ast.unparse(specification.returns or ast.Constant(None))
    first = any("firstresult=True" in ast.unparse(decorator) for decorator in specification.decorator_list)
    section = sections()[hook]

    assert section.startswith(f"\n\n```python\ndef {hook}({ast.unparse(specification.args)}) -> {returns}\n```\n")
    assert ("The first answer counts." if first else "Every plugin is asked.") in section
    assert words(inspect.cleandoc(ast.get_docstring(specification) or "")) in words(section)


@pytest.mark.parametrize(
    ("page", "package"),
    [
        ("plugins", mxgw_core.api),
        ("plugins", mxgw_core.api.cli),
        ("plugins", mxgw_core.testing),
        ("backends", mxgw_worker.backends),
        ("backends", mxgw_worker.testing),
    ],
)
def test_the_reference_has_each_name_that_others_may_import(page: str, package: ModuleType) -> None:
    text = (ROOT / "docs" / page / "reference.md").read_text(encoding="utf-8")
    names = set(re.findall(r"^### (\w+)$", text, re.MULTILINE))

    assert set(package.__all__) - names == ({"Hooks"} if package is mxgw_core.api else set())


def test_the_reference_has_each_error_with_its_reason() -> None:
    text = (ROOT / "docs" / "plugins" / "reference.md").read_text(encoding="utf-8")
    errors = [one for _, one in inspect.getmembers(mxgw_core.api.errors, inspect.isclass) if one is not Mapping]
    missing = [
        one.__name__
        for one in errors
        if not re.search(
            rf"^(### {one.__name__}$|\| `{one.__name__}` \| .* `{vars(one).get('reason', '')}` \|)", text, re.MULTILINE
        )
        and "reason" in vars(one)
    ]

    assert len(errors) > 30
    assert missing == []


def test_the_guide_s_pyproject_is_the_example_s() -> None:
    shown = re.search(r"```toml\n# pyproject.toml\n(.*?)```", GUIDE, re.DOTALL)
    assert shown is not None
    real = (EXAMPLE / "pyproject.toml").read_text(encoding="utf-8")

    assert [line for line in shown[1].splitlines() if line and line not in real.splitlines()] == []


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A fresh environment in which the example was installed as a user would; its Python, and the example's tests.

    The environment borrows the packages of this one, so nothing is fetched.
    """
    folder = tmp_path_factory.mktemp("stranger")
    environment = folder / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True, timeout=60)
    (packages,) = environment.glob("lib/python*/site-packages")
    # addsitedir rather than a plain path, so that editable installs of this environment count as well.
    (packages / "borrowed.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    shutil.copytree(EXAMPLE, folder / "source", ignore=shutil.ignore_patterns("__pycache__"))
    python = environment / "bin" / "python"
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-index", "--no-deps"]
    command += ["--no-build-isolation", "--no-compile", "--disable-pip-version-check", str(folder / "source")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=55)
    assert result.returncode == 0, result.stderr
    return python, folder / "source" / "tests"


def run(python: Path, *arguments: str, **environ: str) -> str:
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("MXGW_", "PYTEST", "PYTHON"))}
    result = subprocess.run(
        [str(python), *arguments], cwd=python.parent, env=clean | environ, capture_output=True, text=True, timeout=55
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


LIST = """
import json
from mxgw_core.config import load_settings
from mxgw_core.plugins import PluginHost
host = PluginHost.load(load_settings().settings)
print(json.dumps([[r.name, r.state.value, r.distribution, r.version] for r in host.records if r.name == "hello"]))
"""


@pytest.mark.parametrize(("enabled", "state"), [("hello", "loaded"), ("", "available")])
def test_the_installed_example_is_seen(stranger: tuple[Path, Path], enabled: str, state: str) -> None:
    seen = json.loads(run(stranger[0], "-c", LIST, MXGW_PLUGINS__ENABLED=enabled))

    assert seen == [["hello", state, "mxgw-plugin-hello", "1.0.0"]]


def test_the_installed_example_s_command_is_part_of_mxgw(stranger: tuple[Path, Path]) -> None:
    command = ("-m", "mxgw_cli", "hello", "Anna")

    assert run(stranger[0], *command, MXGW_PLUGINS__ENABLED="hello") == "Hello, Anna!\n"


def test_the_example_s_own_tests_pass(stranger: tuple[Path, Path]) -> None:
    output = run(
        stranger[0], "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(stranger[1]), str(stranger[1])
    )

    assert re.search(r"^\d+ passed", output, re.MULTILINE)


def test_the_guide_s_test_is_the_example_s() -> None:
    (shown,) = re.findall(r"^@pytest.mark.asyncio\n.*?^```", GUIDE, re.MULTILINE | re.DOTALL)

    assert shown.removesuffix("```") in (EXAMPLE / "tests" / "test_hello.py").read_text(encoding="utf-8")


def test_the_index_names_every_page_for_authors() -> None:
    index = (ROOT / "docs" / "plugins" / "README.md").read_text(encoding="utf-8")
    pages = {path.name for path in (ROOT / "docs" / "plugins").glob("*.md")} - {"README.md"}

    assert pages - set(re.findall(r"\]\(([\w-]+\.md)", index)) == set()
