"""Runs a gateway in this process: loads the plugins, runs the event loop, and handles signals.

`mxgw serve` uses this module. A service of the operating system can use it too, without the command line.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from mxgw_core.app import GatewayApp
from mxgw_core.config.loader import LoadedSettings
from mxgw_core.exception_groups import innermost
from mxgw_core.plugins import PluginHost
from mxgw_core.plugins.event_loop import gateway_loop
from mxgw_core.plugins.watching import end_process
from mxgw_worker.platform import StopRequest, at_stop, self_test

# After everything is closed, the process has this time to end by itself.
_END_S = 2.0


def serve_until_stopped(
    result: LoadedSettings,
    *,
    use_uvloop: bool,
    on_ready: Callable[[Sequence[str]], None],
    own: Mapping[str, object] = MappingProxyType({}),
) -> None:
    """Serve until the first SIGINT or SIGTERM, then shut down in order. A second signal ends the process at once.

    `on_ready` is called once, with the addresses, as soon as clients can connect. When a signal arrives, a line on
    stderr says what happens. `own` are plugins of the calling program, which need not be installed; the key is a
    plugin's name. Call this in the main thread only, after logging was set up (`mxgw_core.logs`).

    Raises:
        MxgwError, OSError: the gateway could not be created, for example because a plugin cannot be loaded.
        BaseExceptionGroup: the gateway failed when it started or while it was serving. The group contains the cause.
    """
    plugins = PluginHost.load(result.settings, origins=result.origins, end=end_process)
    for name, plugin in own.items():
        plugins.add(name, plugin)
    app = GatewayApp(result.settings, plugins, origins=result.origins, end=end_process)
    runner = asyncio.Runner(loop_factory=lambda: gateway_loop(plugins, use_uvloop=use_uvloop))
    code, text = 1, ""
    try:
        signals = _Signals(runner.get_loop(), app, result.settings.gateway.drain_timeout_s)
        runner.run(_serve(app, signals, on_ready))
        code = 0
    except BaseException as error:
        text = str(innermost(error))
        raise
    finally:
        # This waits for the tasks and threads that plugins have left, however long they run.
        timer = end_in_time(code, text)
        runner.close()
        timer.cancel()


def end_in_time(code: int, text: str = "") -> threading.Timer:
    """End the process with an exit code after a few seconds, if it still runs: threads of plugins can keep it from
    ending. Return the timer that does it.

    `text` is the error with which the process ends; it is written to stderr then.
    """
    timer = threading.Timer(_END_S, _end_late, (code, text))
    timer.daemon = True
    timer.start()
    return timer


def _end_late(code: int, text: str) -> None:
    others = [t.name for t in threading.enumerate() if not t.daemon and t is not threading.main_thread()]
    _say(
        "\n".join(
            (*([text] if text else []), f"Leaving without waiting for {', '.join(others) or 'tasks of plugins'}.")
        )
    )
    sys.stdout.flush()
    os._exit(code)


class _Signals:
    """Handles requests to stop until the process ends: the first one stops the gateway, a second one the process.

    The requests arrive also while a plugin blocks the event loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, app: GatewayApp, drain_timeout_s: float) -> None:
        self._loop = loop
        self._app = app
        self._drain_timeout_s = drain_timeout_s
        # When the first request came.
        self.since: float | None = None
        at_stop(self._on_request)

    def _on_request(self, request: StopRequest) -> None:
        # This interrupts the thread anywhere, also while it writes to stderr; so it writes in its own way.
        if self.since is not None:
            os.write(2, f"{request.name} again: leaving at once.\n".encode())
            os._exit(request.exit_code)
        self.since = time.monotonic()
        text = f"{request.name}: draining for up to {self._drain_timeout_s:g} s; a second signal ends at once.\n"
        os.write(2, text.encode())
        with contextlib.suppress(RuntimeError):  # the loop is closed already
            self._loop.call_soon_threadsafe(self._app.stop)


async def _serve(app: GatewayApp, signals: _Signals, on_ready: Callable[[Sequence[str]], None]) -> None:
    await self_test()
    async with asyncio.TaskGroup() as tasks:
        announcer = tasks.create_task(_announce(app, on_ready), name="announce")
        try:
            await app.run()
        finally:
            announcer.cancel()
    if signals.since is not None:
        left = app.sessions_left
        rest = f"{left} sessions wait for the next gateway" if left else "everything is closed"
        _say(f"Stopped after {time.monotonic() - signals.since:.1f} s; {rest}.")
        if app.has_stuck_calls:
            # Everything of the gateway is closed by now, and grpc would wait for the clients in this thread.
            sys.stdout.flush()
            os._exit(0)


async def _announce(app: GatewayApp, on_ready: Callable[[Sequence[str]], None]) -> None:
    await app.wait_ready()
    # The objects that exist now stay until the end. They are excluded from garbage collection, because looking at all
    # of them would stop all streams for 20 ms.
    gc.collect()
    gc.freeze()
    on_ready(app.addresses)


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
