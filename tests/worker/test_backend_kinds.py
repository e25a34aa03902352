"""Kinds of backends, and the page that tells a stranger how to write one: its package is built, installed and run."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import cast

import pytest

from mxgw.convert import to_value
from mxgw.v1 import commands_pb2 as c
from mxgw_worker.backends import create_backend
from mxgw_worker.backends.base import E_NOTIMPL, Backend, BackendUnavailable
from mxgw_worker.backends.partial import PartialBackend
from mxgw_worker.testing import BrowsableScriptedBackend, ScriptedBackend, running_worker

PAGE = Path(__file__).parents[2] / "docs" / "backends" / "writing-a-backend.md"


def block_after(title: str) -> str:
    match = re.search(rf"^`{re.escape(title)}`:\n\n```\w+\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert match is not None, f"the page shows no {title}"
    return match[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build and install the page's package the ordinary way, into a directory of its own."""
    package = tmp_path_factory.mktemp("mxgw-counter")
    for name in ("pyproject.toml", "mxgw_counter.py"):
        (package / name).write_text(block_after(name))
    site = package / "site"
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps")
    subprocess.run((*pip, "--no-build-isolation", "--target", site, package), check=True)
    return site


def command_with(site: Path) -> tuple[str, ...]:
    script = f"import sys\nsys.path.insert(0, {str(site)!r})\nfrom mxgw_worker.main import main\nsys.exit(main())"
    return (sys.executable, "-I", "-c", script)


@pytest.mark.asyncio
async def test_the_pages_backend_installs_and_works(tmp_path: Path, installed: Path) -> None:
    options = {"interval_ms": 10}
    async with running_worker(tmp_path, "counter", options, command=command_with(installed)) as worker:
        server = (await worker.mx(c.MxCommand(register={"client_name": "test"}))).server_handle
        names = ("Count.Up", "Count.Step", "Count.Nothing")
        items = [c.ItemReference(item_definition=name) for name in names]
        bulk = await worker.mx(c.MxCommand(subscribe_bulk={"server_handle": server, "items": items}))
        up, step, nothing = (result.item_handle for result in bulk.bulk.items)
        writes = [
            await worker.mx(
                c.MxCommand(
                    write={
                        "server_handle": server,
                        "item_handle": item,
                        "value": to_value(value),
                        "wait_for_completion": True,
                    }
                )
            )
            for item, value in ((step, 100), (step, "x"), (up, 1))
        ]
        seen = len(worker.events)
        events = [e for e in (await worker.until_events(seen + 5))[seen:] if e.item_handle == up]
        numbers = [event.data_change.value.integer for event in events]
        wrong = next(event.data_change for event in worker.events if event.item_handle == nothing)
        other = await worker.mx(c.MxCommand(archestra_user_to_id={"server_handle": server, "user_guid": "{0}"}))

        assert worker.ready_detail == "counter 1.0"
        assert [write.statuses[0].raw_detail for write in writes] == [0, 13, 1007]
        assert [later - former for former, later in pairwise(numbers)] == [100] * (len(numbers) - 1)
        assert len(numbers) > 2
        assert (wrong.statuses[0].success, wrong.statuses[0].raw_detail) == (0, 6)
        assert (other.hresult, other.message) == (E_NOTIMPL, "this backend has no ArchestrAUserToId")


@pytest.mark.asyncio
async def test_the_pages_test_passes(tmp_path: Path, installed: Path) -> None:
    code = re.search(r"^```python\n(from mxgw.v1.commands_pb2.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert code is not None
    imported = "from mxgw_worker.testing import running_worker\n"
    assert imported in code[1]
    names: dict[str, object] = {"running_worker": partial(running_worker, command=command_with(installed))}
    exec(code[1].replace(imported, ""), names)
    test = cast("Callable[[Path], Awaitable[None]]", names["test_it_counts"])
    await test(tmp_path)


@pytest.mark.asyncio
async def test_the_pages_backend_names_a_wrong_option(tmp_path: Path, installed: Path) -> None:
    options = {"intervall_ms": 10}
    async with running_worker(tmp_path, "counter", options, command=command_with(installed)) as worker:
        assert worker.ready_detail == "backend counter has no option 'intervall_ms'; it knows 'interval_ms'"


def test_an_unknown_kind_names_the_nearest_and_all_there_are(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(installed))
    with pytest.raises(BackendUnavailable) as caught:
        create_backend("countr", {})

    assert "did you mean 'counter'?" in str(caught.value)
    assert "counter, mxaccess, opcua, sim" in str(caught.value)
    assert "mxgw.backends" in str(caught.value)


def test_a_kind_whose_package_is_broken_says_whose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "broken_backend-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-backend\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[mxgw.backends]\nbroken = nothing_like_it:Backend\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert importlib.metadata.version("broken-backend") == "1.0"

    with pytest.raises(BackendUnavailable, match=r"'broken' of broken-backend cannot be imported: .*nothing_like_it"):
        create_backend("broken", {})


def test_a_bug_inside_a_built_in_backend_is_not_taken_for_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("mxgw_worker.backends.sim")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mxgw_worker.backends.sim.backend", None)

    with pytest.raises(ModuleNotFoundError):
        create_backend("sim", {})


def _complete(backend: Backend) -> Backend:
    """Let the type checker hold a class against the protocol."""
    return backend


@pytest.mark.parametrize("kind", [ScriptedBackend, BrowsableScriptedBackend])
def test_the_scripted_backends_are_whole_backends(kind: type[ScriptedBackend]) -> None:
    methods = {name for name in vars(Backend) if not name.startswith("_")}

    assert {name for name in methods if not callable(getattr(_complete(kind()), name, None))} == set()


@pytest.mark.asyncio
async def test_a_partial_backend_answers_every_other_method_with_not_implemented() -> None:
    methods = {name for name in vars(Backend) if not name.startswith("_")} - {"info", "start", "stop"}

    assert methods == {name for name in vars(PartialBackend) if not name.startswith("_")}
    assert len(methods) == 18
