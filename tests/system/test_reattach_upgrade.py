"""An upgrade: workers of the previous build are taken back by this one, or refused with the reason."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path

import pytest
from support.adoption import LOAD, adopted, follow
from support.clients import client_of, refused
from support.repository import ROOT
from support.restarts import restarts

from mxgw_core.testing.checker import StreamChecker
from mxgw_worker.ipc.handshake import PROTOCOL_VERSION

pytestmark = pytest.mark.asyncio

_PACKAGES = ("protos", "worker", "clients/python", "plugins/backpressure", "plugins/reattach", "plugins/replay", ".")


def _exported(folder: Path) -> Path:
    """Write the previous commit's tree, and return where.

    The last one's where history is shallow, or the protocol of workers changed with the last commit.
    """
    archive, tree = folder / "tree.tar", folder / "tree"
    for revision in ("HEAD~1", "HEAD"):
        command = ["git", "-C", str(ROOT), "archive", "-o", str(archive), revision]
        if subprocess.run(command, capture_output=True).returncode == 0:
            with tarfile.open(archive) as tar:
                tar.extractall(tree, filter="data")
            handshake = tree / "worker" / "mxgw_worker" / "ipc" / "handshake.py"
            if handshake.exists() and f"\nPROTOCOL_VERSION = {PROTOCOL_VERSION}\n" in handshake.read_text():
                return tree
            shutil.rmtree(tree)
    raise AssertionError("git cannot export a commit whose workers speak the present protocol")


def _environment(folder: Path, tree: Path) -> str:
    """Make an environment that has the build in `tree` and borrows everything else; return its Python."""
    environment = folder / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True, timeout=60)
    (packages,) = environment.glob("lib/python*/site-packages")
    places = [str(tree / name) for name in _PACKAGES]
    # Before everything borrowed, so that the editable install of this build does not count.
    (packages / "a_build.pth").write_text(f"import sys; sys.path[:0] = {places!r}\n")
    (packages / "b_borrowed.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    return str(environment / "bin" / "python")


@pytest.fixture(scope="module")
def previous(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """The previous build's Python, and its tree."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("needs the history of the repository")
    folder = tmp_path_factory.mktemp("previous")
    tree = _exported(folder)
    return _environment(folder, tree), tree


async def test_a_worker_of_the_previous_build_is_taken_back(previous: tuple[str, Path]) -> None:
    python, _ = previous
    async with restarts(LOAD) as gateway:
        gateway.python = python
        await gateway.start()
        checker = StreamChecker(may_lose=lambda lost: False)
        async with client_of(gateway.target) as client:
            session = await client.open()
            await client.subscribe(session.session_id, ["Load.Item00001"])
            await follow(client, session.session_id, checker, 100)
        (worker,) = gateway.workers()

        assert worker.cmdline()[0] == python

        await gateway.kill()
        gateway.python = sys.executable
        await gateway.start()
        async with client_of(gateway.target) as client:
            assert (await adopted(client, session.session_id)).worker_pid == worker.pid

            await follow(client, session.session_id, checker, 100)
            await client.close(session.session_id)

        assert not checker.violations, checker.report()

        await gateway.all_is_gone()


@pytest.mark.parametrize("version", [PROTOCOL_VERSION - 1, PROTOCOL_VERSION + 1], ids=["older", "newer"])
async def test_a_worker_of_another_protocol_is_refused_with_the_reason_and_leaves(
    previous: tuple[str, Path], tmp_path: Path, version: int
) -> None:
    _, tree = previous
    other = tmp_path / "tree"
    shutil.copytree(tree, other)
    handshake = other / "worker" / "mxgw_worker" / "ipc" / "handshake.py"
    line = f"PROTOCOL_VERSION = {version}"
    text, count = re.subn(r"^PROTOCOL_VERSION = \d+", line, handshake.read_text(), flags=re.MULTILINE)

    assert count == 1

    handshake.write_text(text)
    async with restarts(LOAD) as gateway:
        gateway.python = _environment(tmp_path, other)
        await gateway.start()
        async with client_of(gateway.target) as client:
            session = await client.open()
        await gateway.kill()
        gateway.python = sys.executable
        await gateway.start()
        async with client_of(gateway.target) as client:
            await gateway.all_is_gone()
            refusal = await refused(client.stream(session.session_id))

            assert refusal.metadata["close_reason"] == "WORKER_EXITED"
        assert (
            f"PROTOCOL_VERSION: the worker speaks protocol version {version}, this gateway {PROTOCOL_VERSION}"
            in gateway.log
        )
        assert "refused connections: PROTOCOL_VERSION" in gateway.log
