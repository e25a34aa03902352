"""The plugin in a running gateway: what happens when the manifest cannot be written, and what never shows a secret."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from support.clients import client_of, refused

from mxgw_core.api import CloseReason
from mxgw_core.testing import RunningGateway, running_gateway
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
        assert len(_manifest(gateway)) == 2

        for session in (before, after):
            await client.close(session.session_id)

        assert len(_manifest(gateway)) == 0


async def test_a_session_whose_end_cannot_be_written_ends_all_the_same() -> None:
    async with running_gateway(SETTINGS) as gateway, client_of(gateway.target) as client:
        session = await client.open()
        with _unwritable(_manifest(gateway)):
            await client.close(session.session_id)

        assert len(_manifest(gateway)) == 1, "the next start finds that its process is gone, and forgets it"


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
        registry = gateway.app._registry

        assert registry is not None

        session = registry.get(opened.session_id)
        session.close(CloseReason.CLIENT)
        session.release()
        await session.closed

        assert session.close_reason is CloseReason.CLIENT
        assert len(_manifest(gateway)) == 0
