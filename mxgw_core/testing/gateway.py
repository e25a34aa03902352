"""Runs a whole gateway inside a test, with real sockets and real worker processes, and ends it with the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from mxgw_core.api.gateway import Gateway
from mxgw_core.app import GatewayApp
from mxgw_core.config import load_settings
from mxgw_core.config.models import Settings
from mxgw_core.exception_groups import only_error
from mxgw_core.plugins import PluginHost
from mxgw_core.testing.directories import private_directory
from mxgw_core.testing.waiting import until
from mxgw_worker.platform import HeldProcess, no_unix_sockets


class RunningGateway:
    """A gateway that serves calls. Made by `running_gateway`.

    Attributes:
        directory: holds the gateway's private files, and keeps them over a `restart`.
        target: the address for clients. After a `restart` it is the same, unless `gateway.listen` names port 0.
        app, settings, plugins: the gateway itself. A `restart` replaces them.
    """

    app: GatewayApp
    settings: Settings
    plugins: PluginHost
    target: str

    def __init__(self, directory: Path, overrides: Mapping[str, object], tasks: asyncio.TaskGroup) -> None:
        self.directory = directory
        self._overrides = dict(overrides)
        self._tasks = tasks
        # The task that serves. It ends after `app.stop()`.
        self._serving: asyncio.Task[None] | None = None

    @property
    def api(self) -> Gateway:
        """The gateway as plugins see it."""
        return self.app.gateway

    def plugin(self, name: str) -> Any:
        """Return the object that the gateway has loaded as plugin `name`. A `restart` makes another one.

        Raises:
            LookupError: no plugin of this name is loaded.
        """
        return self.plugins.plugin(name)

    async def start(self) -> None:
        """Serve; called by `running_gateway` and `restart`.

        Raises:
            MxgwError: the gateway cannot start with these settings.
        """
        loaded = load_settings(overrides=self._overrides, environ={}, directory=self.directory)
        self.settings = loaded.settings
        self.plugins = PluginHost.load(loaded.settings, origins=loaded.origins)
        self.app = GatewayApp(loaded.settings, self.plugins, origins=loaded.origins)
        self._serving = self._tasks.create_task(self.app.run(), name="gateway")
        await self.app.wait_ready()
        if not self.app.addresses:
            # The gateway could not start. The task group has the error, and cancels this task.
            await asyncio.wait({self._serving})
            raise RuntimeError("the gateway was stopped before it served")
        self.target = self.app.addresses[0]

    async def restart(self, overrides: Mapping[str, object] | None = None) -> None:
        """Shut the gateway down in order, and start another one on the same directory, with the same settings.

        Plugins are made anew, from the same installed distributions. `overrides` are settings that change, as for
        `running_gateway`. To end a gateway without order, as a crash does, use `gateway_process` and `kill`.

        Example:
            async with running_gateway({"plugins.enabled": ["my_store"]}) as gateway:
                await record_something(gateway.target)
                await gateway.restart()
                assert await what_is_stored(gateway.target)

        Raises:
            MxgwError: the gateway cannot start with these settings.
        """
        assert self._serving is not None
        self.app.stop()
        await asyncio.wait({self._serving})
        self._overrides |= overrides or {}
        await self.start()

    async def kill_worker(self, session_id: str) -> None:
        """Kill the worker process of a session, and wait until the gateway has ended the session for it.

        Raises:
            LookupError: no live session has this id.
        """
        session = self.api.session(session_id)
        if session is None or not session.worker_pid:
            raise LookupError(f"no session {session_id!r} with a worker is live")
        worker = HeldProcess(session.worker_pid)
        worker.kill()
        worker.close()
        await until(lambda: self.api.session(session_id) is None)


@asynccontextmanager
async def running_gateway(
    overrides: Mapping[str, object] | None = None, *, directory: Path | None = None
) -> AsyncIterator[RunningGateway]:
    """Serve a gateway while the block runs, then shut it down in order.

    `overrides` are settings by dotted key, for example `{"plugins.enabled": ["hello"], "limits.sessions": 2}`. All
    other settings have their defaults, unless `directory` has a settings.toml; environment variables are not read.
    Unless `gateway.listen` is overridden, the gateway listens on a Unix socket in `directory`; without `directory`, in
    a new temporary directory. Where there are no Unix sockets, it listens on a free port of this machine.

    Example:
        async with running_gateway({"plugins.enabled": ["hello"]}) as gateway:
            async with connect(gateway.target) as client, client.open_session() as session:
                ...

    Raises:
        MxgwError: the gateway cannot start with these settings.
    """
    with private_directory(directory) as base:
        keys = {
            "gateway.listen": ["127.0.0.1:0" if no_unix_sockets() else f"unix:{base}/gateway.sock"],
            "gateway.data_dir": str(base / "data"),
            **(overrides or {}),
        }
        try:
            async with asyncio.TaskGroup() as tasks:
                gateway = RunningGateway(base, keys, tasks)
                await gateway.start()
                try:
                    yield gateway
                finally:
                    gateway.app.stop()
        except BaseExceptionGroup as group:
            raise only_error(group) from None
