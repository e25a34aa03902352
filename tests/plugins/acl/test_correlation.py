"""The id of a call: the caller's own or a fresh one, in the audit log and in what the caller is told."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from support.clients import Client
from support.keys import Guarded, client_with, guarded_gateway

from mxgw.v1 import commands_pb2 as c
from mxgw_acl.patterns import ItemPatterns

pytestmark = pytest.mark.asyncio


def correlations(guarded: Guarded, *actions: str) -> Sequence[str]:
    return [line["correlation"] for line in guarded.audit() if line["action"] in actions]


async def trailing(call: Any) -> dict[str, Any]:
    """Return the trailing metadata of a call that is refused."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return dict(caught.value.trailing_metadata() or ())


@contextlib.asynccontextmanager
async def asking(guarded: Guarded, text: str, request_id: str) -> Any:
    metadata = {"authorization": f"Bearer {text}", "x-request-id": request_id}
    async with client_with(guarded.target, metadata=metadata) as client:
        yield client


async def test_the_id_that_a_caller_brings_is_in_every_record_of_the_call_and_no_other(tmp_path: Path) -> None:
    async with guarded_gateway(tmp_path) as guarded:
        _, text = guarded.issue()
        async with asking(guarded, text, "trace-1") as client:
            session_id = (await client.open()).session_id
        async with asking(guarded, text, "trace-2") as client:
            await client.close(session_id)

        assert correlations(guarded, "OpenSession", "session opened") == ["trace-1", "trace-1"]
        assert correlations(guarded, "CloseSession") == ["trace-2"]
        # It ends in its own time: neither of the calls.
        assert correlations(guarded, "session closed") == [""]


async def test_without_one_each_call_has_its_own(tmp_path: Path) -> None:
    async with guarded_gateway(tmp_path) as guarded:
        _, text = guarded.issue()
        async with client_with(guarded.target, text) as client:
            for _ in range(3):
                await client.open()
        made = correlations(guarded, "OpenSession")

        assert len(set(made)) == 3
        assert all(len(each) == 16 for each in made)


@pytest.mark.parametrize("brought", ["", "x" * 65, "two words", 'quote"', "back\\slash"])
async def test_an_id_that_could_disturb_a_log_is_not_taken(tmp_path: Path, brought: str) -> None:
    async with guarded_gateway(tmp_path) as guarded:
        _, text = guarded.issue()
        async with asking(guarded, text, brought) as client:
            await client.open()
        (used,) = correlations(guarded, "OpenSession")

        assert used != brought
        assert len(used) == 16


async def test_whoever_is_refused_is_told_under_which_id(tmp_path: Path) -> None:
    async with guarded_gateway(tmp_path) as guarded:
        _, text = guarded.issue(scopes=frozenset())
        async with asking(guarded, text, "mine") as client, client_with(guarded.target) as stranger:
            told = [await trailing(client.open()), await trailing(stranger.open())]

        assert told[0]["x-request-id"] == "mine"
        assert [each["x-request-id"] for each in told] == correlations(guarded, "OpenSession")


async def test_denied_items_are_recorded_under_the_call_that_named_them(tmp_path: Path) -> None:
    async with guarded_gateway(tmp_path) as guarded:
        _, text = guarded.issue(readable=ItemPatterns(("Bench_*",)))

        async def read(client: Client, session_id: str) -> None:
            command = c.ReadBulkCommand(items=[c.ItemReference(item_definition="Other.Item")])
            await client.invoke(session_id, read_bulk=command)

        async with asking(guarded, text, "first") as client:
            session_id = (await client.open()).session_id
            await read(client, session_id)
        async with asking(guarded, text, "second") as client:
            await read(client, session_id)

        assert correlations(guarded, "Invoke read_bulk") == ["first", "second"]


async def test_a_failure_of_the_gateway_is_logged_under_the_same_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from mxgw_core.rpc.session_service import SessionService

    def broken(*_: object) -> Any:
        raise RuntimeError("broken")

    monkeypatch.setattr(SessionService, "OpenSession", broken)
    async with guarded_gateway(tmp_path) as guarded:
        _, text = guarded.issue()
        async with asking(guarded, text, "trace-9") as client:
            told = await trailing(client.open())

        assert told["x-request-id"] == "trace-9"
        assert "correlation id trace-9" in caplog.text
        assert correlations(guarded, "OpenSession") == ["trace-9"]
