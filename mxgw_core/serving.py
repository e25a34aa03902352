"""Runs a gateway in this process: loads the plugins, runs the event loop, and handles signals.

`mxgw serve` uses this module, and so does the Windows service (`mxgw service run`). The process need not have a stderr.
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
from mxgw_core.plugins.watching import EXIT_CODE
from mxgw_worker.platform import StopRequest, at_stop, self_test

# After everything is closed, the process has this time to end by itself.
_END_S = 2.0


def leave_at_once(code: int, text: str) -> None:
    """End the process with an exit code, without waiting for anything. `text` is the error, "" when there is none."""
    del text
    os._exit(code)


def _nothing() -> None:
    pass


def serve_until_stopped(
    result: LoadedSettings,
    *,
    use_uvloop: bool,
    on_ready: Callable[[Sequence[str]], None],
    on_stop: Callable[[], None] = _nothing,
    leave: Callable[[int, str], None] = leave_at_once,
    own: Mapping[str, object] = MappingProxyType({}),
) -> None:
    """Serve until the first request to stop, then shut down in order. A second request ends the process at once.

    `on_ready` is called once, with the addresses, as soon as clients can connect. When a request arrives, a line on
    stderr says what happens. Call this in the main thread only, after logging was set up (`mxgw_core.logs`).

    `on_stop` is called at the first request to stop, before the gateway begins to drain. `leave` ends the process where
    that cannot wait: it is called with the exit code and the error, "" when there is none, and must not return. Both
    may interrupt the main thread anywhere or run in another thread, so they must wait for no lock. `own` are plugins of
    the calling program, which need not be installed; the key is a plugin's name.

    Raises:
        MxgwError, OSError: the gateway could not be created, for example because a plugin cannot be loaded.
        BaseExceptionGroup: the gateway failed when it started or while it was serving. The group contains the cause.
    """

    def hangs(text: str) -> None:
        text = f"the gateway ends, because {text}"
        _say(f"mxgw serve: {text}")
        leave(EXIT_CODE, text)

    plugins = PluginHost.load(result.settings, origins=result.origins, end=hangs)
    for name, plugin in own.items():
        plugins.add(name, plugin)
    app = GatewayApp(result.settings, plugins, origins=result.origins, end=hangs)
    runner = asyncio.Runner(loop_factory=lambda: gateway_loop(plugins, use_uvloop=use_uvloop))
    code, text = 1, ""
    try:
        signals = _Signals(runner.get_loop(), app, result.settings.gateway.drain_timeout_s, on_stop, leave)
        runner.run(_serve(app, signals, on_ready, leave))
        code = 0
    except BaseException as error:
        text = str(innermost(error))
        raise
    finally:
        # This waits for the tasks and threads that plugins have left, however long they run.
        timer = end_in_time(code, text, leave=leave)
        runner.close()
        timer.cancel()


def end_in_time(code: int, text: str = "", *, leave: Callable[[int, str], None] = leave_at_once) -> threading.Timer:
    """End the process with an exit code after a few seconds, if it still runs: threads of plugins can keep it from
    ending. Return the timer that does it.

    `text` is the error with which the process ends; it is written to stderr then. `leave` is that of
    `serve_until_stopped`.
    """
    timer = threading.Timer(_END_S, _end_late, (code, text, leave))
    timer.daemon = True
    timer.start()
    return timer


def _end_late(code: int, text: str, leave: Callable[[int, str], None]) -> None:
    others = [t.name for t in threading.enumerate() if not t.daemon and t is not threading.main_thread()]
    _say(
        "\n".join(
            (*([text] if text else []), f"Leaving without waiting for {', '.join(others) or 'tasks of plugins'}.")
        )
    )
    _flush()
    leave(code, text)


class _Signals:
    """Handles requests to stop until the process ends: the first one stops the gateway, a second one the process.

    The requests arrive also while a plugin blocks the event loop.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        app: GatewayApp,
        drain_timeout_s: float,
        on_stop: Callable[[], None],
        leave: Callable[[int, str], None],
    ) -> None:
        self._loop = loop
        self._app = app
        self._drain_timeout_s = drain_timeout_s
        self._on_stop = on_stop
        self._leave = leave
        # When the first request came.
        self.since: float | None = None
        at_stop(self._on_request)

    def _on_request(self, request: StopRequest) -> None:
        if self.since is not None:
            _interject(f"{request.name} again: leaving at once.")
            self._leave(request.exit_code, "")
            return
        self.since = time.perf_counter()
        self._on_stop()
        # The gateway is stopped first, because writing waits where nobody reads what was written before.
        with contextlib.suppress(RuntimeError):  # the loop is closed already
            self._loop.call_soon_threadsafe(self._app.stop)
        _interject(f"{request.name}: draining for up to {self._drain_timeout_s:g} s; a second signal ends at once.")


async def _serve(
    app: GatewayApp,
    signals: _Signals,
    on_ready: Callable[[Sequence[str]], None],
    leave: Callable[[int, str], None],
) -> None:
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
        _say(f"Stopped after {time.perf_counter() - signals.since:.1f} s; {rest}.")
        if app.has_stuck_calls:
            # Everything of the gateway is closed by now, and grpc would wait for the clients in this thread.
            _flush()
            leave(0, "")


async def _announce(app: GatewayApp, on_ready: Callable[[Sequence[str]], None]) -> None:
    await app.wait_ready()
    # The objects that exist now stay until the end. They are excluded from garbage collection, because looking at all
    # of them would stop all streams for 20 ms.
    gc.collect()
    gc.freeze()
    on_ready(app.addresses)


def _say(text: str) -> None:
    # A process without a stderr, for example a service, has None here.
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(f"{text}\n")
            sys.stderr.flush()


def _interject(text: str) -> None:
    """Write a line to stderr in the middle of anything, also while the same thread writes to stderr."""
    # Where a process has no stderr, descriptor 2 can be another file of it.
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            os.write(2, f"{text}\n".encode())


def _flush() -> None:
    if sys.stdout is not None:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
