"""Ending a stream from outside: at once, with a reason, whatever it was waiting for."""

from __future__ import annotations

import asyncio

import grpc.aio
import pytest
from support.clients import client_of, read_to_the_end, refusal_of
from support.plugins import InstallPlugin
from support.waiting import until

from mxgw_core.api import ANONYMOUS, OpenStream, Peer, hookimpl
from mxgw_core.api.errors import AccessRevoked, SessionNotFound
from mxgw_core.api.gateway import Gateway
from mxgw_core.rpc.open_streams import OpenStreams
from mxgw_core.testing import running_gateway

pytestmark = pytest.mark.asyncio

STREAM = OpenStream("/a/b", ANONYMOUS, Peer("unix", is_local=True), "s")


async def test_a_stream_is_open_while_it_is_served() -> None:
    streams = OpenStreams()
    async with streams.serving(STREAM):
        assert streams.all() == (STREAM,)

    assert streams.all() == ()
    assert not streams.end(STREAM, AccessRevoked("late"))


async def test_ending_gives_up_what_the_stream_waits_for_and_tells_the_first_reason() -> None:
    streams = OpenStreams()

    async def serve() -> None:
        async with streams.serving(STREAM):
            assert streams.end(STREAM, AccessRevoked("first"))
            assert not streams.end(STREAM, AccessRevoked("second"))

            await asyncio.Event().wait()

    with pytest.raises(AccessRevoked, match="first"):
        await serve()

    assert streams.all() == ()


async def test_what_a_stream_raises_while_it_is_ended_does_not_hide_why_it_is_ended() -> None:
    streams = OpenStreams()

    async def serve() -> None:
        async with streams.serving(STREAM):
            streams.end(STREAM, AccessRevoked("logged out"))
            raise SessionNotFound("no longer to be seen")

    with pytest.raises(AccessRevoked, match="logged out"):
        await serve()

    assert streams.all() == ()


async def test_a_time_out_of_the_stream_s_own_stays_one() -> None:
    with pytest.raises(TimeoutError):
        async with OpenStreams().serving(STREAM), asyncio.timeout(0.01):
            await asyncio.Event().wait()


async def test_the_gateway_names_its_streams_and_ends_one_and_no_other() -> None:
    async with running_gateway() as gateway, client_of(gateway.target) as client:
        session_ids = [(await client.open()).session_id for _ in range(2)]
        calls = []
        for session_id in session_ids:  # one after another: this is the order in which they are named
            calls.append(client.stream(session_id))
            await calls[-1].read()
        first, second = gateway.api.streams()

        assert [first.session_id, second.session_id] == session_ids
        assert first.method == "/mxgw.v1.EventService/StreamEvents"
        assert first.identity == ANONYMOUS

        assert gateway.api.end_stream(first, AccessRevoked("no more", metadata={"cause": "test"}))

        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await calls[0].read()
        refusal = refusal_of(ended.value)

        assert (refusal.reason, refusal.text, refusal.metadata) == ("REVOKED", "no more", {"cause": "test"})

        await until(lambda: gateway.api.streams() == (second,))
        calls[1].cancel()
        await until(lambda: gateway.api.streams() == ())


class _EndsWhatBegins:
    """Ends a stream as its first message goes out: the end is ready before any answer of the transport can be."""

    gateway: Gateway

    @hookimpl
    def mxgw_overflow_policy(self) -> None:
        (stream,) = self.gateway.streams()
        asyncio.get_running_loop().call_soon(self.gateway.end_stream, stream, AccessRevoked("no more"))


async def test_a_stream_that_is_ended_while_its_first_message_goes_out_still_tells_why(
    install_plugin: InstallPlugin,
) -> None:
    plugin = _EndsWhatBegins()
    enabled = {"plugins.enabled": [install_plugin("ends", plugin)]}
    async with running_gateway(enabled) as gateway, client_of(gateway.target) as client:
        plugin.gateway = gateway.api
        stream = client.stream((await client.open()).session_id)
        async with asyncio.timeout(60):
            _, _, refusal = await read_to_the_end(stream)

        assert refusal.reason == "REVOKED"
