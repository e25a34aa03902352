"""Sessions without a subscriber: how long they wait, how many of them, and what is known of them meanwhile."""

from __future__ import annotations

import asyncio
import logging
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.clients import Client, client_of, refused
from support.clock import advance
from support.plugins import InstallPlugin
from support.waiting import until

from mxgw.convert import duration_to_seconds, timestamp_to_ns
from mxgw.v1 import session_service_pb2 as ss
from mxgw_core.api import AccessRequest, AuthenticationRequest, CloseReason, Decision, Deny, Identity, hookimpl
from mxgw_core.testing import RunningGateway, running_gateway, session_info
from mxgw_replay import ReplayPlugin, ReplaySettings

pytestmark = pytest.mark.asyncio


@asynccontextmanager
async def replaying(**settings: object) -> AsyncIterator[tuple[RunningGateway, Client]]:
    """Run a gateway with replay, nothing but first values of a load, and `settings` of the plugin."""
    keys = {f"plugins.replay.{key}": value for key, value in settings.items()}
    load = {"backends.sim.profile": "load", "backends.sim.rate": 0}
    async with (
        running_gateway({"plugins.enabled": ["replay"], **load, **keys}) as gateway,
        client_of(gateway.target) as client,
    ):
        yield gateway, client


async def attach(client: Client, session_id: str) -> Any:
    """Return a stream that is open."""
    stream = client.stream(session_id)

    assert (await stream.read()).HasField("opened")

    return stream


async def detached(gateway: RunningGateway, client: Client, *, name: str = "") -> ss.Session:
    """Open a session, attach to it and leave."""
    opened = await client.open(name=name)
    stream = await attach(client, opened.session_id)
    stream.cancel()
    await until(lambda: _info(gateway, opened.session_id) is None or _info(gateway, opened.session_id).detached_s)
    return opened


def _info(gateway: RunningGateway, session_id: str) -> Any:
    return gateway.api.session(session_id)


async def described(client: Client, session_id: str) -> ss.Session:
    answer: ss.Session = (await client.sessions.GetSession(ss.GetSessionRequest(session_id=session_id))).session
    return answer


async def ended(client: Client, session_id: str, timeout_s: float = 60) -> ss.Session:
    """Return the session once it has ended."""
    async with asyncio.timeout(timeout_s):
        while (answer := await described(client, session_id)).state != ss.SESSION_STATE_CLOSED:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return answer


async def test_a_session_that_nobody_comes_back_to_ends_after_its_grace_with_a_reason_of_its_own() -> None:
    async with replaying(detach_grace_seconds=100) as (gateway, client):
        opened = await detached(gateway, client)
        advance(99)

        assert (await described(client, opened.session_id)).state == ss.SESSION_STATE_READY

        advance(2)
        answer = await ended(client, opened.session_id)

        assert answer.close_reason == ss.CLOSE_REASON_DETACH_GRACE_EXPIRED
        assert answer.close_detail == "no subscriber for 100 s"

        late = await refused(client.stream(opened.session_id))

        assert (late.code, late.reason) == (grpc.StatusCode.NOT_FOUND, "SESSION_GONE")
        assert late.metadata["close_reason"] == "DETACH_GRACE_EXPIRED"


async def test_a_grace_of_zero_ends_the_session_with_its_last_stream() -> None:
    async with replaying(detach_grace_seconds=0) as (_, client):
        opened = await client.open()
        (await attach(client, opened.session_id)).cancel()
        answer = await ended(client, opened.session_id)

        assert answer.close_reason == ss.CLOSE_REASON_DETACH_GRACE_EXPIRED


async def test_without_a_grace_the_lease_alone_counts() -> None:
    async with replaying(detach_grace_seconds="none") as (gateway, client):
        waiting = await detached(gateway, client)
        await asyncio.sleep(0.1)  # nothing is scheduled that one could wait for

        assert (await described(client, waiting.session_id)).state == ss.SESSION_STATE_READY
        assert gateway.app.gateway._registry.get(waiting.session_id)._grace_timer is None


async def test_a_session_that_never_had_a_subscriber_has_no_grace() -> None:
    async with replaying(detach_grace_seconds=100) as (_, client):
        opened = await client.open()
        advance(101)
        answer = await described(client, opened.session_id)

        assert answer.state == ss.SESSION_STATE_READY
        assert not answer.HasField("detached_at")


async def test_who_comes_back_within_the_grace_finds_the_session_and_it_stays() -> None:
    async with replaying(detach_grace_seconds=100) as (gateway, client):
        waiting = await detached(gateway, client)
        stream = await attach(client, waiting.session_id)
        advance(101)
        answer = await described(client, waiting.session_id)
        stream.cancel()

        assert answer.state == ss.SESSION_STATE_READY
        assert not answer.HasField("detached_at")


class Gate:
    """Lets nobody stream who is not the owner."""

    @hookimpl
    def mxgw_authenticate(self, request: AuthenticationRequest) -> Identity:
        return Identity(dict(request.metadata).get("who", "somebody"), "key")

    @hookimpl
    def mxgw_authorize(self, request: AccessRequest) -> Decision | None:
        foreign = request.session is not None and request.session.owner != request.identity.id
        return Deny("not yours") if foreign and request.method.endswith("StreamEvents") else None


