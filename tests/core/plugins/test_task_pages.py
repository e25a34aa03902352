"""The pages for authors show whole plugins: what is printed there is installed, and the tests printed there pass."""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]


def install(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Install the distribution that a page shows, without a build: its module and its entry points. Return the page."""
    text = (ROOT / "docs" / "plugins" / page).read_text(encoding="utf-8")
    files = dict(re.findall(r"^`([\w.]+)`:\n\n```\w+\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    project = tomllib.loads(files.pop("pyproject.toml"))["project"]
    metadata = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    groups = project["entry-points"].items()
    lines = [line for group, found in groups for line in (f"[{group}]", *(f"{k} = {v}" for k, v in found.items()))]
    (metadata / "entry_points.txt").write_text("\n".join(lines) + "\n")
    for name, code in files.items():
        (folder / name).write_text(code)
    monkeypatch.syspath_prepend(str(folder))
    return text


async def run_the_test_of(text: str) -> None:
    """Run the only test function that a page prints."""
    (code,) = (
        code
        for code in re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        if "\nasync def test_" in code
    )
    names: dict[str, Any] = {"pytest": pytest, "hashlib": hashlib}
    exec(code, names)
    (test,) = (value for name, value in names.items() if name.startswith("test_"))
    checked: Callable[[], Awaitable[None]] = test
    await checked()


@pytest.mark.asyncio
async def test_the_access_plugin_of_the_page_decides_about_callers_and_items(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await run_the_test_of(install("writing-an-access-plugin.md", tmp_path, monkeypatch))


@pytest.mark.asyncio
async def test_the_history_store_of_the_page_gives_events_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await run_the_test_of(install("writing-a-history-store.md", tmp_path, monkeypatch))
