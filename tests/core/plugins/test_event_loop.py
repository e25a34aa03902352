"""A callback of a plugin that raises SystemExit does not end the gateway's event loop."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from mxgw_core.plugins import PluginHost
from mxgw_core.plugins.event_loop import gateway_loop
from mxgw_core.testing import until

from .conftest import Install, settings

CODE = """
import sys

class Plugin:
    @hookimpl
    def mxgw_session_opened(self, session):
        pass

def leave(*_):
    sys.exit(3)
"""


def soon(loop: asyncio.AbstractEventLoop, plugin: ModuleType) -> None:
    loop.call_soon(plugin.leave)


def later(loop: asyncio.AbstractEventLoop, plugin: ModuleType) -> None:
    loop.call_later(0.0, plugin.leave)


def done(loop: asyncio.AbstractEventLoop, plugin: ModuleType) -> None:
    future = loop.create_future()
    future.add_done_callback(plugin.leave)
    future.set_result(None)


def at_a_signal(loop: asyncio.AbstractEventLoop, plugin: ModuleType) -> None:
    loop.add_signal_handler(signal.SIGUSR1, plugin.leave)
    os.kill(os.getpid(), signal.SIGUSR1)


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest, install: Install) -> Callable[[Any], PluginHost]:
    """Run an asynchronous function in the loop of a gateway; it gets the loop and the module of the plugin `bad`."""

    def run(function: Any) -> PluginHost:
        install("other", CODE)
        module = install("bad", CODE)
        host = PluginHost.load(settings("other", "bad"))
        with asyncio.Runner(loop_factory=lambda: gateway_loop(host, use_uvloop=request.param)) as runner:
            answer = runner.run(function(runner.get_loop(), sys.modules[module]))
        assert answer == "the end"
        return host

    return run


@pytest.mark.parametrize("leave", [soon, later, done] if sys.platform == "win32" else [soon, later, done, at_a_signal])
def test_a_callback_that_exits_is_its_plugin_s_failure_and_the_loop_goes_on(
    run: Callable[[Any], PluginHost], leave: Callable[[Any, Any], None], caplog: pytest.LogCaptureFixture
) -> None:
    async def serve(loop: asyncio.AbstractEventLoop, plugin: ModuleType) -> str:
        ran = asyncio.Event()
        leave(loop, plugin)
        loop.call_later(0.0, ran.set)  # what is in the loop already is not lost
        await ran.wait()
        await until(lambda: caplog.records)
        return "the end"

    host = run(serve)

    assert host.failures == {("bad", "callback"): 1}
    (record,) = caplog.records
    assert record.getMessage().startswith("plugin bad (dist-bad 1.0): callback raised SystemExit: 3 (")


def test_the_loop_ends_when_it_should_end_in_the_turn_of_the_exit(run: Callable[[Any], PluginHost]) -> None:
    async def serve(loop: asyncio.AbstractEventLoop, plugin: ModuleType) -> str:
        task = asyncio.current_task()
        assert task is not None
        task.add_done_callback(plugin.leave)
        return "the end"

    assert run(serve).failures == {("bad", "callback"): 1}


def test_an_exit_of_no_plugin_is_an_error_in_the_log_and_the_loop_goes_on(
    run: Callable[[Any], PluginHost], caplog: pytest.LogCaptureFixture
) -> None:
    async def serve(loop: asyncio.AbstractEventLoop, plugin: ModuleType) -> str:
        loop.call_soon(sys.exit, 4)
        await until(lambda: caplog.records)
        return "the end"

    host = run(serve)

    assert host.failures == {}
    assert "a callback in the event loop raised SystemExit: 4" in caplog.text


def test_an_interrupt_ends_the_loop(run: Callable[[Any], PluginHost]) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    async def serve(loop: asyncio.AbstractEventLoop, plugin: ModuleType) -> str:
        loop.call_soon(interrupt)
        await asyncio.Event().wait()
        return "the end"

    with pytest.raises(KeyboardInterrupt):
        run(serve)
