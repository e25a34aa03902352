"""The gateway on Windows, in Wine, with clients on this side: gateways and workers killed, impostors refused."""

from __future__ import annotations

import asyncio
import json
import subprocess

import pytest
from support import wine
from support.adoption import LOAD, adopted
from support.chaos import Kind, Outcome, Plan, run
from support.clients import client_of
from support.waiting import until
from support.windows_gateway import WindowsRestarts, needs_windows, windows_restarts

from mxgw.v1 import session_service_pb2 as ss

pytestmark = [needs_windows, pytest.mark.asyncio, pytest.mark.timeout(600)]

# Connects to the pipe of a session's worker, sends what it was given, and prints what it was told until the connection
# was ended.
_IMPOSTOR = r"""
import asyncio, sys
from mxgw.worker.v1.worker_pb2 import WorkerEnvelope
from mxgw_core.data_directory import DataDirectory
from mxgw_worker import platform
from mxgw_worker.ipc.framing import FrameDecoder
from pathlib import Path

class Impostor(asyncio.Protocol):
    def __init__(self):
        self.said, self.ended = [], asyncio.get_running_loop().create_future()
        self.frames = FrameDecoder(1 << 20)
    def connection_made(self, transport):
        transport.write(bytes.fromhex(sys.argv[2]))
    def data_received(self, data):
        self.said += [WorkerEnvelope.FromString(payload).reject.reason for payload in self.frames.feed(data)]
    def connection_lost(self, error):
        self.ended.set_result(None)

async def main():
    address = platform.EndpointAddress(str(DataDirectory(Path(r"Z:\shared\d")).socket_of(sys.argv[1])))
    impostors = [Impostor() for _ in range(int(sys.argv[3]))]
    for impostor in impostors:
        await address.connect(lambda: impostor)
    async with asyncio.timeout(60):
        for impostor in impostors:
            await impostor.ended
    print([impostor.said for impostor in impostors])

asyncio.run(main())
"""


def _nothing_wrong(outcome: Outcome, plan: Plan) -> None:
    assert outcome.unexplained == 0, outcome.report()
    assert outcome.gaps == 0, outcome.report()
    assert outcome.adopted == plan.restarts * plan.sessions


async def test_a_gateway_that_is_killed_takes_its_workers_back_and_no_event_is_lost() -> None:
    plan = Plan({Kind.KILL: 2}, sessions=2, subscribers=2, rate=200)

    _nothing_wrong(await run(plan, windows_restarts), plan)


@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_twenty_five_kills_of_a_gateway_with_many_subscribers_lose_nothing() -> None:
    plan = Plan({Kind.KILL: 25}, sessions=8, subscribers=4, rate=800)

    _nothing_wrong(await run(plan, windows_restarts), plan)


async def test_a_worker_that_is_killed_ends_its_session_and_no_other() -> None:
    async with windows_restarts(LOAD) as gateway:
        await gateway.start()
        async with client_of(gateway.target) as client:
            first = await client.open()
            (worker,) = gateway.workers()
            second = await client.open()
            worker.kill()

            async def state(session_id: str) -> ss.Session:
                answer = await client.sessions.GetSession(ss.GetSessionRequest(session_id=session_id), timeout=60)
                return answer.session

            async with asyncio.timeout(60):
                while True:
                    ended = await state(first.session_id)
                    if ended.state == ss.SESSION_STATE_FAULTED:
                        break
                    await asyncio.sleep(0.01)

            assert ended.close_reason == ss.CLOSE_REASON_WORKER_EXITED
            assert (await state(second.session_id)).state == ss.SESSION_STATE_READY

            await client.close(second.session_id)
        await gateway.terminate()
        await until(lambda: not gateway.workers())


async def test_impostors_at_the_pipe_of_a_worker_are_refused_and_the_worker_is_adopted() -> None:
    async with windows_restarts(LOAD) as gateway:
        await gateway.start()
        async with client_of(gateway.target) as client:
            session = await client.open()
        (worker,) = gateway.workers()
        worker.suspend()
        await gateway.kill()
        await gateway.start()

        assert await _impostors(gateway, session.session_id, sent=b"") == [["WRONG_PROCESS"]]
        assert await _impostors(gateway, session.session_id, sent=b"\0\0\0\5:\3\n\1x") == [["WRONG_PROCESS"]]
        assert await _impostors(gateway, session.session_id, sent=b"\xff" * 4096) == [["WRONG_PROCESS"]]
        assert await _impostors(gateway, session.session_id, sent=b"", count=3) == [["WRONG_PROCESS"]] * 3

        worker.resume()
        async with client_of(gateway.target) as client:
            await adopted(client, session.session_id)
            await client.close(session.session_id)

        assert gateway.log.count("refused a worker connection") == 6

        await gateway.terminate()


async def _impostors(gateway: WindowsRestarts, session_id: str, *, sent: bytes, count: int = 1) -> list[list[str]]:
    """Let this many connections of one other process send these bytes. Return what each was refused with."""
    arguments = ("-c", _IMPOSTOR, session_id, sent.hex(), str(count))
    command = gateway.windows.python(wine.Interpreter.BITS_32, *arguments)
    done = await asyncio.to_thread(
        subprocess.run, command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120
    )

    assert done.returncode == 0, done.stderr

    said: list[list[str]] = json.loads(done.stdout.replace("'", '"'))
    return said
