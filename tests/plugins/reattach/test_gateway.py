"""The plugin in a running gateway: what happens when the manifest cannot be written, and what never shows a secret."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from support.clients import client_of, refused
from support.waiting import until

from mxgw_core.api import CloseReason, WorkerProof
from mxgw_core.testing import RunningGateway, running_gateway
from mxgw_core.workers.session_worker import SessionWorker
from mxgw_reattach import ReattachPlugin
from mxgw_reattach.manifest import Manifest

pytestmark = pytest.mark.asyncio

SETTINGS: dict[str, object] = {"plugins.enabled": ["reattach"]}


def _manifest(gateway: RunningGateway) -> Manifest:
    plugin = gateway.plugins._plugins.get_plugin("reattach")

    assert isinstance(plugin, ReattachPlugin)

    return plugin._manifest


@contextmanager
def _unwritable(manifest: Manifest) -> Iterator[None]:
    """Let every write of the manifest fail, as on a disk that is full or gone."""
    manifest._db.execute("PRAGMA query_only = ON")
    try:
        yield
    finally:
        manifest._db.execute("PRAGMA query_only = OFF")


async def test_without_a_manifest_no_session_is_opened_and_the_old_ones_go_on() -> None:
    async with running_gateway(SETTINGS) as gateway, client_of(gateway.target) as client:
        before = await client.open()
        with _unwritable(_manifest(gateway)):
            refusal = await refused(client.open())
            await client.register(before.session_id)
        after = await client.open()

        assert refusal.reason == "WORKER_START_FAILED"
        assert "'reattach'" in refusal.text
        assert "give the gateway's user the right to write to gateway.data_dir, then try again" in refusal.text
        assert len(_manifest(gateway)) == 2

        for session in (before, after):
            await client.close(session.session_id)

        assert len(_manifest(gateway)) == 0


async def test_a_session_whose_end_cannot_be_written_ends_all_the_same_and_it_is_written_later() -> None:
    async with running_gateway(SETTINGS) as gateway, client_of(gateway.target) as client:
        session = await client.open()
        manifest = _manifest(gateway)
        with _unwritable(manifest):
            await client.close(session.session_id)

            assert len(manifest) == 1

        # The plugin's own task does it, without any further step.
        await until(lambda: len(manifest) == 0)

        assert [ended.info.close_reason for ended in manifest.ended()] == [CloseReason.CLIENT]


async def test_a_worker_that_cannot_be_recorded_as_it_proves_itself_is_refused_with_the_cause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running_gateway(SETTINGS) as gateway, client_of(gateway.target) as client:
        manifest = _manifest(gateway)
        proved = manifest.proved

        def unwritable(proof: WorkerProof) -> None:
            with _unwritable(manifest):
                proved(proof)

        monkeypatch.setattr(manifest, "proved", unwritable)
        refusal = await refused(client.open())

        assert refusal.reason == "WORKER_START_FAILED"
        assert "could not record the worker: the manifest (plugins.reattach) cannot be written" in refusal.text


async def test_no_log_shows_a_secret(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with running_gateway(SETTINGS) as gateway, client_of(gateway.target) as client:
        session = await client.open()
        (orphan,) = _manifest(gateway).orphans(1.0)
        await client.close(session.session_id)

    assert orphan.spawn.secret.hex() not in caplog.text
    assert repr(orphan.spawn.secret)[2:-1] not in caplog.text


async def test_a_session_that_is_to_be_closed_is_not_left_to_the_next_gateway() -> None:
    async with running_gateway(SETTINGS) as gateway, client_of(gateway.target) as client:
        opened = await client.open()
        registry = gateway.app.gateway._registry

        assert registry is not None

        session = registry.get(opened.session_id)
        session.close(CloseReason.CLIENT)
        session.release()
        await session.closed

        assert session.close_reason is CloseReason.CLIENT
        assert len(_manifest(gateway)) == 0


async def test_a_worker_that_cannot_be_ended_in_order_takes_no_other_session_with_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stop = SessionWorker.stop

    async def failing(worker: SessionWorker, reason: CloseReason = CloseReason.CLIENT, detail: str = "") -> None:
        await stop(worker, reason, detail)
        raise OverflowError("signed integer is greater than maximum")

    async with running_gateway(SETTINGS) as gateway, client_of(gateway.target) as client:
        spoilt, other = await client.open(), await client.open()
        with monkeypatch.context() as patched:
            patched.setattr(SessionWorker, "stop", failing)
            await client.close(spoilt.session_id)
        await client.register(other.session_id)
        registry = gateway.app.gateway._registry

        assert registry is not None
        assert [session.id for session in registry.live()] == [other.session_id]
        assert "could not be ended in order" in caplog.text

        await client.close(other.session_id)
