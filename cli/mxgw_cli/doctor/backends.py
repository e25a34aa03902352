"""Checks for each backend in the settings that a worker starts, answers and reaches its source.

The workers are started by a gateway of the command's own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import mxgw_client
from mxgw_cli.children import temporary_directory
from mxgw_cli.doctor.report import Check, failed, ok, warning
from mxgw_cli.one_key import ONE_KEY, OneKey, needs_key, new_key, own_address
from mxgw_cli.render import bytes_text, enum_words, milliseconds_text
from mxgw_client import SourceHealth, WorkerInfo, errors
from mxgw_core.app import GatewayApp
from mxgw_core.config.models import BackendSettings, PluginsSettings, Settings, TlsSettings
from mxgw_core.plugins import PluginHost

AREA = "Backends"

# How long the check waits for the worker's source to become good, once the worker is ready.
SOURCE_WAIT_S = 5.0
SOURCE_POLL_S = 0.2

_CURES = {
    "opcua": "Check that the OPC UA server runs and can be reached, and the certificates and login of the section.",
    "mxaccess": "Run it on Windows where System Platform is installed, with a 32-bit Python for the workers.",
}


async def check_backends(settings: Settings) -> AsyncIterator[Check]:
    """Check the default backend first, then the others in the order of their names; yield each result."""
    others = sorted(name for name in settings.backends if name != settings.default_backend)
    async with private_gateway(settings) as (target, key):
        start_s = settings.workers.start_timeout_s
        async with mxgw_client.connect(target, api_key=key or None, timeout_s=start_s + 5.0) as gateway:
            for name in (settings.default_backend, *others):
                title = f"{name} (default)" if name == settings.default_backend else name
                yield await _check_backend(gateway, name, title, settings.backends[name])


async def _check_backend(gateway: mxgw_client.Gateway, name: str, title: str, backend: BackendSettings) -> Check:
    kind = backend.kind or name
    began = time.perf_counter()
    try:
        async with gateway.open_session(client_name="mxgw doctor", backend=name, lease_s=60.0) as session:
            started_s = time.perf_counter() - began
            pong = await session.ping()
            worker = await _settled_source(session)
    except errors.MxgwClientError as error:
        return failed(
            AREA,
            title,
            error.message,
            _CURES.get(kind, f"Correct [backends.{name}] in the settings."),
        )
    answer = milliseconds_text((pong.worker_round_trip_s or pong.round_trip_s) * 1000)
    facts = f"{worker.backend}; worker ready in {started_s * 1000:.0f} ms, answers in {answer}"
    if worker.rss_bytes:
        facts += f", {bytes_text(worker.rss_bytes)}"
    if worker.source_health in (SourceHealth.DEGRADED, SourceHealth.LOST):
        source = f"the source is {enum_words(worker.source_health)}: {worker.source_detail or 'no reason given'}"
        cure = _CURES.get(kind, f"Correct [backends.{name}] in the settings.")
        check = failed if worker.source_health is SourceHealth.LOST else warning
        return check(AREA, title, f"{facts}; {source}", cure)
    return ok(AREA, title, facts)


async def _settled_source(session: mxgw_client.Session) -> WorkerInfo:
    """Request the worker's state until its source is good, for at most `SOURCE_WAIT_S`; return the last answer."""
    deadline = time.perf_counter() + SOURCE_WAIT_S
    while True:
        worker = await session.worker_info()
        if worker.source_health is SourceHealth.GOOD or time.perf_counter() > deadline:
            return worker
        await asyncio.sleep(SOURCE_POLL_S)


@asynccontextmanager
async def private_gateway(settings: Settings) -> AsyncIterator[tuple[str, str]]:
    """Run a gateway with the backends, limits and workers of `settings` while the block runs; yield its address
    and its API key, which is "" when it needs none.

    The gateway loads no installed plugins, so that it does not touch the files of another gateway.
    """
    with temporary_directory("mxgw-doctor-") as directory:
        address = own_address(directory)
        key = new_key() if needs_key(address) else ""
        private = settings.model_copy(
            update={
                "gateway": settings.gateway.model_copy(
                    update={"listen": (address,), "data_dir": directory / "data", "drain_timeout_s": 0.5}
                ),
                "tls": TlsSettings(),
                "plugins": PluginsSettings(),
                "plugin_sections": {},
            }
        )
        plugins = PluginHost.load(private)
        if key:
            plugins.add(ONE_KEY, OneKey(key))
        app = GatewayApp(private, plugins)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(app.run(), name="private-gateway")
            try:
                await app.wait_ready()
                if not app.addresses:
                    return  # it could not start, and the task group has the error
                yield app.addresses[0], key
            finally:
                app.stop()
