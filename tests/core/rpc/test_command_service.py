"""What of a command is held while its worker takes its time."""

from __future__ import annotations

import asyncio
import weakref
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mxgw.v1 import command_service_pb2 as cs
from mxgw.v1 import commands_pb2 as c
from mxgw.worker.v1 import worker_pb2 as w
from mxgw_core.api.calls import Call
from mxgw_core.api.types import ANONYMOUS, Peer
from mxgw_core.config.models import Settings
from mxgw_core.plugins import PluginHost
from mxgw_core.rpc.access import AccessControl
from mxgw_core.rpc.command_service import CommandService
from mxgw_core.workers.commands import PendingCommands

pytestmark = pytest.mark.asyncio


class Request:
    """A request that can be seen to be gone: messages themselves cannot be referred to weakly."""

    def __init__(self, message: cs.InvokeRequest) -> None:
        self._message = message

    def __getattr__(self, name: str) -> Any:
        return getattr(self._message, name)


class _Session:
    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.is_sent = asyncio.Event()
        self.commands = PendingCommands(1, 1_000_000)
        self.commands.connection = self
        self.worker = SimpleNamespace(commands=self.commands)

    def send_encoded(self, *parts: bytes) -> None:
        self.sent.append(w.WorkerEnvelope.FromString(b"".join(parts)).command.SerializeToString())
        self.is_sent.set()

    def info(self) -> None: ...

    def require_ready(self) -> None: ...

    def touch(self) -> None: ...


@pytest.mark.parametrize("request_id", [b"", b"0123456789abcdef"])
async def test_nobody_holds_the_request_while_the_worker_runs_it(request_id: bytes) -> None:
    session = _Session()
    registry = SimpleNamespace(info=lambda _: None, get=lambda _: session)
    service = CommandService(Settings(), cast("Any", registry), AccessControl(PluginHost.load(Settings())))
    command = c.MxCommand(write=c.WriteCommand(server_handle=1, item_handle=2))
    call = Call("/mxgw.v1.CommandService/Invoke", ANONYMOUS, Peer("unix", is_local=True), None, 100_000)
    request = Request(cs.InvokeRequest(session_id="s", command=command, request_id=request_id))
    gone = weakref.ref(request)
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(service.Invoke(cast("Any", request), call))
        del request
        await session.is_sent.wait()

        assert gone() is None
        assert w.CommandRequest.FromString(session.sent[0]).mx == command

        session.commands.answered(1, w.CommandReply(mx=c.MxReply(hresult=7)))

    assert running.result().reply.hresult == 7
