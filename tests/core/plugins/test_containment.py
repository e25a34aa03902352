"""What a plugin's failure costs: every hook, and every method of an object that a hook returns, fails in every way.

A wrong answer, SystemExit, CancelledError and the like mean the same as an ordinary exception: what the documentation
of the hook says. `MEANINGS` has it for each hook; a new hook without an entry fails a test.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import logging
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.distributing import Told
from support.events import taken, told
from support.overflowing import RecordingPump
from support.seams import failed_to_say

from mxgw.v1 import commands_pb2 as c
from mxgw.v1.events_pb2 import Event, EventBatch, GapReason
from mxgw_core.api import (
    ANONYMOUS,
    AccessRequest,
    AuthenticationRequest,
    Orphan,
    OrphanVerdict,
    Peer,
    PolicyRequest,
    QueueLimits,
    Select,
    SelectEvents,
    SessionInfo,
    SessionState,
    SubscriberLimits,
    WorkerIdentity,
    WorkerSpawn,
)
from mxgw_core.api.errors import (
    AccessDenied,
    GatewayError,
    InvalidRequest,
    PluginFailed,
    Unauthenticated,
    WorkerStartFailed,
)
from mxgw_core.api.feeds import FeedDescription
from mxgw_core.api.hookspecs import Hooks, hookimpl
from mxgw_core.checking import plugin_problems
from mxgw_core.config.models import Settings
from mxgw_core.events.counts import POLICY_ERRORS
from mxgw_core.events.filters import FeedFilters, ItemFilters
from mxgw_core.events.history import BrokenPromises, Older, Store
from mxgw_core.events.item_book import ItemBook
from mxgw_core.events.pieces import Gap, chunk_of
from mxgw_core.events.start import Start
from mxgw_core.metrics.plugins import PluginMetrics
from mxgw_core.observing import Observing
from mxgw_core.plugin_gateway import PluginGateway, _operator
from mxgw_core.plugins import PluginHost, PluginRecord, PluginState
from mxgw_core.plugins.answers import ANSWERS, WrongAnswer
from mxgw_core.plugins.blame import DELAYS
from mxgw_core.plugins.calls import CallFailed, Owner, running
from mxgw_core.plugins.loading import HOOKS
from mxgw_core.plugins.objects import (
    PluginItemAccess,
    PluginPace,
    plugin_feed,
    plugin_filter,
    plugin_guard,
    plugin_predicate,
)
from mxgw_core.plugins.services import plugin_service
from mxgw_core.plugins.tasks import contain_tasks, plugin_task
from mxgw_core.plugins.watching import HANGS, CallWatch
from mxgw_core.rpc.access import AccessControl
from mxgw_core.rpc.stream_requests import _policy_of
from mxgw_core.sessions.limits import buffer_limit, subscriber_limits
from mxgw_core.testing import until
from mxgw_core.workers.orphans import decide, orphans_of
from mxgw_core.workers.steps import WorkerSteps

SECRET = "canary-4711"  # no text of an exception of a credential hook may be logged


class Nonsense:
    """No hook and no method may answer this."""


async def _later() -> None:
    raise AssertionError("a coroutine that a plugin returns is never run")


def _raise(error: BaseException) -> None:
    raise error


# Key: how a call fails. Value: does it, and the word that the log has about it.
WAYS: Mapping[str, tuple[Callable[[], object], str]] = {
    "raises": (lambda: _raise(ValueError(SECRET)), "ValueError"),
    "exits": (lambda: _raise(SystemExit(SECRET)), "SystemExit"),
    "interrupts": (lambda: _raise(KeyboardInterrupt(SECRET)), "KeyboardInterrupt"),
    "cancels": (lambda: _raise(asyncio.CancelledError(SECRET)), "CancelledError"),
    "closes": (lambda: _raise(GeneratorExit(SECRET)), "GeneratorExit"),
    "raises a group": (lambda: _raise(BaseExceptionGroup(SECRET, [SystemExit(1)])), "BaseExceptionGroup"),
    "wrong type": (Nonsense, "returned a Nonsense"),
    "coroutine": (_later, "returned a coroutine"),
}

CALLER = Peer("127.0.0.1:1", is_local=True)
SESSION = SessionInfo("s", SessionState.READY, "anonymous", "", "", "sim", 0.0, b"", 0, 1, 0, 1)
REQUEST = AccessRequest("/x.Y/Z", ANONYMOUS, CALLER)
SPAWN = WorkerSpawn("s", "sim", Path("/s"), b"", "anonymous", "", "", 60.0)
ORPHAN = Orphan(SPAWN, WorkerIdentity("s", 1, 1, b"", 1))
LIMITS = QueueLimits(1, 1, 1.0)
POLICY = PolicyRequest(SESSION, "1", "", "mine", {}, LIMITS)


class Evil:
    """A plugin with all hooks. `way` is what each of them does."""

    way: Callable[[], object] = staticmethod(lambda: None)


for _name in HOOKS:
    _arguments = ", ".join(inspect.signature(getattr(Hooks, _name)).parameters)
    _scope: dict[str, Any] = {}
    exec(f"def {_name}({_arguments}): return self.way()", _scope)
    setattr(Evil, _name, hookimpl(_scope[_name]))


@dataclass
class World:
    evil: Evil
    host: PluginHost

    def owner(self, hook: str) -> Owner:
        return self.host.calls.owner("evil", hook)


@pytest.fixture
def world() -> World:
    evil, host = Evil(), PluginHost()
    host._records["evil"] = PluginRecord("evil", PluginState.LOADED, "dist-evil", "1.0", required=False)
    host._plugins.register(evil, name="evil")
    host._prepare()
    return World(evil, host)


def access(host: PluginHost) -> AccessControl:
    return AccessControl(host)


def without_value(hook: str, **arguments: Any) -> Callable[[PluginHost], object]:
    """The meaning of a hook whose failure changes nothing."""
    return lambda host: [answer.value for answer in host.ask(hook, **arguments)]


def policy(host: PluginHost) -> object:
    return _policy_of(host, POLICY)


# Key: a hook. Value: a function of the gateway that calls the hook, and what it returns, or the error that it raises
# and a part of its text, when the plugin fails.
MEANINGS: Mapping[str, tuple[Callable[[PluginHost], object], object]] = {
    "mxgw_settings": (without_value("mxgw_settings"), [None]),  # see also test_loading.py
    "mxgw_check_settings": (lambda host: len(plugin_problems(Settings(), host)), 1),
    "mxgw_gateway_context": (without_value("mxgw_gateway_context", gateway=None), [None]),
    "mxgw_grpc_services": (without_value("mxgw_grpc_services", gateway=None), [None]),
    "mxgw_cli": (without_value("mxgw_cli"), [None]),
    "mxgw_backup": (without_value("mxgw_backup", data_dir=Path("/")), [None]),
    "mxgw_metrics": (lambda host: list(PluginMetrics(host).collect(set())), []),
    "mxgw_doctor": (without_value("mxgw_doctor"), [None]),
    "mxgw_session_opened": (without_value("mxgw_session_opened", session=SESSION), [None]),
    "mxgw_session_attached": (without_value("mxgw_session_attached", session=SESSION), [None]),
    "mxgw_session_detached": (without_value("mxgw_session_detached", session=SESSION), [None]),
    "mxgw_session_closed": (without_value("mxgw_session_closed", session=SESSION, reason=None), [None]),
    "mxgw_detach_grace": (without_value("mxgw_detach_grace", session=SESSION), [None]),
    "mxgw_authenticate": (
        lambda host: access(host).authenticate("/x.Y/Z", CALLER, {}),
        (Unauthenticated, "the caller could not be authenticated"),
    ),
    "mxgw_authorize": (
        lambda host: access(host).authorize(REQUEST),
        (AccessDenied, "the call could not be authorized: plugin 'evil' failed"),
    ),
    "mxgw_decided": (
        lambda host: access(host).decided(REQUEST, None),
        (AccessDenied, "the decision could not be recorded: plugin 'evil' failed"),
    ),
    "mxgw_command_guard": (
        lambda host: access(host).guards(SESSION, ANONYMOUS),
        (AccessDenied, "the command could not be authorized: plugin 'evil' failed"),
    ),
    "mxgw_event_filter": (
        lambda host: access(host).filters(SESSION, ANONYMOUS),
        (AccessDenied, "the stream could not be authorized: plugin 'evil' failed"),
    ),
    "mxgw_stream_pace": (
        lambda host: access(host).paces(SESSION, ANONYMOUS),
        (AccessDenied, "the stream could not be authorized: plugin 'evil' failed"),
    ),
    "mxgw_item_access": (
        lambda host: access(host).item_access(ANONYMOUS),
        (AccessDenied, "the call could not be authorized: plugin 'evil' failed"),
    ),
    "mxgw_authenticate_operator": (
        lambda host: _operator(host.ask("mxgw_authenticate_operator", credentials=None)),
        None,
    ),
    "mxgw_renew_operator": (lambda host: _operator(host.ask("mxgw_renew_operator", operator=None)), None),
    "mxgw_operator_left": (without_value("mxgw_operator_left", operator=None), [None]),
    "mxgw_operator_sessions": (
        lambda host: PluginGateway.sight_of(SimpleNamespace(_plugins=host), None)(SESSION),  # type: ignore[arg-type]
        False,
    ),
    "mxgw_audit_tail": (lambda host: Observing.audit_tail(SimpleNamespace(_plugins=host), 5), None),  # type: ignore[arg-type]
    "mxgw_subscriber_limits": (lambda host: subscriber_limits(Settings(), host, SESSION).maximum, 1),
    "mxgw_overflow_policy": (policy, (InvalidRequest, "'mine' cannot be had: plugin evil failed")),
    "mxgw_buffer_limit": (lambda host: buffer_limit(host, SESSION), None),
    "mxgw_retention": (without_value("mxgw_retention", session=SESSION), [None]),
    "mxgw_history": (without_value("mxgw_history", session=SESSION), [None]),
    "mxgw_worker_spawning": (
        lambda host: WorkerSteps(host, "hello")._require("mxgw_worker_spawning", spawn=SPAWN),
        (WorkerStartFailed, "plugin 'evil' prevented the start"),
    ),
    "mxgw_orphan_lifetime": (without_value("mxgw_orphan_lifetime", spawn=SPAWN), [None]),
    "mxgw_worker_started": (
        lambda host: WorkerSteps(host, "hello").started(ORPHAN.worker),
        (WorkerStartFailed, "plugin 'evil' prevented the start"),
    ),
    # What a failure means for the worker: tests/core/workers/test_endpoint.py.
    "mxgw_worker_proved": (without_value("mxgw_worker_proved", proof=None), [None]),
    "mxgw_worker_ready": (without_value("mxgw_worker_ready", worker=None), [None]),
    "mxgw_worker_stopping": (without_value("mxgw_worker_stopping", worker=None, reason=None), [None]),
    "mxgw_worker_exited": (without_value("mxgw_worker_exited", worker_exit=None), [None]),
    "mxgw_worker_refused": (without_value("mxgw_worker_refused", refusal=None), [None]),
    "mxgw_orphans": (lambda host: list(orphans_of(host)), []),
    "mxgw_ended_sessions": (without_value("mxgw_ended_sessions"), [None]),
    "mxgw_orphan_verdict": (lambda host: decide(ORPHAN, host).verdict, OrphanVerdict.TERMINATE),
}
CREDENTIALS = {"mxgw_authenticate", "mxgw_authenticate_operator", "mxgw_renew_operator"}


def test_every_hook_has_its_meaning() -> None:
    assert set(MEANINGS) == set(HOOKS)


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_that_fails_costs_what_its_documentation_says_and_its_plugin_is_named(
    world: World, caplog: pytest.LogCaptureFixture, hook: str
) -> None:
    run, expected = MEANINGS[hook]
    for way, (fail, word) in WAYS.items():
        world.evil.way = fail
        world.host.calls._failures.clear()
        caplog.clear()
        if isinstance(expected, tuple):
            with pytest.raises(expected[0]) as caught:
                run(world.host)

            assert expected[1] in str(caught.value), way
        else:
            assert run(world.host) == expected, way

        assert world.host.failures["evil", hook] == 1, way
        start = f"plugin evil (dist-evil 1.0): {hook} "
        warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
        (line,) = [warning for warning in warnings if warning.startswith(start)]
        assert word in line
        assert SECRET not in line or hook not in CREDENTIALS


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_that_takes_long_is_counted_and_logged_once_in_an_episode(
    world: World, caplog: pytest.LogCaptureFixture, hook: str
) -> None:
    calls, now = world.host.calls, SimpleNamespace(wall=100.0, cpu=0.0, waits=0)
    calls.clock, calls.use = (lambda: now.wall), (lambda: (now.cpu, now.waits, 0))

    def sleeps(seconds: float = 2.0) -> None:
        now.wall += seconds
        now.waits += 1

    def waits_for_a_processor() -> None:
        now.wall += 2.0

    arguments = dict.fromkeys(set(inspect.signature(getattr(Hooks, hook)).parameters) - {"self"})
    for way in (waits_for_a_processor, sleeps, sleeps):
        world.evil.way = way
        world.host.ask(hook, **arguments)
    now.wall += 61.0
    world.evil.way = sleeps
    world.host.ask(hook, **arguments)

    may_block = hook in ("mxgw_authenticate_operator", "mxgw_renew_operator", "mxgw_backup", "mxgw_cli", "mxgw_doctor")
    tally = calls.tallies["evil", hook]
    assert tally.slow == (0 if may_block else 3)
    assert tally.seconds >= 8.0
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(lines) == (0 if may_block else 2)
    assert all(f"plugin evil (dist-evil 1.0): {hook} took 2000 ms" in line for line in lines)


def test_where_waits_are_not_counted_a_few_long_calls_in_succession_are_slow(world: World) -> None:
    calls, now = world.host.calls, SimpleNamespace(wall=100.0, cpu=0.0)
    calls.clock, calls.use, calls.step_s = (lambda: now.wall), (lambda: (now.cpu, None, 0)), 0.016

    def ask(wall_s: float, cpu_s: float = 0.0) -> int:
        def way() -> None:
            now.wall, now.cpu = now.wall + wall_s, now.cpu + cpu_s

        world.evil.way = way
        world.host.ask("mxgw_session_opened", session=SESSION)
        return calls.tallies["evil", "mxgw_session_opened"].slow

    assert [ask(0.2) for _ in range(DELAYS + 1)] == [0] * (DELAYS - 1) + [1, 2]
    assert ask(0.01) == 2
    assert [ask(0.2) for _ in range(DELAYS - 1)] == [2] * (DELAYS - 1)
    assert ask(0.2, cpu_s=0.11) == 3, "a call in between, which may have used less than 0.1 s, counts as one more delay"
    assert ask(0.01) == 3
    assert ask(0.2, cpu_s=0.12) == 4


def test_a_call_that_hangs_is_named_while_it_hangs_and_ends_a_process_that_starts(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    ended = threading.Event()
    texts: list[str] = []

    def end(text: str) -> None:
        texts.append(text)
        ended.set()

    world.host.calls.slow_call_s = 0.001
    world.evil.way = lambda: ended.wait(60) and None
    with CallWatch(world.host.calls, 0.001 * HANGS, end):
        world.host.ask("mxgw_session_opened", session=SESSION)

    assert "plugin evil (dist-evil 1.0): mxgw_session_opened has not returned for" in caplog.text
    (text,) = texts
    assert text.startswith("plugin evil (dist-evil 1.0): mxgw_session_opened has not returned for")


def test_a_call_that_hangs_when_only_contexts_are_left_ends_the_process_and_is_only_logged_elsewhere(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = threading.Event()
    texts: list[str] = []

    def end(text: str) -> None:
        texts.append(text)
        ended.set()

    world.host.calls.slow_call_s = 0.001
    world.evil.way = lambda: ended.wait(60) and None
    with CallWatch(world.host.calls, 60, end) as watch:
        watch.started()
        watch.leaving(0.001 * HANGS)
        world.host.ask("mxgw_session_opened", session=SESSION)
    (text,) = texts
    assert "mxgw_session_opened has not returned for" in text
    assert "(plugins.stop_timeout_s), and a call cannot be ended" in text

    logged = threading.Event()
    monkeypatch.setattr("mxgw_core.plugins.watching.log.error", lambda _: logged.set())
    world.evil.way = lambda: logged.wait(60) and None
    with CallWatch(world.host.calls, 0.001 * HANGS):
        world.host.ask("mxgw_session_opened", session=SESSION)
    assert logged.is_set()


@pytest.mark.parametrize("hook", HOOKS)
def test_each_hook_that_hangs_is_named_and_ends_the_process_only_while_the_gateway_starts(
    world: World, caplog: pytest.LogCaptureFixture, hook: str
) -> None:
    calls, now, texts = world.host.calls, SimpleNamespace(wall=100.0), list[str]()
    calls.clock = lambda: now.wall
    watch = CallWatch(calls, 30.0, texts.append)
    ends: list[int] = []

    def hangs() -> None:
        for _ in range(2):
            now.wall += 20.0
            watch.look()
            ends.append(len(texts))

    world.evil.way = hangs
    arguments = dict.fromkeys(set(inspect.signature(getattr(Hooks, hook)).parameters) - {"self"})
    world.host.ask(hook, **arguments)
    watch.started()
    world.host.ask(hook, **arguments)

    assert ends == [0, 1, 1, 1]
    assert [f"{hook} has not returned for 40 s" in text for text in texts] == [True]
    # The second one belongs to the same episode.
    named = [record for record in caplog.records if " has not returned for 20.0 s" in record.getMessage()]
    assert [record.levelno for record in named if record.levelno == logging.WARNING] == [logging.WARNING]
    assert named[0].getMessage().startswith(f"plugin evil (dist-evil 1.0): {hook} ")


# Objects that hooks return. Each function uses an object of which every method fails in one way.


class Object:
    """An object with the methods of every protocol. `way` is what each of them does."""

    name = "mine"
    revision = 1

    def __init__(self, way: Callable[[], object]) -> None:
        self._way = way

    def __getattr__(self, name: str) -> Callable[..., object]:
        return lambda *_: self._way()


class Guarding(Object):
    def denied(self, command: object, items: object) -> object:
        return self._way()

    def shows(self, node: object) -> object:
        return self._way()


class Item(ItemBook):
    def get(self, serial: int) -> Any:
        return serial


def feed(world: World, way: Callable[[], object]) -> FeedDescription:
    description: Any = FeedDescription(
        "feed",
        SubscriberLimits(1, LIMITS),
        None,
        lambda: Object(way),
        way,  # type: ignore[arg-type]
    )
    return plugin_feed(description, world.owner("mxgw_gateway_context"))


class Odd:
    """A standing filter that fails to be hashed, to be compared, or to tell its revision."""

    def __init__(self, way: Callable[[], object], failing: str) -> None:
        self._way, self._failing = way, failing

    def keep(self, item: object, kind: int) -> bool:
        return True

    @property
    def revision(self) -> Any:
        return self._way() if self._failing == "revision" else 1

    def __eq__(self, other: object) -> Any:
        return self._way() if self._failing == "eq" else self is other

    def __hash__(self) -> Any:
        return self._way() if self._failing == "hash" else 1


def guard(world: World, way: Callable[[], object]) -> Any:
    made: Any = Guarding(way)
    return plugin_guard(made, world.owner("mxgw_command_guard"))


def event_filter(world: World, way: Callable[[], object], failing: str = "") -> Any:
    made: Any = Odd(way, failing) if failing else SimpleNamespace(keep=lambda item, kind: way())
    return plugin_filter(made, world.owner("mxgw_event_filter"))


def item_access(world: World, way: Callable[[], object]) -> PluginItemAccess:
    return PluginItemAccess(Object(way), world.owner("mxgw_item_access"))


def pace(world: World, way: Callable[[], object]) -> PluginPace:
    return PluginPace(Object(way), world.owner("mxgw_stream_pace"))


def feed_filters(world: World, way: Callable[[], object]) -> FeedFilters:
    """Return filters of a feed; they belong to the plugin that serves the feed."""
    token = running.set(world.owner("mxgw_grpc_services"))
    try:
        return FeedFilters([Object(way)])
    finally:
        running.reset(token)


EVENT = chunk_of(1, 1, EventBatch(events=[Event(sequence=1, item_serial=2, kind=1)]).SerializeToString())
Use = Callable[[World, Callable[[], object]], object]
OBJECTS: Mapping[str, tuple[str, Use, type[GatewayError] | None]] = {
    "CommandGuard.denied": ("mxgw_command_guard", lambda w, way: guard(w, way).denied(c.MxCommand(), []), AccessDenied),
    "BrowseGuard.shows": ("mxgw_command_guard", lambda w, way: guard(w, way).shows(c.BrowseNode()), AccessDenied),
    "EventFilter.keep": (
        "mxgw_event_filter",
        lambda w, way: ItemFilters([event_filter(w, way)], Item(1)).shown([1, 2], 1),
        AccessDenied,
    ),
    "EventFilter.keep in ItemFilters.feed": (
        "mxgw_event_filter",
        lambda w, way: ItemFilters([event_filter(w, way)], Item(1)).feed(EVENT),
        AccessDenied,
    ),
    "FeedFilter.keep": ("mxgw_grpc_services", lambda w, way: feed_filters(w, way).feed(EVENT), AccessDenied),
    "StandingFilter.revision": (
        "mxgw_event_filter",
        lambda w, way: event_filter(w, way, "revision").revision,
        AccessDenied,
    ),
    "StreamPace.wait_s": ("mxgw_stream_pace", lambda w, way: pace(w, way).wait_s(), PluginFailed),
    "StreamPace.sent": ("mxgw_stream_pace", lambda w, way: pace(w, way).sent(1), PluginFailed),
    "ItemAccess.may_read": ("mxgw_item_access", lambda w, way: item_access(w, way).may_read("x"), AccessDenied),
    "ItemAccess.may_write": ("mxgw_item_access", lambda w, way: item_access(w, way).may_write("x"), AccessDenied),
    "ItemAccess.decided": ("mxgw_item_access", lambda w, way: item_access(w, way).decided("x", [], []), AccessDenied),
    "SessionPredicate": (
        "mxgw_operator_sessions",
        lambda w, way: plugin_predicate(lambda _: way(), w.owner("mxgw_operator_sessions"))(SESSION),  # type: ignore[arg-type, return-value]
        None,  # the session is hidden
    ),
    "FeedDescription.health": ("mxgw_gateway_context", lambda w, way: feed(w, way).health(), PluginFailed),
    "FeedSnapshot.frames": (
        "mxgw_gateway_context",
        lambda w, way: list(feed(w, way).snapshot().frames([], 1)),
        PluginFailed,
    ),
}


@pytest.mark.parametrize("what", OBJECTS)
def test_an_object_that_fails_is_named_and_what_it_decides_is_refused(
    world: World, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    hook, use, expected = OBJECTS[what]
    for way, (fail, word) in WAYS.items():
        world.host.calls._failures.clear()
        caplog.clear()
        if expected is None:
            assert use(world, fail) is False
        else:
            with pytest.raises(expected, match="plugin 'evil'") as caught:
                use(world, fail)

            assert caught.value.metadata == {"plugin": "evil"}, way
        assert world.host.failures == {("evil", hook): 1}, way
        (line,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
        assert line.startswith(f"plugin evil (dist-evil 1.0): {what.partition(' in ')[0]} ({hook})"), way
        assert word in line


@pytest.mark.parametrize(
    ("what", "action"),
    [
        ("OverflowPolicy.on_overflow", None),
        ("Select.keep", Select),
        ("SelectEvents.keep", SelectEvents),
    ],
)
def test_a_policy_that_fails_costs_its_subscriber_the_stream_and_is_named(
    world: World, caplog: pytest.LogCaptureFixture, what: str, action: type[Select | SelectEvents] | None
) -> None:
    for way, (fail, word) in WAYS.items():
        caplog.clear()
        pump = RecordingPump()

        def answer(*_: object, fail: Callable[[], object] = fail) -> Any:
            return fail()

        policy: Any = SimpleNamespace(name="mine", on_overflow=answer)
        if action is not None:
            policy = Told(action(answer), name="mine")
        subscriber = pump.distributor.attach(
            "1",
            Start.NOW,
            limits=QueueLimits(3, 0, 0.0),
            policy=policy,
            policy_source="dist-evil 1.0",
            policy_owner=world.owner("mxgw_overflow_policy"),
        )
        pump.happen(1, 2, 3, 4)

        assert told(taken(subscriber)) == [1, 2, 3, 4, "end SUBSCRIBER_OVERFLOW"], way
        assert pump.distributor.counts.total(POLICY_ERRORS, "dist-evil 1.0") == 1, way
        (line,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
        assert line.startswith("overflow policy mine of dist-evil 1.0 "), way
        assert word.split()[-1] in caplog.text, way
    assert world.host.calls.tallies["evil", "mxgw_overflow_policy"].calls >= len(WAYS)


@pytest.mark.parametrize("failing", ["hash", "eq"])
def test_a_standing_filter_that_cannot_be_compared_refuses_the_stream(world: World, failing: str) -> None:
    for way in ("raises", "exits", "cancels"):
        with pytest.raises(AccessDenied, match="plugin 'evil' failed"):
            assert {event_filter(world, WAYS[way][0], failing): 1, event_filter(world, WAYS[way][0], failing): 2}


@pytest.mark.parametrize(
    ("hook", "answer"),
    [
        ("mxgw_detach_grace", -5.0),
        ("mxgw_detach_grace", float("nan")),
        ("mxgw_detach_grace", True),
        ("mxgw_orphan_lifetime", -1),
        ("mxgw_orphan_lifetime", float("inf")),
        ("mxgw_check_settings", "one text"),
        ("mxgw_check_settings", ["fine", 7]),
        ("mxgw_check_settings", ["x"] * 100_001),
        ("mxgw_audit_tail", [SimpleNamespace()]),
        ("mxgw_subscriber_limits", SubscriberLimits(1, 5)),  # type: ignore[arg-type]
    ],
)
def test_an_answer_of_the_right_type_can_be_wrong_too(world: World, hook: str, answer: object) -> None:
    world.evil.way = lambda: answer
    arguments = dict.fromkeys(set(inspect.signature(getattr(Hooks, hook)).parameters) - {"self"}, 5)

    (found,) = world.host.ask(hook, **arguments)

    assert "returned " in str(found.error)


@pytest.mark.parametrize("wait_s", [-1.0, float("nan"), float("inf"), True])
def test_a_pace_must_wait_for_a_time(world: World, wait_s: float) -> None:
    with pytest.raises(PluginFailed):
        pace(world, lambda: wait_s).wait_s()


@pytest.mark.parametrize("denied", [{1: "no such input"}, {-1: "x"}, {0: None}, {"0": "x"}])
def test_a_guard_denies_inputs_that_there_are(world: World, denied: object) -> None:
    with pytest.raises(AccessDenied):
        guard(world, lambda: denied).denied(c.MxCommand(), [])


def test_what_a_guard_does_to_a_command_reaches_nobody_else(world: World) -> None:
    def changed(command: c.MxCommand, items: object) -> dict[int, str]:
        command.subscribe_bulk.items[0].item_definition = "another"
        return {}

    command = c.MxCommand(subscribe_bulk=c.SubscribeBulkCommand(items=[c.ItemReference(item_definition="one")]))
    evil: Any = SimpleNamespace(denied=changed)
    plugin_guard(evil, world.owner("mxgw_command_guard")).denied(command, [])

    assert command.subscribe_bulk.items[0].item_definition == "one"


def test_what_a_hook_does_to_its_arguments_reaches_nobody_else(world: World) -> None:
    message = c.MxCommand(register=c.RegisterCommand(client_name="one"))
    request = AccessRequest("/x.Y/Z", ANONYMOUS, CALLER, request=message)
    other = PluginHost()
    seen: list[Any] = []

    class First:
        @hookimpl
        def mxgw_authorize(self, request: Any) -> None:
            request.request.register.client_name = "another"
            object.__setattr__(request.identity, "id", "root")

        @hookimpl
        def mxgw_authenticate(self, request: Any) -> None:
            request.metadata["authorization"] = "mine"

    class Second:
        @hookimpl
        def mxgw_authorize(self, request: Any) -> None:
            seen.append((request.request.register.client_name, request.identity.id))

    for name, plugin in (("second", Second()), ("first", First())):
        other._plugins.register(plugin, name=name)
    other._prepare()
    other.ask("mxgw_authorize", request=request)
    other.ask("mxgw_authenticate", request=AuthenticationRequest("/x", CALLER, {"authorization": "theirs"}))

    assert seen == [("one", "anonymous")]
    assert message.register.client_name == "one"
    assert other.failures == {("first", "mxgw_authenticate"): 1}


# Asynchronous code.

ASYNCHRONOUS = {name: fail for name, (fail, _) in WAYS.items() if name not in ("wrong type", "coroutine")}


@pytest.mark.asyncio
async def test_a_service_that_fails_is_named_and_the_event_loop_goes_on(world: World) -> None:
    from grpc_health.v1 import health_pb2

    from mxgw_core.api import GrpcService

    class Health:
        async def Check(self, request: object, call: object) -> object:  # noqa: N802
            return world.evil.way()

        List = Check

        async def Watch(self, request: object, call: object, stream: object) -> object:  # noqa: N802
            return world.evil.way()

    service = GrpcService(health_pb2.DESCRIPTOR.services_by_name["Health"], Health())
    served: Any = plugin_service(service, world.owner("mxgw_grpc_services")).implementation
    for way, (fail, _) in WAYS.items():
        world.evil.way = fail
        world.host.calls._failures.clear()
        for method, arguments in ((served.Check, 2), (served.Watch, 3)):
            with pytest.raises(CallFailed, match="plugin 'evil' failed"):
                await method(*[None] * arguments)

        assert world.host.failures == {("evil", "mxgw_grpc_services"): 2}, way


@pytest.mark.asyncio
async def test_a_service_whose_call_is_cancelled_has_not_failed(world: World) -> None:
    from grpc_health.v1 import health_pb2

    from mxgw_core.api import GrpcService

    begun = asyncio.Event()

    class Health:
        async def Check(self, request: object, call: object) -> None:  # noqa: N802
            begun.set()
            await asyncio.Event().wait()

        Watch = List = Check

    service = GrpcService(health_pb2.DESCRIPTOR.services_by_name["Health"], Health())
    served: Any = plugin_service(service, world.owner("mxgw_grpc_services")).implementation
    async with asyncio.TaskGroup() as tasks:
        call = tasks.create_task(served.Check(None, None), name="call")
        await begun.wait()
        call.cancel()

    assert call.cancelled()
    assert world.host.failures == {}


@pytest.mark.asyncio
@pytest.mark.parametrize("way", ASYNCHRONOUS)
async def test_a_task_that_a_plugin_makes_does_not_end_the_event_loop(
    world: World, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    loop = asyncio.get_running_loop()
    contain_tasks(loop)
    made: list[asyncio.Task[None]] = []

    async def work() -> None:
        ASYNCHRONOUS[way]()

    async def context() -> None:
        made.append(loop.create_task(work(), name="work"))

    await plugin_task(world.owner("mxgw_gateway_context"), "its context", context(), name="context")
    await asyncio.wait(made)
    made.clear()  # nobody fetches the exception
    await asyncio.sleep(0)
    gc.collect()

    assert world.host.failures == ({} if way == "cancels" else {("evil", "mxgw_gateway_context"): 1})
    assert way == "cancels" or "plugin evil (dist-evil 1.0): a task (" in caplog.text
    assert "never retrieved" not in caplog.text


@pytest.mark.asyncio
async def test_a_task_that_fails_and_is_kept_is_reported_once_unless_somebody_fetches_its_exception(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    loop = asyncio.get_running_loop()
    contain_tasks(loop, fetch_s=0.0)
    made: list[asyncio.Task[None]] = []

    async def kept() -> None:
        raise OSError("kept")

    async def fetched() -> None:
        raise OSError("fetched")

    async def context() -> None:
        made.append(loop.create_task(kept()))
        await asyncio.wait(made)
        with pytest.raises(ExceptionGroup):
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(fetched())
        awaited = loop.create_task(fetched())
        with pytest.raises(OSError, match="fetched"):
            await awaited

    await plugin_task(world.owner("mxgw_gateway_context"), "its context", context(), name="context")
    await until(lambda: bool(world.host.failures))
    made.clear()
    gc.collect()

    assert world.host.failures == {("evil", "mxgw_gateway_context"): 1}
    assert ".kept) (mxgw_gateway_context) raised OSError: kept" in caplog.text
    assert "never retrieved" not in caplog.text


@pytest.mark.asyncio
async def test_a_callback_that_a_plugin_leaves_in_the_event_loop_is_named(world: World) -> None:
    loop = asyncio.get_running_loop()
    contain_tasks(loop)
    token = running.set(world.owner("mxgw_gateway_context"))
    loop.call_soon(WAYS["raises"][0])
    running.reset(token)
    await asyncio.sleep(0)

    assert world.host.failures == {("evil", "mxgw_gateway_context"): 1}


@pytest.mark.asyncio
@pytest.mark.parametrize("way", [way for way in WAYS if way != "coroutine"])
@pytest.mark.parametrize("failing", ["span", "read"])
async def test_a_history_store_that_fails_has_nothing_and_is_named_once(
    world: World, caplog: pytest.LogCaptureFixture, way: str, failing: str
) -> None:
    class Broken:
        async def span(self, epoch: bytes) -> Any:
            return WAYS[way][0]() if failing == "span" else (1, 5)

        async def read(self, epoch: bytes, after: int, until: int) -> AsyncIterator[Any]:
            yield WAYS[way][0]()

    store = Store(Broken(), "evil", 5.0, 5.0, owner=world.owner("mxgw_history"))
    if failing == "span":
        with caplog.at_level(logging.WARNING):
            assert await failed_to_say(store)
    else:
        gap = Gap(2, 5, GapReason.GAP_REASON_RING_EVICTED, "")
        pieces = Older(store, 5, BrokenPromises()).in_place_of(gap, b"", is_whole=False)

        with caplog.at_level(logging.WARNING):
            # Everything that was to be read is missing.
            assert [(piece.first, piece.last, type(piece)) async for piece in pieces] == [(2, 5, Gap)]
    assert len(caplog.records) == 1
    assert world.host.failures == {("evil", "mxgw_history"): 1}


def test_a_read_without_yield_is_named_by_the_kind_that_is_needed() -> None:
    class WithoutYield:
        async def span(self, epoch: bytes) -> None:
            return None

        async def read(self, epoch: bytes, after: int, until: int) -> list[Any]:
            return []

    with pytest.raises(WrongAnswer, match="whose method read is no async generator: it has no `yield`"):
        ANSWERS["mxgw_history"](WithoutYield(), {})
