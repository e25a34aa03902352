"""The plugin: a gRPC service in the gateway, and `mxgw dashboard` on the command line. Neither imports textual."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING

import click

from mxgw.dashboard.v1 import dashboard_service_pb2 as pb
from mxgw_core.api import (
    CloseReason,
    Gateway,
    GrpcService,
    SessionInfo,
    SettingsSection,
    WorkerExit,
    WorkerIdentity,
    hookimpl,
)
from mxgw_dashboard_tui.service.journal import Journal
from mxgw_dashboard_tui.settings import DashboardSettings

if TYPE_CHECKING:
    from mxgw_dashboard_tui.service.mirrors import Mirrors


class DashboardPlugin:
    """Answers the gateway's hooks: writes the journal, and provides the gRPC service that the dashboard calls."""

    def __init__(self) -> None:
        self._settings = DashboardSettings()
        self._journal = Journal(self._settings.journal_entries)
        self._gateway: Gateway | None = None
        self._mirrors: Mirrors | None = None

    @hookimpl
    def mxgw_settings(self) -> SettingsSection[DashboardSettings]:
        instead = (
            "limits.failed_attempts_per_minute and limits.failed_attempts_burst took its place, one limit for keys and "
            "logins"
        )
        former = {"login_failures_per_minute": instead}
        return SettingsSection("dashboard_tui", DashboardSettings, self._configure, former)

    def _configure(self, settings: DashboardSettings) -> None:
        self._settings = settings
        self._journal = Journal(settings.journal_entries)

    @hookimpl
    def mxgw_gateway_context(self, gateway: Gateway) -> AbstractAsyncContextManager[None]:
        return self._running(gateway)

    @asynccontextmanager
    async def _running(self, gateway: Gateway) -> AsyncIterator[None]:
        from mxgw_dashboard_tui.service.mirrors import Mirrors

        self._gateway = gateway
        async with asyncio.TaskGroup() as tasks:
            self._mirrors = Mirrors(gateway.observation, self._settings.event_interval_s, tasks)
            try:
                yield
            finally:
                self._mirrors.close()
                self._gateway = self._mirrors = None

    @hookimpl
    def mxgw_grpc_services(self, gateway: Gateway) -> Sequence[GrpcService]:
        from mxgw_dashboard_tui.service.service import SCOPES, DashboardService

        assert self._mirrors is not None  # the gateway enters the plugin's context before it calls this hook
        service = DashboardService(gateway, self._settings, self._journal, self._mirrors, version("mxgw"))
        return [GrpcService(pb.DESCRIPTOR.services_by_name["DashboardService"], service, SCOPES)]

    @hookimpl
    def mxgw_cli(self) -> Sequence[click.Command]:
        from mxgw_dashboard_tui.command import dashboard

        return [dashboard]

    # The following hooks add entries to the journal.

    @hookimpl
    def mxgw_session_opened(self, session: SessionInfo) -> None:
        self._journal.add(
            pb.JOURNAL_KIND_SESSION_OPENED, session, f"backend {session.backend}, worker {session.worker_pid}"
        )

    @hookimpl
    def mxgw_session_detached(self, session: SessionInfo) -> None:
        self._journal.add(pb.JOURNAL_KIND_SESSION_DETACHED, session, "its last subscriber left")

    @hookimpl
    def mxgw_session_closed(self, session: SessionInfo, reason: CloseReason) -> None:
        kind = pb.JOURNAL_KIND_SESSION_FAULTED if reason.is_fault else pb.JOURNAL_KIND_SESSION_CLOSED
        why = "by its client" if reason is CloseReason.CLIENT else reason.name.lower().replace("_", " ")
        detail = f"{why}: {session.close_detail}" if session.close_detail else why
        self._journal.add(kind, session, detail)
        self._journal.remember_ended(session)

    @hookimpl
    def mxgw_worker_ready(self, worker: WorkerIdentity) -> None:
        if (session := self._session(worker.session_id)) is not None:
            self._journal.add(pb.JOURNAL_KIND_WORKER_STARTED, session, f"pid {worker.pid}")

    @hookimpl
    def mxgw_worker_exited(self, worker_exit: WorkerExit) -> None:
        if (session := self._session(worker_exit.session_id)) is not None:
            code = worker_exit.exit_code
            how = "" if code is None else f", signal {-code}" if code < 0 else f", exit code {code}"
            self._journal.add(pb.JOURNAL_KIND_WORKER_EXITED, session, f"pid {worker_exit.pid}{how}")

    def _session(self, session_id: str) -> SessionInfo | None:
        return self._gateway.session(session_id) if self._gateway is not None else None
