"""What `mxgw_core.testing` gives to the authors of plugins, used as they use it."""

from __future__ import annotations

from pathlib import Path

import grpc
import grpc.aio
import pytest
from support.loads import load_names, load_settings
from support.plugins import InstallPlugin
from support.recording import double_of
from support.replaying import subscribe_load

from mxgw_client import connect
from mxgw_core.api import SessionInfo, hookimpl
from mxgw_core.api.errors import SettingsError
from mxgw_core.testing import SlowReader, gateway_process, running_gateway

pytestmark = pytest.mark.asyncio


class Watching:
    """A plugin that records what became of sessions."""

    made = 0

    def __init__(self) -> None:
        type(self).made += 1
        self.ended: list[str] = []

    @hookimpl
    def mxgw_session_closed(self, session: SessionInfo) -> None:
        assert session.close_reason is not None
        self.ended.append(session.close_reason.name)


async def test_a_slow_reader_a_killed_worker_and_a_restart_in_one_process(install_plugin: InstallPlugin) -> None:
    watching = Watching()
    settings = load_settings(50, 2_000, **{"plugins.enabled": [install_plugin("watching", watching)]})
    async with running_gateway(settings) as gateway:
        async with connect(gateway.target) as client, client.open_session() as session:
            oracle = await subscribe_load(session)
            async with SlowReader(
                gateway.target, session.session_id, oracle=oracle, content=double_of, may_lose=lambda lost: False
            ) as reader:
                await reader.read_slowly(2_000, until=200)
                seen = await reader.until(lambda subscriber: subscriber.lag_events > 100)
                read = set(reader.events)
                await reader.read_until(max(read) + 1)

                assert seen.client_name == "slow reader"
                assert max(reader.events) > max(read)
                assert reader.lost == set()

                await gateway.kill_worker(session.session_id)

                assert await reader.read_to_end() == "WORKER_EXITED"

            reader.check()
            with pytest.raises(LookupError):
                await gateway.kill_worker(session.session_id)
        target, app = gateway.target, gateway.app
        await gateway.restart({"limits.sessions": 7})

        assert (gateway.target, gateway.settings.limits.sessions) == (target, 7)
        assert gateway.app is not app

        async with connect(gateway.target) as client, client.open_session() as session:
            assert gateway.api.session(session.session_id)
        with pytest.raises(SettingsError, match=r"limits\.sessions"):
            await gateway.restart({"limits.sessions": -1})

    assert watching.ended == ["WORKER_EXITED", "CLIENT"]


async def test_a_reader_that_the_gateway_refuses_says_so() -> None:
    async with running_gateway() as gateway:
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            async with SlowReader(gateway.target, "nobody"):
                pytest.fail("it attached")

    assert refusal.value.code() is grpc.StatusCode.NOT_FOUND


STORE = """
import os
from mxgw_core.api import hookimpl

class Plugin:
    @hookimpl
    def mxgw_session_opened(self, session):
        with open({path!r}, "a") as file:
            print("opened", os.getpid(), file=file)
"""


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install a plugin `store` in a directory of `sys.path`; return the file to which it writes."""
    metadata = tmp_path / "acme_store-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-store\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[mxgw.plugins]\nstore = acme_store:Plugin\n")
    (tmp_path / "acme_store.py").write_text(STORE.format(path=str(tmp_path / "store")))
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path / "store"


async def test_a_process_is_killed_and_started_again_and_its_sessions_and_plugins_are_back(store: Path) -> None:
    settings = load_settings(
        10, 500, **{"plugins.enabled": ["store", "replay", "reattach"], "plugins.required": ["store"]}
    )
    async with gateway_process(settings) as gateway:
        async with connect(gateway.target) as client, client.open_session() as session:
            await session.subscribe(*load_names(10))
            async with SlowReader(gateway.target, session.session_id) as reader:
                await reader.read_until(50)
            (worker,) = gateway.worker_pids().values()
            await gateway.kill()

            assert gateway.process is None
            assert list(gateway.worker_pids().values()) == [worker]

            await gateway.start()
            async with SlowReader(gateway.target, session.session_id, after=reader.position) as again:
                await again.read_until(100)

            assert again.opened.epoch == reader.opened.epoch
            assert again.opened.recovered
            assert again.lost == set()

            again.check()
            await gateway.kill_worker(session.session_id)
            with pytest.raises(LookupError):
                await gateway.kill_worker(session.session_id)

        assert await gateway.terminate() == 0

        with pytest.raises(RuntimeError, match=r"(?s)before it served:\nUsage.*--nonsense"):
            await gateway.start("--nonsense")

    assert len(set(lines_of(store))) == 2  # the plugin was in both runs
    assert not gateway.worker_pids()


def lines_of(file: Path) -> list[str]:
    return file.read_text().splitlines()
