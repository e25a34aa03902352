"""Contexts of plugins, each in a task of its own: entering, leaving, and every way in which a held one can end."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress

import pytest

from mxgw_core.api.errors import SettingsError
from mxgw_core.plugins import PluginHost
from mxgw_core.plugins.contexts import ContextFailed, PluginContexts
from mxgw_core.plugins.tasks import contain_tasks

pytestmark = pytest.mark.asyncio

HOOK = "mxgw_gateway_context"
Step = Callable[[], Awaitable[None]]


class Bench:
    """Contexts, and what was reported about them."""

    def __init__(self, *, start_timeout_s: float = 10.0, stop_timeout_s: float = 10.0) -> None:
        self.host = PluginHost()
        self.failed: list[tuple[str, str]] = []
        self.has_failed = asyncio.Event()
        self.log: list[str] = []
        self.contexts = PluginContexts(start_timeout_s, stop_timeout_s, self._on_failure)
        contain_tasks(asyncio.get_running_loop())

    def _on_failure(self, plugin: str, detail: str) -> None:
        self.failed.append((plugin, detail))
        self.has_failed.set()

    async def enter(self, plugin: str, manager: AbstractAsyncContextManager[None]) -> None:
        await self.contexts.enter(self.host.calls.owner(plugin, HOOK), manager)

    @asynccontextmanager
    async def logged(self, name: str) -> AsyncIterator[None]:
        self.log.append(f"enter {name}")
        yield
        self.log.append(f"leave {name}")


async def nothing() -> None:
    pass


async def forever() -> None:
    await asyncio.Event().wait()


async def exits() -> None:
    sys.exit(3)


async def interrupts() -> None:
    raise KeyboardInterrupt


async def cancels() -> None:
    raise asyncio.CancelledError("of the plugin's own")


async def raises() -> None:
    raise ValueError("boom")


async def raises_a_group() -> None:
    raise ExceptionGroup("several", [ExceptionGroup("inner", [ValueError("boom")]), OSError("disk")])


FAULTS: dict[Step, str] = {
    raises: "ValueError: boom",
    exits: "SystemExit: 3",
    interrupts: "KeyboardInterrupt",
    cancels: "CancelledError: of the plugin's own",
    raises_a_group: "ExceptionGroup of ValueError: boom",
}


@asynccontextmanager
async def context(*, entering: Step = nothing, leaving: Step = nothing) -> AsyncIterator[None]:
    await entering()
    yield
    await leaving()


@asynccontextmanager
async def with_task(step: Step, begin: asyncio.Event) -> AsyncIterator[None]:
    async def background() -> None:
        await begin.wait()
        await step()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(background())
        yield


async def test_contexts_are_left_in_reverse_order_each_in_its_own_task() -> None:
    bench = Bench()
    for name in ("one", "two"):
        await bench.enter(name, bench.logged(name))

    await bench.contexts.leave_all()

    assert bench.log == ["enter one", "enter two", "leave two", "leave one"]
    assert bench.failed == []
    assert bench.host.failures == {}


@pytest.mark.parametrize("fault", FAULTS)
async def test_what_entering_raises_is_a_failure_of_the_plugin(fault: Step) -> None:
    bench = Bench()
    await bench.enter("one", bench.logged("one"))

    with pytest.raises(ContextFailed) as caught:
        await bench.enter("bad", context(entering=fault))

    assert str(caught.value).startswith(f"entering its context raised {FAULTS[fault]}")
    assert bench.failed == []
    await bench.contexts.leave_all()
    assert bench.log == ["enter one", "leave one"]


async def test_wrong_settings_stay_wrong_settings() -> None:
    async def refuses() -> None:
        raise SettingsError("plugins.bad.port: taken")

    with pytest.raises(SettingsError, match="taken"):
        await Bench().enter("bad", context(entering=refuses))


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault is not cancels])
async def test_a_failed_background_task_takes_its_plugin_down_and_no_other(fault: Step) -> None:
    bench, begin = Bench(), asyncio.Event()
    await bench.enter("good", bench.logged("good"))
    await bench.enter("bad", with_task(fault, begin))

    begin.set()
    await bench.has_failed.wait()

    ((plugin, detail),) = bench.failed
    assert plugin == "bad"
    assert detail.startswith(f"its context raised {FAULTS[fault]}")
    assert bench.host.failures == {("bad", HOOK): 1}
    await bench.contexts.leave_all()
    assert bench.log == ["enter good", "leave good"]


async def test_a_context_that_ends_by_itself_has_failed() -> None:
    @asynccontextmanager
    async def impatient() -> AsyncIterator[None]:
        async with asyncio.timeout(0):
            yield

    @asynccontextmanager
    async def careless() -> AsyncIterator[None]:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().call_soon(task.cancel)
        with suppress(asyncio.CancelledError):
            yield

    for manager, detail in ((impatient(), "its context raised TimeoutError"), (careless(), "its context ended by its")):
        bench = Bench()
        await bench.enter("bad", manager)

        await bench.has_failed.wait()

        assert bench.failed[0][1].startswith(detail)


@pytest.mark.parametrize("fault", FAULTS)
async def test_what_leaving_raises_is_logged_and_the_others_are_left(
    fault: Step, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench()
    await bench.enter("good", bench.logged("good"))
    await bench.enter("bad", context(leaving=fault))

    await bench.contexts.leave_all()

    assert bench.log == ["enter good", "leave good"]
    assert bench.failed == []
    (record,) = caplog.records
    assert record.getMessage().startswith(f"plugin bad (unknown distribution): {HOOK} raised {FAULTS[fault]}")


async def test_entering_and_leaving_that_hang_are_cut_and_named(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(start_timeout_s=0.01, stop_timeout_s=0.01)

    with pytest.raises(ContextFailed, match=r"was not entered within 0\.01 s \(plugins\.start_timeout_s\)"):
        await bench.enter("slow", context(entering=forever))
    await bench.enter("sticky", context(leaving=forever))
    await bench.contexts.leave_all()

    (record,) = caplog.records
    assert record.getMessage() == (
        f"plugin sticky (unknown distribution): {HOOK} was not left within 0.01 s (plugins.stop_timeout_s); "
        "it is cancelled"
    )
    assert bench.contexts.left_behind == ()


async def test_what_cannot_be_cancelled_is_left_behind_with_one_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    bench, free, at_once = Bench(start_timeout_s=0.01, stop_timeout_s=0.01), asyncio.Event(), asyncio.Event()
    at_once.set()

    async def stubborn() -> None:
        while not free.is_set():
            with suppress(asyncio.CancelledError):
                await free.wait()

    with pytest.raises(ContextFailed):
        await bench.enter("first", context(entering=stubborn))
    await bench.enter("second", context(leaving=stubborn))
    await bench.enter("third", with_task(stubborn, at_once))
    await bench.contexts.leave_all()

    # The second one was entered before the third one, so it is left after it.
    assert bench.contexts.left_behind == ("first", "third", "second")
    # The event loop waits for none of them, also not for the task that the third one has made.
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert [record.getMessage() for record in caplog.records] == [
        f"plugin {name} (unknown distribution): {HOOK} does not end when it is cancelled; it is left behind"
        for name in bench.contexts.left_behind
    ]
    free.set()


async def test_entering_that_is_cancelled_from_outside_is_cleaned_up() -> None:
    bench, entering = Bench(), asyncio.Event()

    async def hangs() -> None:
        entering.set()
        await forever()

    async with asyncio.TaskGroup() as tasks:
        start = tasks.create_task(bench.enter("slow", context(entering=hangs)))
        await entering.wait()
        start.cancel()
    await bench.contexts.leave_all()

    assert bench.failed == []
    assert bench.contexts.left_behind == ()
    assert not any(task.get_name() == "plugin:slow" for task in asyncio.all_tasks())


async def test_a_plugin_fails_when_its_task_is_cancelled_however_long_its_context_takes_to_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench, begin, free = Bench(stop_timeout_s=0.01), asyncio.Event(), asyncio.Event()

    @asynccontextmanager
    async def closing(way: Step) -> AsyncIterator[None]:
        async with with_task(raises, begin):
            try:
                yield
            finally:
                await way()

    async def waits() -> None:
        await free.wait()

    async def swallows() -> None:
        while not free.is_set():
            with suppress(asyncio.CancelledError):
                await free.wait()

    await bench.enter("slow", closing(waits))
    await bench.enter("stubborn", closing(swallows))
    begin.set()
    await bench.has_failed.wait()
    assert bench.failed[0] == (
        "slow",
        "its context was cancelled, because a task in it has failed or has cancelled it",
    )

    await bench.contexts.leave_all()
    assert bench.failed[-1] == ("slow", bench.failed[-1][1])
    assert bench.failed[-1][1].startswith("its context raised ValueError: boom")
    assert [plugin for plugin, _ in bench.failed].count("stubborn") == 1
    assert bench.contexts.left_behind == ("stubborn",)
    assert f"plugin stubborn (unknown distribution): {HOOK} does not end when it is cancelled" in caplog.text
    free.set()


async def test_what_is_left_behind_adds_no_traceback_to_the_end_of_the_loop(caplog: pytest.LogCaptureFixture) -> None:
    ways: list[bool] = []

    @asynccontextmanager
    async def stubborn() -> AsyncIterator[None]:
        while not ways:
            with suppress(asyncio.CancelledError):
                await forever()
        yield

    async def run() -> None:
        bench = Bench(start_timeout_s=0.01, stop_timeout_s=0.01)
        with pytest.raises(ContextFailed):
            await bench.enter("bad", stubborn())

    await asyncio.to_thread(lambda: asyncio.run(run()))  # a loop that is closed

    assert (
        caplog.records[-1]
        .getMessage()
        .endswith("did not end: RuntimeError: aclose(): asynchronous generator is already running")
    )
    assert [record for record in caplog.records if record.exc_info] == []
    ways.append(True)


async def test_a_context_that_is_entered_after_its_time_is_left_at_once() -> None:
    bench = Bench(start_timeout_s=0.01)

    @asynccontextmanager
    async def late() -> AsyncIterator[None]:
        with suppress(asyncio.CancelledError):
            await forever()
        yield
        bench.log.append("left")

    with pytest.raises(ContextFailed, match="was not entered within"):
        await bench.enter("late", late())

    assert bench.log == ["left"]
    assert bench.failed == []
    assert bench.contexts.left_behind == ()
