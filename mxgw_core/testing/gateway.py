"""Runs a whole gateway inside a test, with real sockets and real worker processes, and ends it with the test."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from mxgw_core.api.gateway import Gateway
from mxgw_core.app import GatewayApp
from mxgw_core.config import load_settings
from mxgw_core.config.models import Settings
from mxgw_core.plugins import PluginHost
from mxgw_worker.platform import no_unix_sockets


@dataclass(frozen=True, slots=True)
class RunningGateway:
    """A gateway that serves calls. `target` is its address for clients; `directory` holds its private files."""

    app: GatewayApp
    settings: Settings
    plugins: PluginHost
    target: str
    directory: Path

    @property
    def api(self) -> Gateway:
        """The gateway as plugins see it."""
        return self.app.gateway


@asynccontextmanager
async def running_gateway(
    overrides: Mapping[str, object] | None = None, *, directory: Path | None = None
) -> AsyncIterator[RunningGateway]:
    """Serve a gateway while the block runs, then shut it down in order.

    `overrides` are settings by dotted key, for example `{"plugins.enabled": ["hello"], "limits.sessions": 2}`. All
    other settings have their defaults, unless `directory` has a settings.toml; environment variables are not read.
    Unless `gateway.listen` is overridden, the gateway listens on a Unix socket in `directory`; without `directory`, in
    a new temporary directory. Where there are no Unix sockets, it listens on a free port of this machine.

    Raises:
        MxgwError: the gateway cannot start with these settings.
    """
    # The path of the directory must be short, because the gateway's Unix socket is in it. Pytest's paths are too long.
    base = Path(tempfile.mkdtemp(prefix="mxgw-")) if directory is None else directory
    try:
        keys: dict[str, object] = {
            "gateway.listen": ["127.0.0.1:0" if no_unix_sockets() else f"unix:{base}/gateway.sock"],
            "gateway.data_dir": str(base / "data"),
            **(overrides or {}),
        }
        loaded = load_settings(overrides=keys, environ={}, directory=base)
        plugins = PluginHost.load(loaded.settings, origins=loaded.origins)
        app = GatewayApp(loaded.settings, plugins, origins=loaded.origins)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(app.run(), name="gateway")
            await app.wait_ready()
            if app.addresses:  # without addresses the gateway could not start, and the task group raises its error
                try:
                    yield RunningGateway(app, loaded.settings, plugins, app.addresses[0], base)
                finally:
                    app.stop()
    except BaseExceptionGroup as group:
        raise _innermost(group) from None
    finally:
        if directory is None:
            shutil.rmtree(base, ignore_errors=True)


def _innermost(error: BaseException) -> BaseException:
    """Unwrap exception groups that hold a single error; return a larger group unchanged."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
