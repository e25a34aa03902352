"""Shared by all tests: after every async test no task, thread or child process is left."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import hypothesis
import psutil
import pytest
import pytest_asyncio
from support.not_on_windows import NotOnWindows, entries
from support.plugins import install_plugin

__all__ = ["install_plugin"]

# Threads of libraries that live as long as the process: gRPC's completion queue poller and those of its threads that
# called Python once (Dummy), asyncio's own executor (joined when the loop closes), and what a timeout is watched with.
_LIBRARY_THREADS = ("asyncio_", "pytest_timeout", "Dummy-")
_GRPC_POLLER = "_poll_wrapper"

# A shell without job control lets what it starts in the background ignore Ctrl-C, and that is inherited: the programs
# that tests start must not care how the tests were started.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    if sys.platform == "win32":
        # In Wine on a busy machine an example can take longer than hypothesis allows, and says nothing about mxgw.
        slow = [hypothesis.HealthCheck.too_slow]
        hypothesis.settings.register_profile("windows", deadline=None, max_examples=30, suppress_health_check=slow)
        hypothesis.settings.load_profile("windows")
        config.pluginmanager.register(NotOnWindows(entries(), Path(__file__).resolve().parent))


@pytest.fixture(autouse=True)
def _nothing_is_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    if request.node.get_closest_marker("asyncio") is None:
        yield
        return
    request.getfixturevalue("_no_task_is_left")
    threads, children = set(threading.enumerate()), _children()
    yield
    left = [thread for thread in threading.enumerate() if thread not in threads and not _is_library(thread)]
    for thread in left:
        thread.join(60)  # those that are ending may end
    left = [thread for thread in left if thread.is_alive()]

    assert not left, f"threads were left: {left}"

    still = [f"{child.pid} {child.name()}" for child in _children() - children]

    assert not still, f"child processes were left: {still}"


@pytest_asyncio.fixture
async def _no_task_is_left() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    # Done callbacks and transports that were just closed get their turn first.
    for _ in range(3):
        await asyncio.sleep(0)
    left = [task for task in asyncio.all_tasks() - before if task is not asyncio.current_task()]

    assert not left, f"tasks were left: {left}"


def _children() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))


def _is_library(thread: threading.Thread) -> bool:
    return thread.name.startswith(_LIBRARY_THREADS) or _GRPC_POLLER in thread.name
