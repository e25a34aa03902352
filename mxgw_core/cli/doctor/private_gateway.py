"""A gateway in this process for a moment: on a Unix socket in a private directory, with no plugins."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from mxgw_core.app import GatewayApp
from mxgw_core.cli.text import short_temporary_root
from mxgw_core.config.models import PluginsSettings, Settings, TlsSettings
from mxgw_core.plugins import PluginHost


@asynccontextmanager
async def private_gateway(settings: Settings) -> AsyncIterator[str]:
    """Serve with the backends, limits and workers of `settings` and nothing else of it; yield the target.

    Plugins stay out, so that nobody asks for a key and no manifest of a running gateway is touched.
    """
    with tempfile.TemporaryDirectory(prefix="mxgw-doctor-", dir=short_temporary_root()) as name:
        directory = Path(name)
        target = f"unix:{directory / 'gateway.sock'}"
        private = settings.model_copy(
            update={
                "gateway": settings.gateway.model_copy(
                    update={"listen": (target,), "data_dir": directory / "data", "drain_timeout_s": 0.5}
                ),
                "tls": TlsSettings(),
                "plugins": PluginsSettings(),
                "plugin_sections": {},
            }
        )
        app = GatewayApp(private, PluginHost.load(private))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(app.run(), name="private-gateway")
            try:
                await app.wait_ready()
                yield target
            finally:
                app.stop()
