"""`mxgw demo`: starts processes, opens a session, shows its events, and prints a summary."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import mxgw_client
from mxgw_cli.children import Child, child, clean_environment, temporary_directory
from mxgw_cli.demo.board import Board
from mxgw_cli.demo.following import follow_events, follow_worker, raise_when_dead, subscribe, tags_to_show
from mxgw_cli.demo.options import DemoOptions, gateway_settings
from mxgw_cli.demo.view import document, is_flawless, paint, summary_lines
from mxgw_cli.one_key import OwnGateway, own_gateway
from mxgw_cli.options import SettingsChoice
from mxgw_cli.render import write_json
from mxgw_cli.shell import CliFailure, ExitCode, SilentFailure, console, is_live, run
from mxgw_client import errors
from mxgw_core.api.errors import SettingsError
from mxgw_core.printable import printable
from mxgw_worker.platform import StopKind, StopRequest, on_stop, quoted

CALL_TIMEOUT_S = 30.0
DASHBOARD = "dashboard_tui"


def run_demo(options: DemoOptions, settings: SettingsChoice) -> None:
    """Run the demo to its end. `settings` are looked at only for the Python in which MXAccess can be used.

    Raises:
        CliFailure: something that the demo needs is missing or failed.
        SilentFailure: events were lost or came twice or out of order, or no event came (exit code 1); or Ctrl-C ended
            the demo before the time of --seconds was over (exit code 130).
    """
    if options.backend == "opcua" and importlib.util.find_spec("asyncua") is None:
        raise CliFailure("--backend opcua needs asyncua, which is not installed", hint=_install("mxgw[opcua]"))
    if options.dashboard:
        needs_a_terminal()
    python = _python_of_workers(settings) if options.backend == "mxaccess" else None
    try:
        run(lambda: _demo(options, python))
    except errors.MxgwClientError as error:
        hint = "`mxgw doctor` looks for the cause."
        if options.backend == "mxaccess":
            hint = "docs/backends/mxaccess.md says what it needs. `mxgw demo` alone works on every system."
        raise CliFailure(printable(str(error), 1000), hint=hint) from None


def _python_of_workers(settings: SettingsChoice) -> Path | None:
    from mxgw_core.config.loader import load_settings

    try:
        return load_settings(settings.file, overrides=settings.overrides).settings.workers.python
    except SettingsError as error:
        raise CliFailure(printable(str(error), 2000)) from None


def _install(what: str) -> str:
    return quoted(("pip", "install", what))


async def _demo(options: DemoOptions, python: Path | None) -> None:
    out = console()
    async with AsyncExitStack() as stack:
        status = None
        if not options.as_json and is_live():
            status = stack.enter_context(out.status("Starting a gateway …"))
        gateway, own, children = await _start(stack, options, python)
        if status is not None:
            status.update("Opening a session: a worker process starts …")
        session = await stack.enter_async_context(
            gateway.open_session(client_name="mxgw demo", tag="demo", lease_s=60.0)
        )
        if status is not None:
            status.stop()
        if options.dashboard:
            await show_dashboard(session, options, own)
            return
        was_interrupted, board, seconds = await _show(session, options, children)
    if options.as_json:
        write_json(document(board, options.backend, seconds))
    else:
        for line in summary_lines(board, seconds):
            out.print(line)
    if was_interrupted and options.seconds is not None:
        raise SilentFailure(ExitCode.INTERRUPTED)
    if not is_flawless(board.ledger):
        raise SilentFailure


async def _start(
    stack: AsyncExitStack, options: DemoOptions, python: Path | None
) -> tuple[mxgw_client.Gateway, OwnGateway, list[Child]]:
    """Start the processes; `stack` will end them. Return a connected client, the gateway, and all child processes."""
    directory = stack.enter_context(temporary_directory("mxgw-demo-"))
    children, endpoint = [], ""
    if options.backend == "opcua":
        server = await stack.enter_async_context(
            child(
                "OPC UA server",
                [
                    "mxgw_worker.backends.opcua.demo_server",
                    "--endpoint",
                    "opc.tcp://127.0.0.1:0/mxgw/demo/",
                    "--speed",
                    str(options.effective_speed),
                    "--recorded-time",
                ],
                directory,
            )
        )
        endpoint = str(server.ready.get("endpoint", ""))
        children.append(server)
    own = await stack.enter_async_context(own_gateway(directory, gateway_settings(options, endpoint, python)))
    children.append(own.process)
    gateway = mxgw_client.connect(own.target, api_key=own.api_key or None, timeout_s=CALL_TIMEOUT_S)
    return await stack.enter_async_context(gateway), own, children


async def _show(
    session: mxgw_client.Session, options: DemoOptions, children: Sequence[Child]
) -> tuple[bool, Board, float]:
    """Subscribe to tags, and show events until the time of --seconds is over, or until Ctrl-C.

    Return whether Ctrl-C was pressed, the board, and for how many seconds events were shown.
    """
    tags = await tags_to_show(session, options)
    stopping = asyncio.Event()
    async with session.events(resume=None) as stream, asyncio.TaskGroup() as tasks:
        board = Board(options.title, time.perf_counter())
        running = [tasks.create_task(follow_events(stream, board, children), name="events")]
        try:
            await subscribe(session, tags, board)
            running += [
                tasks.create_task(follow_worker(session, board, children), name="worker-info"),
                tasks.create_task(paint(board, options), name="paint"),
                *(tasks.create_task(raise_when_dead(each), name=each.name) for each in children),
            ]
            with _stopped_by_ctrl_c(stopping), contextlib.suppress(TimeoutError):
                async with asyncio.timeout(options.seconds):
                    await stopping.wait()
            seconds = time.perf_counter() - board.started_at
        finally:
            for task in running:
                task.cancel()
    return stopping.is_set(), board, seconds


@contextlib.contextmanager
def _stopped_by_ctrl_c(stopping: asyncio.Event) -> Iterator[None]:
    """While the block runs, the first Ctrl-C sets the event `stopping`; a second Ctrl-C cancels the running task."""

    def stop(request: StopRequest) -> None:
        del request
        stopping.set()
        undo()

    undo = on_stop(stop, StopKind.INTERRUPT)
    try:
        yield
    finally:
        if not stopping.is_set():
            undo()


def needs_a_terminal() -> None:
    """Check that the dashboard can be shown.

    Raises:
        CliFailure: there is no terminal, or textual is not installed.
    """
    if not is_live() or not sys.stdin.isatty():
        raise CliFailure("--dashboard needs a terminal to show itself on")
    if importlib.util.find_spec("textual") is None:
        raise CliFailure("--dashboard needs textual, which is not installed", hint=_install("mxgw[dashboard]"))


async def show_dashboard(session: mxgw_client.Session, options: DemoOptions, own: OwnGateway) -> None:
    """Subscribe to tags, and show the dashboard until the operator quits it.

    Raises:
        CliFailure: the process of the dashboard failed.
    """
    tags = await tags_to_show(session, options)
    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(_follow(session, tags), name="demo:events")
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "mxgw_cli", "dashboard", "--connect", own.target),
                *(("--api-key-file", str(own.key_file())) if own.api_key else ()),
                # The command `dashboard` exists only while the settings enable its plugin.
                env={**clean_environment(), "MXGW_PLUGINS__ENABLED": DASHBOARD, "PYTHONWARNINGS": "ignore"},
            )
            code = await process.wait()
        finally:
            following.cancel()
    if code:
        raise CliFailure(f"the dashboard ended with exit code {code}")


async def _follow(session: mxgw_client.Session, tags: Sequence[str]) -> None:
    """Read events like an ordinary client, until an operator ends the session in the dashboard."""
    try:
        await session.subscribe_bulk(tags)
        async for _ in session.events():
            pass
    except errors.MxgwClientError:
        return
