"""Streams refused or opened by what `[plugins.backpressure]` says, over a real gateway and the client library."""

from __future__ import annotations

from contextlib import AsyncExitStack

import grpc
import pytest
from support.clients import client_of, refused

from mxgw.v1 import event_service_pb2 as es
from mxgw.v1 import session_service_pb2 as ss
from mxgw_client import Policy, connect, errors
from mxgw_core.api.errors import SettingsError
from mxgw_core.testing import running_gateway

pytestmark = pytest.mark.asyncio


def settings(**backpressure: object) -> dict[str, object]:
    return {
        "plugins.enabled": ["backpressure"],
        **{f"plugins.backpressure.{key}": value for key, value in backpressure.items()},
    }


async def test_one_more_than_the_maximum_is_refused_and_told_which_setting_decides() -> None:
    async with (
        running_gateway(settings(maximum_subscribers=2)) as gateway,
        connect(gateway.target) as client,
        client.open_session() as session,
        AsyncExitStack() as streams,
    ):
        for _ in range(2):
            await streams.enter_async_context(session.events())
        async with client_of(gateway.target) as raw:
            refusal = await refused(raw.stream(session.session_id))
        with pytest.raises(errors.SubscriberLimitReached) as raised:
            await streams.enter_async_context(session.events())
        table = await session.subscribers()

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "EVENT_SUBSCRIBER_LIMIT_REACHED")
    assert refusal.metadata == {"subscribers": "2", "setting": "plugins.backpressure.maximum_subscribers"}
    assert "raise plugins.backpressure.maximum_subscribers" in refusal.text
    assert "plugins.backpressure.maximum_subscribers" in str(raised.value)
    assert (len(table.subscribers), table.maximum_subscribers) == (2, 2)


async def test_a_stream_that_went_makes_room_for_another() -> None:
    async with (
        running_gateway(settings(maximum_subscribers=1)) as gateway,
        connect(gateway.target) as client,
        client.open_session() as session,
    ):
        for _ in range(3):
            async with session.events() as stream:
                assert stream.opened is not None
            while (await session.subscribers()).subscribers:
                pass


async def test_without_multiple_subscribers_the_second_is_refused_as_one_that_exists() -> None:
    async with (
        running_gateway(settings(multiple_subscribers=False)) as gateway,
        connect(gateway.target) as client,
        client.open_session() as session,
        session.events(),
        client_of(gateway.target) as raw,
    ):
        refusal = await refused(raw.stream(session.session_id))

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ALREADY_EXISTS, "SUBSCRIBER_EXISTS")
    assert refusal.metadata == {"subscribers": "1", "setting": "plugins.backpressure.multiple_subscribers"}
    assert "change plugins.backpressure.multiple_subscribers" in refusal.text


async def test_without_the_plugin_a_second_one_is_told_to_enable_it() -> None:
    async with running_gateway() as gateway, client_of(gateway.target) as client:
        session_id = (await client.open()).session_id
        first = client.stream(session_id)
        await first.read()
        refusal = await refused(client.stream(session_id))

    assert "enable the plugin backpressure" in refusal.text


@pytest.mark.parametrize(
    ("policy", "says", "field"),
    [
        (Policy("block"), "plugins.backpressure.client_policies", "policy.name"),
        (Policy("sample", {"interval_ms": "soon"}), "from 10 to 3600000", "policy.parameters.interval_ms"),
        (Policy("sample", {"speed": "1"}), "it has interval_ms", "policy.parameters"),
        (Policy("keep_alarms"), "no plugin of this gateway brings the overflow policy 'keep_alarms'", "policy"),
        (Policy("keep_alarms"), "ask for disconnect, for a policy of the plugins backpressure, or", "policy"),
        (Policy("disconect"), "'disconect': did you mean 'disconnect'?", "policy"),
        (Policy("a" * 65), "65 characters, 64 are allowed", "policy.name"),
    ],
)
async def test_a_policy_that_cannot_be_had_is_refused_and_the_text_says_what_can(
    policy: Policy, says: str, field: str
) -> None:
    async with running_gateway(settings()) as gateway, client_of(gateway.target) as client:
        session_id = (await client.open()).session_id
        choice = es.OverflowPolicyChoice(name=policy.name, parameters=policy.parameters)
        refusal = await refused(client.stream(session_id, policy=choice))
        open_streams = await client.sessions.ListSubscribers(ss.ListSubscribersRequest(session_id=session_id))

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert says in refusal.text
    assert refusal.metadata["field"] == field
    assert len(open_streams.subscribers) == 0


async def test_the_policy_in_force_is_told_as_the_stream_opens_and_to_operators() -> None:
    async with (
        running_gateway(settings(policy="drop_oldest", queue_events=7, queue_bytes=8, queue_seconds=9.5)) as gateway,
        connect(gateway.target) as client,
        client.open_session(client_name="desk") as session,
        session.events() as default,
        session.events(policy=Policy("sample", {"interval_ms": "500"}), client_name="slow link") as asked,
    ):
        table = await client.subscribers(session.session_id)

    assert default.opened is not None
    assert asked.opened is not None
    assert (default.opened.policy, asked.opened.policy) == ("drop_oldest", "sample")
    one, other = table.subscribers
    assert [one.subscriber_id, other.subscriber_id] == [default.opened.subscriber_id, asked.opened.subscriber_id]
    assert [(s.client_name, s.policy) for s in table.subscribers] == [("desk", "drop_oldest"), ("slow link", "sample")]
    assert (one.limit_events, one.limit_bytes, one.limit_s) == (7, 8, 9.5)
    assert one.address


async def test_the_default_of_a_policy_that_is_wrong_for_the_mode_stops_the_start() -> None:
    with pytest.raises(SettingsError, match="fail_session ends the session for every subscriber"):
        async with running_gateway(settings(policy="fail_session")):
            pass
