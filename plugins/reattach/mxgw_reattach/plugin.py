"""The hooks of the plugin: they record the life of each worker in the manifest, and return the recorded workers to the
next gateway.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from mxgw_core.api import (
    BackupEntry,
    CloseReason,
    EndedSession,
    Gateway,
    Orphan,
    OrphanVerdict,
    SessionInfo,
    SettingsSection,
    WorkerExit,
    WorkerIdentity,
    WorkerProof,
    WorkerSpawn,
    hookimpl,
)
from mxgw_reattach.environment import warnings_of
from mxgw_reattach.manifest import Manifest, files_to_back_up
from mxgw_reattach.settings import ReattachSettings

log = logging.getLogger(__name__)

# The interval at which steps that could not be written are tried again.
_AGAIN_S = 2.0


class ReattachPlugin:
    """Says how long workers outlive the gateway, records what adoption needs, and returns ADOPT for every orphan."""

    def __init__(self) -> None:
        self._settings = ReattachSettings()
        self._open: Manifest | None = None

    @hookimpl
    def mxgw_settings(self) -> SettingsSection[ReattachSettings]:
        return SettingsSection("reattach", ReattachSettings, self._configure)

    def _configure(self, settings: ReattachSettings) -> None:
        self._settings = settings

    @property
    def _manifest(self) -> Manifest:
        if self._open is None:
            raise RuntimeError("the manifest is not open: the gateway is not running")
        return self._open

    @hookimpl
    def mxgw_gateway_context(self, gateway: Gateway) -> AbstractAsyncContextManager[None]:
        return self._running(gateway)

    @asynccontextmanager
    async def _running(self, gateway: Gateway) -> AsyncIterator[None]:
        manifest = self._open = Manifest.open(
            gateway.data_dir, gateway.data_dir_id, remembered=gateway.remembered_sessions
        )
        log.info("workers outlive this gateway (%s), %d known of an earlier run", manifest.instance, len(manifest))
        try:
            async with asyncio.TaskGroup() as tasks:
                checking = tasks.create_task(self._check_environment(), name="reattach:environment")
                writing = tasks.create_task(self._write_waiting(manifest), name="reattach:manifest")
                try:
                    yield
                finally:
                    checking.cancel()
                    writing.cancel()
        finally:
            self._open = None
            manifest.close()

    async def _write_waiting(self, manifest: Manifest) -> None:
        while True:
            await asyncio.sleep(_AGAIN_S)
            manifest.write_waiting()

    async def _check_environment(self) -> None:
        """Log a warning when systemd or a container would end the workers together with the gateway.

        The check can take seconds, so it runs as a task while the gateway starts.
        """
        if self._settings.check_environment:
            for warning in await asyncio.to_thread(warnings_of):
                log.warning("%s", warning)

    @hookimpl
    def mxgw_backup(self, data_dir: Path) -> Sequence[BackupEntry]:
        return files_to_back_up(data_dir)

    # the steps of a worker's life

    @hookimpl
    def mxgw_orphan_lifetime(self, spawn: WorkerSpawn) -> float:
        del spawn
        return self._settings.max_orphan_lifetime_seconds

    @hookimpl
    def mxgw_worker_spawning(self, spawn: WorkerSpawn) -> None:
        self._manifest.announced(spawn, self._settings.max_orphan_lifetime_seconds)

    @hookimpl
    def mxgw_worker_started(self, worker: WorkerIdentity) -> None:
        self._manifest.started(worker)

    @hookimpl
    def mxgw_worker_proved(self, proof: WorkerProof) -> None:
        self._manifest.proved(proof)

    @hookimpl
    def mxgw_worker_ready(self, worker: WorkerIdentity) -> None:
        self._manifest.ready(worker)

    @hookimpl
    def mxgw_worker_stopping(self, worker: WorkerIdentity, reason: CloseReason) -> None:
        self._manifest.closing(worker, reason)

    @hookimpl
    def mxgw_worker_exited(self, worker_exit: WorkerExit) -> None:
        self._manifest.gone(worker_exit.session_id, worker_exit.close_reason, worker_exit.close_detail)

    @hookimpl
    def mxgw_session_attached(self, session: SessionInfo) -> None:
        self._manifest.attached(session.session_id)

    # what the gateway asks for after a restart

    @hookimpl
    def mxgw_ended_sessions(self) -> Sequence[EndedSession]:
        return self._manifest.ended()

    @hookimpl
    def mxgw_orphans(self) -> Sequence[Orphan]:
        orphans: Iterable[Orphan] = self._manifest.orphans(self._settings.adopt_within_seconds)
        return tuple(orphans)

    @hookimpl
    def mxgw_orphan_verdict(self, orphan: Orphan) -> OrphanVerdict:
        # The gateway and other plugins check whether there is a reason not to adopt the orphan.
        del orphan
        return OrphanVerdict.ADOPT
