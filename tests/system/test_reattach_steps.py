"""The gateway dies at each named step of spawn, hello, adopt and close; what follows is the table of docs/reattach.md.

After each of them, and the end of the session if there is one: no stray process, no socket, no row in the manifest.
"""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass

import grpc.aio
import psutil
import pytest
from support.adoption import LOAD, adopted
from support.clients import Client, client_of
from support.repository import ROOT
from support.restarts import Restarts, restarts

from mxgw.v1 import commands_pb2 as c
from mxgw.v1 import session_service_pb2 as ss
from mxgw.v1.command_service_pb2 import InvokeRequest
from mxgw_core.failpoints import STEPS

# What becomes of the session: none was begun; its end is remembered with a reason; or it goes on.
NONE, ADOPTED = "no session", "adopted"
NEVER_OPENED = "GATEWAY_SHUTDOWN"
CLOSED = "CLIENT"
EXITED = "WORKER_EXITED"


@dataclass(frozen=True)
class Outcome:
    """`manifest`: the state the dead gateway left; `lives`: whether the worker's process outlived it for good."""

    manifest: str
    lives: bool
    session: str


OUTCOMES = {
    "spawn:before-manifest": Outcome("none", False, NONE),
    "spawn:after-manifest": Outcome("starting", False, NEVER_OPENED),
    "spawn:after-process": Outcome("starting", False, NEVER_OPENED),
    "spawn:after-pid": Outcome("starting", False, NEVER_OPENED),
    "spawn:after-startup": Outcome("starting", False, NEVER_OPENED),
    "hello:before-manifest": Outcome("starting", False, NEVER_OPENED),
    "hello:after-manifest": Outcome("starting", False, NEVER_OPENED),
    "hello:after-welcome": Outcome("starting", True, NEVER_OPENED),
    "hello:before-ready": Outcome("starting", True, NEVER_OPENED),
    "hello:after-ready": Outcome("ready", True, ADOPTED),
    "adopt:before-listen": Outcome("ready", True, ADOPTED),
    "adopt:after-listen": Outcome("ready", True, ADOPTED),
    "adopt:before-manifest": Outcome("ready", True, ADOPTED),
    "adopt:after-manifest": Outcome("ready", True, ADOPTED),
    "adopt:after-welcome": Outcome("ready", True, ADOPTED),
    "adopt:before-ready": Outcome("ready", True, ADOPTED),
    "adopt:after-ready": Outcome("ready", True, ADOPTED),
    "write:before-answer": Outcome("ready", True, ADOPTED),
    "close:before-manifest": Outcome("ready", True, ADOPTED),
    "close:after-manifest": Outcome("closing", True, CLOSED),
    "close:after-stop": Outcome("closing", False, CLOSED),
    "close:after-exit": Outcome("closing", False, CLOSED),
    "close:after-delete": Outcome("none", False, CLOSED),
}


async def _die_at(gateway: Restarts, step: str) -> psutil.Process | None:
    """Bring a gateway to die at this step; return the worker it had before, if any."""
    worker = None
    if step.startswith("adopt:"):
        await gateway.start()
        async with client_of(gateway.target) as client:
            await client.open()
        (worker,) = gateway.workers()
        await gateway.kill()
        await gateway.started(failpoint=step)
    else:
        await gateway.start(failpoint=step)
        async with client_of(gateway.target) as client:
            await _ask(client, step)
    assert await gateway.ended() == -signal.SIGKILL
    return worker


async def _ask(client: Client, step: str) -> None:
    """Make the call in which the gateway is to die."""
    kind = step.partition(":")[0]
    session_id = "" if kind in ("spawn", "hello") else (await client.open()).session_id
    write = InvokeRequest(session_id=session_id, command=c.MxCommand(write=c.WriteCommand()), request_id=bytes(16))
    match kind:
        case "write":
            call = client.commands.Invoke(write, timeout=20)
        case "close":
            call = client.close(session_id)
        case _:
            call = client.open()
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call

    assert failed.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.asyncio
@pytest.mark.parametrize("step", STEPS)
async def test_a_gateway_that_dies_at_a_step_leaves_what_the_table_says(step: str) -> None:
    outcome = OUTCOMES[step]
    async with restarts(LOAD) as gateway:
        await _die_at(gateway, step)
        rows = gateway.rows()

        assert [state for _, state in rows] == ([] if outcome.manifest == "none" else [outcome.manifest])

        if not outcome.lives:
            await gateway.no_worker_is_left()  # it leaves by itself, without a gateway to end it

        await gateway.start()
        async with client_of(gateway.target) as client:
            listed = await client.sessions.ListSessions(ss.ListSessionsRequest(include_ended=True))
            if outcome.session == NONE:
                assert not listed.sessions
            else:
                session_id = rows[0][0] if rows else listed.sessions[0].session_id

                assert [session.session_id for session in listed.sessions] == [session_id]

                if outcome.session == ADOPTED:
                    await adopted(client, session_id)
                    await client.register(session_id)
                closed = await client.close(session_id)

                assert ss.CloseReason.Name(closed.close_reason) == "CLOSE_REASON_" + (
                    CLOSED if outcome.session == ADOPTED else outcome.session
                )
            await gateway.all_is_gone()


@pytest.mark.asyncio
@pytest.mark.parametrize("step", ["adopt:after-manifest", "adopt:after-welcome"])
async def test_gateways_that_die_one_after_another_at_the_rotation_keep_no_worker_out(step: str) -> None:
    async with restarts(LOAD) as gateway:
        await _die_at(gateway, step)
        for _ in range(3):
            await gateway.started(failpoint=step)

            assert await gateway.ended() == -signal.SIGKILL

        ((session_id, _),) = gateway.rows()
        await gateway.start()
        async with client_of(gateway.target) as client:
            await adopted(client, session_id)
            await client.close(session_id)
            await gateway.all_is_gone()


def test_the_table_of_the_documentation_is_this_one() -> None:
    page = (ROOT / "docs" / "reattach.md").read_text()
    rows = re.findall(r"^\| `([a-z]+:[a-z-]+)` \|[^|]*\| (\w+) \| (\w+) \| ([^|]+?) \|$", page, re.MULTILINE)
    shown = {step: Outcome(manifest, lives == "yes", session.strip("`")) for step, manifest, lives, session in rows}

    assert shown == OUTCOMES
    assert tuple(shown) == STEPS