async def test_attempts_that_are_refused_do_not_prolong_the_grace(install_plugin: InstallPlugin) -> None:
    install_plugin("gate", Gate())
    settings = {"plugins.enabled": ["gate", "replay"], "plugins.replay.detach_grace_seconds": 100}
    async with running_gateway(settings) as gateway, client_of(gateway.target) as client:
        waiting = await detached(gateway, client)
        for _ in range(3):
            call = client.events.StreamEvents(_request(waiting.session_id), metadata=(("who", "else"),))
            refusal = await refused(call)

            assert refusal.reason == "ACCESS_DENIED"

            advance(33)
        advance(2)
        answer = await ended(client, waiting.session_id)

        assert answer.close_reason == ss.CLOSE_REASON_DETACH_GRACE_EXPIRED


def _request(session_id: str) -> Any:
    from mxgw.v1.event_service_pb2 import StreamEventsRequest

    return StreamEventsRequest(session_id=session_id)


async def test_however_many_sessions_wait_none_ends_within_its_grace() -> None:
    async with replaying(detach_grace_seconds=600) as (gateway, client):
        waiting = [await detached(gateway, client, name=str(number)) for number in range(12)]

        assert [(await described(client, session.session_id)).state for session in waiting] == [
            ss.SESSION_STATE_READY
        ] * len(waiting)


async def test_who_opens_and_leaves_cannot_take_the_places_of_others(install_plugin: InstallPlugin) -> None:
    install_plugin("gate", Gate())
    settings = {
        "plugins.enabled": ["gate", "replay"],
        "plugins.replay.detach_grace_seconds": 600,
        "limits.sessions": 4,
        "limits.sessions_per_owner": 2,
    }
    async with (
        running_gateway(settings) as gateway,
        client_of(gateway.target) as client,
    ):

        def opening(who: str) -> Any:
            return client.sessions.OpenSession(ss.OpenSessionRequest(), metadata=(("who", who),))

        for _ in range(2):
            session_id = (await opening("a")).session.session_id
            stream = client.events.StreamEvents(_request(session_id), metadata=(("who", "a"),))
            await stream.read()
            stream.cancel()
            await until(lambda: _info(gateway, session_id).detached_s is not None)  # noqa: B023 - awaited here
        third = await refused(opening("a"))
        for _ in range(2):
            await opening("b")
        fifth = await refused(opening("c"))

        assert (third.code, third.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "SESSION_LIMIT_REACHED")
        assert (third.metadata["setting"], third.metadata["limit"]) == ("limits.sessions_per_owner", "2")
        assert "limits.sessions_per_owner" in third.text
        assert (fifth.reason, fifth.metadata["setting"]) == ("SESSION_LIMIT_REACHED", "limits.sessions")


async def test_without_a_plugin_that_authenticates_there_are_no_owners_to_tell_apart() -> None:
    limits = {"limits.sessions": 4, "limits.sessions_per_owner": 1}
    async with running_gateway(limits) as gateway, client_of(gateway.target) as client:
        for _ in range(4):
            await client.open()
        refusal = await refused(client.open())

        assert refusal.metadata["setting"] == "limits.sessions"


# After a restart


