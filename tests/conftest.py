"""Shared by all tests: after every async test no task, thread or child process is left."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping
from pathlib import Path

import hypothesis
import psutil
import pytest
import pytest_asyncio
from support.not_on_windows import NotOnWindows, entries
from support.plugins import install_plugin

from mxgw_worker.platform import event_loop_class

__all__ = ["install_plugin"]

# Threads of libraries that live as long as the process: gRPC's completion queue poller and those of its threads that
# called Python once (Dummy), asyncio's own executor (joined when the loop closes), and what a timeout is watched with.
_LIBRARY_THREADS = ("asyncio_", "pytest_timeout", "Dummy-")
_GRPC_POLLER = "_poll_wrapper"
_HAS_CHILDREN = Path("/proc/thread-self/children").exists()

# Files of few tests that take long: 10 s or more of a run of all tests.
_FEW_AND_LONG = (
    "system/test_replay_storm.py",
    "system/test_reattach_chaos.py",
    "system/test_reattach_drain.py",
    "core/events/test_distributor_machine.py",
    "system/test_replay_history.py",
    "system/test_dashboard_soak.py",
    "system/test_warm_pool.py",
    "system/test_dashboard_web.py",
    "system/test_metrics_prometheus.py",
    "system/test_backpressure_fan_out.py",
    "house/test_set_up.py",
    "system/test_reattach_upgrade.py",
    "worker/opcua/test_alarms.py",
    "worker/opcua/test_security.py",
    "core/sessions/test_lifetime_machine.py",
    "system/test_cli_doctor.py",
)

# A shell without job control lets what it starts in the background ignore Ctrl-C, and that is inherited: the programs
# that tests start must not care how the tests were started.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    """Keep xdist from ordering the files by their number of tests, which has the longest tests run at the end.

    On Windows, leave out what does not run there.
    """
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False
    if sys.platform == "win32":
        _leave_out_what_does_not_run_on_windows(config)


def _leave_out_what_does_not_run_on_windows(config: pytest.Config) -> None:
    # In Wine on a busy machine an example can take longer than hypothesis allows, and says nothing about mxgw.
    slow = [hypothesis.HealthCheck.too_slow]
    hypothesis.settings.register_profile("windows", deadline=None, max_examples=30, suppress_health_check=slow)
    hypothesis.settings.load_profile("windows")
    config.pluginmanager.register(NotOnWindows(entries(), Path(__file__).resolve().parent))
    config.pluginmanager.register(_OwnEventLoop())


class _OwnEventLoop:
    """Runs tests in the event loop of gateways and workers, of which the clock is not that of asyncio's on Windows."""

    @pytest.hookimpl(optionalhook=True)
    def pytest_asyncio_loop_factories(self) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
        return {"mxgw": event_loop_class()}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With xdist, begin with the files that take long: one that begins last leaves the other processes idle."""
    if not hasattr(config, "workerinput"):
        return
    sizes = Counter(item.path for item in items)
    here = Path(__file__).parent
    place = {here / name: number for number, name in enumerate(_FEW_AND_LONG)}
    items.sort(key=lambda item: (place.get(item.path, len(place)), -sizes[item.path]))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Spare Python's garbage collector what lives as long as the run: all modules and all tests, a million objects.

    The collector would go through them again and again, while they are made and during every test. It still goes
    through all that tests make.
    """
    gc.disable()
    try:
        result = yield
        gc.collect()
        gc.freeze()
        return result
    finally:
        gc.enable()


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
    """Return the processes below this one. Psutil finds them in the list of all processes of the machine, which takes
    milliseconds, twice for each of two thousand tests; Linux has a list for each process.
    """
    if not _HAS_CHILDREN:
        return set(psutil.Process().children(recursive=True))
    found: set[psutil.Process] = set()
    parents = [str(os.getpid())]
    while parents:
        for listed in Path("/proc", parents.pop(), "task").glob("*/children"):
            with contextlib.suppress(OSError, psutil.NoSuchProcess):  # it has ended meanwhile
                for pid in listed.read_text().split():
                    found.add(psutil.Process(int(pid)))
                    parents.append(pid)
    return found


def _is_library(thread: threading.Thread) -> bool:
    return thread.name.startswith(_LIBRARY_THREADS) or _GRPC_POLLER in thread.name
