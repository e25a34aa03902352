"""The plugin: a history store for sessions whose events a recorder writes to the file."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from mxgw.v1.events_pb2 import Event, EventBatch
from mxgw_core.api import BackupEntry, BackupKind, History, HistoryPage, SettingsSection, hookimpl
from mxgw_plugin_sqlite_history.store import EventStore

log = logging.getLogger(__name__)


class SqliteHistorySettings(BaseModel):
    """The settings `[plugins.sqlite_history]`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: Path = Field(
        Path("history.db"), description="The file that mxgw-record-history writes; relative to `gateway.data_dir`."
    )
    page_events: int = Field(500, ge=1, le=10_000, description="Events read from the file at once.")


class SqliteHistoryPlugin:
    """Opens the file when the gateway starts. If no recorder has made the file yet, an empty file is made."""

    def __init__(self) -> None:
        self._settings = SqliteHistorySettings()
        self._history: SqliteHistory | None = None

    @hookimpl
    def mxgw_settings(self) -> SettingsSection[SqliteHistorySettings]:
        return SettingsSection("sqlite_history", SqliteHistorySettings, self._configure)

    def _configure(self, settings: SqliteHistorySettings) -> None:
        self._settings = settings

    @hookimpl
    def mxgw_backup(self) -> Sequence[BackupEntry]:
        file = self._settings.file
        return [BackupEntry(file, BackupKind.DATABASE)] if file.exists() else []

    @hookimpl
    def mxgw_gateway_context(self) -> AbstractAsyncContextManager[None]:
        return self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[None]:
        store = await asyncio.to_thread(EventStore, self._settings.file)
        self._history = SqliteHistory(store, self._settings.page_events)
        try:
            yield
        finally:
            self._history = None
            store.close()

    @hookimpl
    def mxgw_history(self) -> History | None:
        return self._history


class SqliteHistory:
    """Reads the file for the gateway. Threads do the reading, so that the event loop never waits for the disk."""

    def __init__(self, store: EventStore, page_events: int) -> None:
        self._store = store
        self._page_events = page_events

    async def span(self, epoch: bytes) -> tuple[int, int] | None:
        return await asyncio.to_thread(self._store.span, epoch)

    async def read(self, epoch: bytes, after: int, until: int) -> AsyncIterator[HistoryPage]:
        while after < until:
            rows = await asyncio.to_thread(self._store.read, epoch, after, until, self._page_events)
            if not rows:
                return
            for run in runs_of(rows):
                yield page_of(run)
            after = rows[-1][0]


def runs_of(rows: Sequence[tuple[int, bytes]]) -> list[list[tuple[int, bytes]]]:
    """Return the rows in several lists without missing sequences, because no event may be missing within a page."""
    runs: list[list[tuple[int, bytes]]] = []
    for row in rows:
        if runs and runs[-1][-1][0] == row[0] - 1:
            runs[-1].append(row)
        else:
            runs.append([row])
    return runs


def page_of(run: Sequence[tuple[int, bytes]]) -> HistoryPage:
    """Return consecutive events as one page."""
    batch = EventBatch(events=[Event.FromString(event) for _, event in run])
    return HistoryPage(run[0][0], run[-1][0], batch.SerializeToString())
