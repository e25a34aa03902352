"""The plugin: follows every session of the gateway, writes its events, and serves them to clients that come back."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from mxgw_core.api import (
    BackupEntry,
    BackupKind,
    FollowedBatch,
    FollowedGap,
    FollowedItems,
    Follower,
    Gateway,
    History,
    HistoryPage,
    ItemRecord,
    Position,
    SessionInfo,
    SettingsSection,
    hookimpl,
)
from mxgw_core.api.errors import GatewayDraining
from mxgw_plugin_sqlite_history.store import EventStore, problem_of

log = logging.getLogger(__name__)

# When the file cannot be written, the same events are tried again after this time. Until then the gateway holds them.
_RETRY_S = 1.0


class SqliteHistorySettings(BaseModel):
    """The settings `[plugins.sqlite_history]`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: Path = Field(Path("history.db"), description="The SQLite file; relative to `gateway.data_dir`.")


class SqliteHistoryPlugin:
    """Opens the file when the gateway starts, and follows each session from the moment when it is ready."""

    def __init__(self) -> None:
        self._settings = SqliteHistorySettings()
        self._recording: Recording | None = None

    @hookimpl
    def mxgw_settings(self) -> SettingsSection[SqliteHistorySettings]:
        return SettingsSection("sqlite_history", SqliteHistorySettings, self._configure)

    def _configure(self, settings: SqliteHistorySettings) -> None:
        self._settings = settings

    @hookimpl
    def mxgw_check_settings(self) -> Sequence[str]:
        problem = problem_of(self._settings.file)
        return [f"plugins.sqlite_history.file: {problem}"] if problem else []

    @hookimpl
    def mxgw_backup(self) -> Sequence[BackupEntry]:
        file = self._settings.file
        return [BackupEntry(file, BackupKind.DATABASE)] if file.exists() else []

    @hookimpl
    def mxgw_gateway_context(self, gateway: Gateway) -> AbstractAsyncContextManager[None]:
        return self._open(gateway)

    @asynccontextmanager
    async def _open(self, gateway: Gateway) -> AsyncIterator[None]:
        store = await asyncio.to_thread(EventStore, self._settings.file)
        try:
            # The group waits for the tasks of all sessions. When it ends, the sessions have ended, and so the tasks
            # have read and written the rest.
            async with asyncio.TaskGroup() as tasks:
                self._recording = recording = Recording(gateway, store, tasks)
                yield
                recording.is_stopping = True
        finally:
            self._recording = None
            store.close()

    @hookimpl
    def mxgw_session_opened(self, session: SessionInfo) -> None:
        if self._recording is not None and not session.is_internal:
            self._recording.begin(session)

    @hookimpl
    def mxgw_history(self) -> History | None:
        return SqliteHistory(self._recording.store) if self._recording is not None else None


class Recording:
    """Writes the events of all sessions to the file, each session in a task of its own.

    Set `is_stopping` when the gateway has stopped: then a file that cannot be written is not tried again.
    """

    def __init__(self, gateway: Gateway, store: EventStore, tasks: asyncio.TaskGroup) -> None:
        self.store = store
        self.is_stopping = False
        self._gateway = gateway
        self._tasks = tasks
        # How far the earlier runs of the gateway have written each session.
        self._places = store.places()

    def begin(self, session: SessionInfo) -> None:
        """Follow a session. A new one from its first event on; one that was taken back behind what the file has."""
        place = self._places.pop(session.session_id, None)
        if place is None or place.epoch != session.epoch:
            place = Position(session.epoch, 0)
        # The hold begins here, and not when the task runs: no event is missed in between.
        follower = self._gateway.follow(session.session_id, place)
        self._tasks.create_task(self._record(follower), name=f"sqlite_history:{session.session_id}")

    async def _record(self, follower: Follower) -> None:
        items: list[ItemRecord] = []
        async with follower:
            async for followed in follower:
                match followed:
                    case FollowedItems(new):
                        items += new
                        continue
                    case FollowedBatch(first, last, events):
                        if not await self._write(follower, last, (first, last, events), items):
                            return
                    case FollowedGap(first, last):
                        log.warning(
                            "session %s: events %d to %d are lost: %s",
                            follower.session_id,
                            first,
                            last,
                            followed.detail,
                        )
                        if not await self._write(follower, last, None, items):
                            return
                items = []
                follower.acknowledge(last)

    async def _write(
        self, follower: Follower, last: int, batch: tuple[int, int, bytes] | None, items: Sequence[ItemRecord]
    ) -> bool:
        """Write, and try again while the file cannot be written. Return False when this session's recording ends here.

        An exception must not leave the task of a session: it would end the tasks of all sessions.
        """
        place = Position(follower.epoch, last)
        while True:
            try:
                await asyncio.to_thread(self.store.append, follower.session_id, place, batch, items)
                return True
            except sqlite3.OperationalError as error:
                log.warning("session %s: the file cannot be written: %s", follower.session_id, error)
                if self.is_stopping or isinstance(follower.end_error, GatewayDraining):
                    return False  # nobody holds the events for longer; the next gateway gets them from the worker
                await asyncio.sleep(_RETRY_S)
            except sqlite3.Error:
                log.exception(
                    "session %s: not recorded any further, behind %d", follower.session_id, follower.acknowledged
                )
                return False


class SqliteHistory:
    """Reads the file for the gateway. Threads do the reading, so that the event loop never waits for the disk."""

    def __init__(self, store: EventStore) -> None:
        self._store = store

    async def span(self, epoch: bytes) -> tuple[int, int] | None:
        return await asyncio.to_thread(self._store.span, epoch)

    async def read(self, epoch: bytes, after: int, until: int) -> AsyncIterator[HistoryPage]:
        while after < until and (pages := await asyncio.to_thread(self._store.pages, epoch, after, until)):
            for page in pages:
                yield page
            after = pages[-1].last_sequence
