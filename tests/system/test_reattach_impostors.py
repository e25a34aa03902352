"""Other processes and other users cannot be adopted, and a second gateway cannot adopt."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys

import pytest
from support.adoption import LOAD, adopted
from support.clients import client_of
from support.peers import scripted_worker
from support.restarts import Restarts, restarts
from support.waiting import until

from mxgw_core.data_directory import DataDirectory

pytestmark = pytest.mark.asyncio

# Connects as another user and prints the reason of the Reject.
_AS_ANOTHER_USER = """
import os, socket, sys
from mxgw.worker.v1.worker_pb2 import WorkerEnvelope
os.setgid(65534); os.setuid(65534)
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])
length = int.from_bytes(s.recv(4), "big")
print(WorkerEnvelope.FromString(s.recv(length)).reject.reason)
"""


async def _waiting(gateway: Restarts) -> tuple[str, object]:
    """Bring a gateway to where it waits for its one worker, which is stopped; return session and process."""
    await gateway.start()
    async with client_of(gateway.target) as client:
        session = await client.open()
    (worker,) = gateway.workers()
    worker.suspend()
    await gateway.kill()
    await gateway.start()
    return session.session_id, worker


async def test_another_process_is_refused_before_it_can_say_anything_and_the_worker_adopted() -> None:
    async with restarts(LOAD) as gateway:
        session_id, worker = await _waiting(gateway)
        db = sqlite3.connect(gateway.data / "manifest.sqlite3")
        secret, pid = db.execute("SELECT secret, pid FROM worker").fetchone()
        db.close()
        (socket,) = gateway.sockets()
        for _ in range(2):
            async with scripted_worker(socket) as impostor:
                assert await impostor.refusal() == "WRONG_PROCESS"

        worker.resume()  # type: ignore[attr-defined]
        async with client_of(gateway.target) as client:
            assert (await adopted(client, session_id)).worker_pid == pid

            await client.close(session_id)

        assert gateway.log.count("refused a worker connection") == 2
        assert secret.hex() not in gateway.log
        assert repr(secret) not in gateway.log

        await gateway.all_is_gone()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
async def test_another_user_is_refused_even_where_the_directory_lets_it_in() -> None:
    async with restarts(LOAD) as gateway:
        session_id, worker = await _waiting(gateway)
        (socket,) = gateway.sockets()
        for path in (gateway.directory, gateway.data, gateway.data / "run"):
            path.chmod(0o755)
        socket.chmod(0o777)
        done = subprocess.run(  # noqa: ASYNC221  a fraction of a second of a test
            [sys.executable, "-c", _AS_ANOTHER_USER, str(socket)], capture_output=True, text=True, timeout=60
        )

        assert done.stdout.strip() == "WRONG_USER", done.stderr

        worker.resume()  # type: ignore[attr-defined]
        async with client_of(gateway.target) as client:
            await adopted(client, session_id)
            await client.close(session_id)

        assert "user 65534: WRONG_USER" in gateway.log

        await gateway.all_is_gone()


async def test_a_second_gateway_on_the_same_directory_is_refused_before_it_touches_a_socket() -> None:
    async with restarts(LOAD) as gateway:
        session_id, worker = await _waiting(gateway)
        first, gateway.process = gateway.process, None

        assert await gateway.started() == ""
        assert await gateway.ended() != 0
        assert "in use by another gateway" in gateway.log

        gateway.process = first
        worker.resume()  # type: ignore[attr-defined]
        async with client_of(gateway.target) as client:
            await adopted(client, session_id)
            await client.close(session_id)
        await gateway.all_is_gone()


async def test_a_reused_pid_is_no_worker_and_whoever_has_it_now_lives_on() -> None:
    async with restarts(LOAD) as gateway:
        await gateway.start()
        async with client_of(gateway.target) as client:
            await client.open()
        (worker,) = gateway.workers()
        await gateway.kill()
        worker.kill()
        await until(lambda: not gateway.workers())
        innocent = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])  # noqa: ASYNC220
        try:
            db = sqlite3.connect(gateway.data / "manifest.sqlite3")
            db.execute("UPDATE worker SET pid = ?", (innocent.pid,))
            db.commit()
            db.close()
            await gateway.start()
            await gateway.all_is_gone()

            assert innocent.poll() is None
            assert "left alone" in gateway.log
        finally:
            innocent.kill()
            innocent.wait()


async def test_the_manifest_is_private() -> None:
    async with restarts(LOAD) as gateway:
        await gateway.start()
        async with client_of(gateway.target) as client:
            await client.open()
        files = list(gateway.data.glob("manifest.sqlite3*"))

        assert len(files) == 3
        assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
        assert DataDirectory(gateway.data).path.stat().st_mode & 0o777 == 0o700