@asynccontextmanager
async def restarting(directory: Path, grace_s: float) -> AsyncIterator[tuple[RunningGateway, Client]]:
    """Run a gateway on a directory whose workers outlive it."""
    settings = {
        "plugins.enabled": ["replay", "reattach"],
        "plugins.replay.detach_grace_seconds": grace_s,
        "backends.sim.profile": "load",
        "backends.sim.rate": 0,
    }
    async with running_gateway(settings, directory=directory) as gateway, client_of(gateway.target) as client:
        yield gateway, client


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory whose sockets have short paths."""
    with tempfile.TemporaryDirectory(prefix="mxgw-", dir="/tmp") as name:
        yield Path(name)


async def test_the_grace_rests_while_the_gateway_drains_and_begins_anew_at_the_next(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mxgw_core.sessions.session._COMING_BACK_S", 0.5)
    async with restarting(directory, 0) as (_, client):
        session = await client.open()
        stream = await attach(client, session.session_id)
    async with restarting(directory, 0) as (gateway, client):
        # It is back although its grace of 0 s was over as the draining ended its stream.
        assert _info(gateway, session.session_id).state.name in ("ADOPTING", "READY")

        await until(lambda: _info(gateway, session.session_id).state.name == "READY", 30)
        answer = await ended(client, session.session_id, 30)

        assert answer.close_reason == ss.CLOSE_REASON_DETACH_GRACE_EXPIRED
        assert answer.close_detail == "no subscriber for 0.5 s"
    stream.cancel()


async def test_after_a_restart_who_comes_back_in_time_keeps_the_session(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with restarting(directory, 3600) as (gateway, client):
        session = await detached(gateway, client)
    async with restarting(directory, 3600) as (gateway, client):
        await until(lambda: _info(gateway, session.session_id).state.name == "READY", 30)
        live = gateway.app.gateway._registry.get(session.session_id)

        assert live._grace_timer is not None
        assert _info(gateway, session.session_id).detached_s is not None

        stream = await attach(client, session.session_id)

        assert live._grace_timer is None

        stream.cancel()
        await client.close(session.session_id)


async def test_after_a_restart_a_session_that_never_had_a_subscriber_has_no_grace_still(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mxgw_core.sessions.session._COMING_BACK_S", 0.0)
    async with restarting(directory, 0) as (_, client):
        session = await client.open()
    async with restarting(directory, 0) as (gateway, client):
        await until(lambda: _info(gateway, session.session_id).state.name == "READY", 30)

        assert gateway.app.gateway._registry.get(session.session_id)._grace_timer is None

        await client.register(session.session_id)
        await client.close(session.session_id)


async def test_a_lease_that_is_over_while_the_gateway_drains_ends_nothing() -> None:
    async with replaying() as (gateway, client):
        session = await client.open(lease_s=0.001)
        live = gateway.app.gateway._registry.get(session.session_id)
        await until(lambda: live.lease_left_s < 0)
        live.drain()

        assert gateway.app.gateway._registry.sweep() == 0

        live._is_draining = False

        assert gateway.app.gateway._registry.sweep() == 1


async def test_a_waiting_session_says_since_when() -> None:
    async with replaying() as (gateway, client):
        before = time.time()
        waiting = await detached(gateway, client)
        answer = await described(client, waiting.session_id)

        assert before - 0.1 <= timestamp_to_ns(answer.detached_at) / 1e9 <= time.time() + 0.1


# The horizon


async def test_the_reach_of_the_log_is_shown_in_the_session_and_as_a_stream_opens() -> None:
    settings = {
        "plugins.enabled": ["replay"],
        "backends.sim.profile": "load",
        "backends.sim.rate": 2_000,
        "backends.sim.items": 10,
    }
    async with running_gateway(settings) as gateway, client_of(gateway.target) as client:
        opened = await client.open()

        assert not (await described(client, opened.session_id)).HasField("horizon")

        await client.subscribe(opened.session_id, [f"Load.Item{number:05d}" for number in range(1, 11)])
        await until(lambda: (_info(gateway, opened.session_id).horizon_s or 0) > 5)
        horizon = (await described(client, opened.session_id)).horizon
        stream = client.stream(opened.session_id)
        frame = await stream.read()
        stream.cancel()

        # 20,000 events at 2,000/s.
        assert 6 < duration_to_seconds(horizon) < 20
        assert 6 < duration_to_seconds(frame.opened.horizon) < 20


class Sessions:
    """A gateway whose sessions are what the test says."""

    def __init__(self, *horizons: float | None) -> None:
        self.horizons = dict(enumerate(horizons))

    def sessions(self) -> list[Any]:
        return [session_info(str(number), horizon_s=horizon) for number, horizon in self.horizons.items()]


async def test_a_log_that_is_too_short_at_the_present_rate_is_warned_of_once_for_each_session(
    caplog: pytest.LogCaptureFixture,
) -> None:
    plugin = ReplayPlugin()
    plugin.mxgw_settings().apply(ReplaySettings(detach_grace_seconds=30))
    sessions = Sessions(29.9, 30.0, None, 3.0)
    with caplog.at_level(logging.WARNING, "mxgw_replay"):
        for _ in range(3):
            plugin.check_horizons(sessions.sessions())

    assert [record.getMessage().split(":")[0] for record in caplog.records] == ["session 0", "session 3"]
    assert "reaches back 29.9 s, less than the detach grace of 30 s" in caplog.text
    assert "raise plugins.replay.events and .bytes" in caplog.text

    plugin.mxgw_session_closed(session_info("0"), CloseReason.CLIENT)

    assert plugin.warned == {"3"}


async def test_without_a_grace_no_log_is_too_short(caplog: pytest.LogCaptureFixture) -> None:
    plugin = ReplayPlugin()
    plugin.mxgw_settings().apply(ReplaySettings(detach_grace_seconds="none"))
    plugin.check_horizons(Sessions(0.1).sessions())

    assert not caplog.records


async def test_the_horizon_is_looked_at_while_the_gateway_runs(caplog: pytest.LogCaptureFixture) -> None:
    settings = {
        "plugins.enabled": ["replay"],
        "plugins.replay.horizon_check_s": 0.1,
        "plugins.replay.detach_grace_seconds": 600,
        "backends.sim.profile": "load",
        "backends.sim.rate": 1_000,
        "backends.sim.items": 10,
    }
    with caplog.at_level(logging.WARNING, "mxgw_replay"):
        async with running_gateway(settings) as gateway, client_of(gateway.target) as client:
            opened = await client.open()
            await client.subscribe(opened.session_id, ["Load.Item00001"])
            await until(lambda: f"session {opened.session_id}: at its present rate" in caplog.text)
