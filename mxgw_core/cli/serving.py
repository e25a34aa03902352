"""Running a gateway in this process: log, plugins, signals, the line that says it is ready, and its orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib.util
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import NoReturn

import click

from mxgw_core.api.errors import MxgwError
from mxgw_core.app import GatewayApp
from mxgw_core.cli.asynchronous import innermost
from mxgw_core.cli.failures import CliFailure
from mxgw_core.cli.logs import log_to_stderr
from mxgw_core.cli.terminal import silence_stdout, write_json
from mxgw_core.config.loader import LoadedSettings
from mxgw_core.config.models import Settings
from mxgw_core.plugins import PluginHost


def serve_until_stopped(result: LoadedSettings, *, use_uvloop: bool, as_json: bool) -> None:
    """Serve until the first SIGINT or SIGTERM, then drain; a second one ends the process at once.

    Raises:
        CliFailure: the gateway cannot start; the text says what would help.
    """
    settings = result.settings
    log_to_stderr(settings.gateway.log_level)
    try:
        app = GatewayApp(settings, PluginHost.load(settings, origins=result.origins), origins=result.origins)
        with asyncio.Runner(loop_factory=_loop_factory(use_uvloop)) as runner:
            runner.run(_serve(app, settings, as_json=as_json))
    except MxgwError as error:
        raise CliFailure(f"the gateway cannot start: {error}", hint="`mxgw doctor` looks for the cause.") from None
    except OSError as error:
        raise CliFailure(
            f"the gateway cannot start: {error.strerror or error}",
            hint="`mxgw doctor` looks for the cause; --listen chooses another address.",
        ) from None
    except BaseExceptionGroup as group:
        raise _start_failure(innermost(group)) from None


def _start_failure(error: BaseException) -> BaseException:
    if isinstance(error, MxgwError | OSError):
        return CliFailure(f"the gateway cannot go on: {error}", hint="`mxgw doctor` looks for the cause.")
    return error


def _loop_factory(use_uvloop: bool) -> Callable[[], asyncio.AbstractEventLoop] | None:
    if not use_uvloop or importlib.util.find_spec("uvloop") is None:
        return None
    import uvloop

    return uvloop.new_event_loop


async def _serve(app: GatewayApp, settings: Settings, *, as_json: bool) -> None:
    stopping_since: float | None = None

    def stop(why: str) -> None:
        nonlocal stopping_since
        if stopping_since is None:
            stopping_since = time.monotonic()
            click.echo(
                f"{why}: draining for up to {settings.gateway.drain_timeout_s:g} s; a second signal ends at once.",
                err=True,
            )
            app.stop()

    def on_signal(number: signal.Signals) -> None:
        if stopping_since is not None:
            _leave_at_once(number)
        stop(number.name)

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):  # Windows: Ctrl-C cancels, see asyncio.Runner
            loop.add_signal_handler(number, on_signal, number)

    async with asyncio.TaskGroup() as tasks:
        announcer = tasks.create_task(_announce(app, as_json=as_json), name="announce")
        try:
            await app.run()
        finally:
            announcer.cancel()
    if stopping_since is not None:
        left = app.sessions_left
        rest = f"{left} sessions wait for the next gateway" if left else "everything is closed"
        click.echo(f"Stopped after {time.monotonic() - stopping_since:.1f} s; {rest}.", err=True)


async def _announce(app: GatewayApp, *, as_json: bool) -> None:
    from importlib.metadata import version

    await app.wait_ready()
    # What was made until now stays: the collector need not walk it again, which would stop every stream for 20 ms.
    gc.collect()
    gc.freeze()
    try:
        if as_json:
            write_json({"ready": True, "addresses": list(app.addresses), "pid": os.getpid()})
        else:
            click.echo(f"mxgw {version('mxgw')} ready on {', '.join(app.addresses)}")
            sys.stdout.flush()
    except BrokenPipeError:
        # Whoever started the gateway does not listen; that is no reason to stop serving.
        silence_stdout()


def _leave_at_once(number: signal.Signals) -> NoReturn:
    click.echo(f"{number.name} again: leaving at once.", err=True)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(128 + number)
