"""The gateway's end of a worker connection against peers that are not what they should be.

Each is told why, and cut; the endpoint lives on, and the true worker is taken afterwards.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio
from support.clock import advance
from support.events import EPOCH
from support.peers import SECRET, SESSION, block, scripted_worker

from mxgw.worker.v1 import worker_pb2 as w
from mxgw_core.workers import connection as connection_module
from mxgw_core.workers.connection import BrokenProtocol, WorkerConnection
from mxgw_worker.ipc.framing import frame
from mxgw_worker.ipc.handshake import EPOCH_BYTES, NONCE_BYTES, PROTOCOL_VERSION, GatewayHandshake, WorkerHandshake
from mxgw_worker.platform import Listener, PeerCredentials, endpoint_in

pytestmark = pytest.mark.asyncio

FRAME_BYTES = 64 * 1024


@dataclass
class Endpoint:
    """A socket as the gateway opens it for one worker, and what its owner is told."""

    path: Path
    expected_pid: int | None = None
    taken: WorkerConnection | None = None
    received: list[w.WorkerEnvelope] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def accept(self) -> WorkerConnection:
        return WorkerConnection(
            self,
            lambda: GatewayHandshake(session_id=SESSION, secret=SECRET),
            expected_pid=lambda: self.expected_pid,
            frame_bytes=FRAME_BYTES,
        )

    # ConnectionOwner

    def resume_after(self, hello: w.Hello) -> int:
        return 7 if hello.epoch == EPOCH else 0

    def claim(self, connection: WorkerConnection) -> bool:
        if self.taken is not None:
            return False
        self.taken = connection
        return True

    def on_messages(self, envelopes: Sequence[w.WorkerEnvelope]) -> None:
        self.received += envelopes
        self.changed.set()
        if any(envelope.HasField("hello") for envelope in envelopes):
            raise BrokenProtocol("a Hello out of place")

    def on_lost(self, connection: WorkerConnection, detail: str) -> None:
        self.lost.append(detail)
        self.changed.set()

    def on_refused(self, connection: WorkerConnection, reason: str, detail: str) -> None:
        self.refused.append(reason)

    async def received_count(self, count: int) -> None:
        async with asyncio.timeout(60):
            while len(self.received) < count:
                self.changed.clear()
                await self.changed.wait()

    async def was_lost(self) -> str:
        async with asyncio.timeout(60):
            while not self.lost:
                self.changed.clear()
                await self.changed.wait()
        return self.lost[0]


@pytest_asyncio.fixture
async def endpoint(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Endpoint]:
    made = Endpoint(endpoint_in(tmp_path_factory.mktemp("l"), "w"))
    listener = Listener(made.path, lambda path: path.unlink(missing_ok=True))
    await listener.listen(made.accept)
    try:
        yield made
    finally:
        if made.taken is not None:
            made.taken.abort()
        listener.close()


async def _true_worker_is_taken(endpoint: Endpoint) -> None:
    """What must hold after every attack."""
    before = len(endpoint.received)
    async with scripted_worker(endpoint.path) as worker:
        await worker.shake()
        worker.send(w.WorkerEnvelope(pong=w.Pong(token=1)))
        await endpoint.received_count(before + 1)

        assert endpoint.received[-1].pong.token == 1


def _hello(**changes: object) -> w.Hello:
    fields: dict[str, object] = {
        "protocol_version": PROTOCOL_VERSION,
        "session_id": SESSION,
        "epoch": EPOCH,
        "pid": os.getpid(),
        "worker_nonce": bytes(NONCE_BYTES),
    }
    return w.Hello(**{**fields, **changes})  # type: ignore[arg-type]


async def _refused(endpoint: Endpoint, *first: w.WorkerEnvelope) -> str:
    async with scripted_worker(endpoint.path) as false:
        false.send(*first)
        reason = await false.refusal()

    assert endpoint.refused == [reason]
    assert endpoint.taken is None
    assert endpoint.received == []

    await _true_worker_is_taken(endpoint)
    return reason


async def test_the_true_worker_is_welcomed_and_told_where_to_go_on(endpoint: Endpoint) -> None:
    async with scripted_worker(endpoint.path) as worker:
        welcome = await worker.shake()

        assert welcome.resume_after == 7
        assert endpoint.refused == []


# hellos


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({"protocol_version": PROTOCOL_VERSION + 1}, "PROTOCOL_VERSION", id="newer protocol"),
        pytest.param({"protocol_version": 0}, "PROTOCOL_VERSION", id="no protocol"),
        pytest.param({"session_id": "another"}, "WRONG_SESSION", id="another session"),
        pytest.param({"session_id": ""}, "WRONG_SESSION", id="no session"),
        pytest.param({"epoch": bytes(EPOCH_BYTES - 1)}, "MALFORMED_HELLO", id="short epoch"),
        pytest.param({"worker_nonce": b""}, "MALFORMED_HELLO", id="no nonce"),
        pytest.param({"worker_nonce": bytes(NONCE_BYTES + 1)}, "MALFORMED_HELLO", id="long nonce"),
        pytest.param({"pid": -1}, "MALFORMED_HELLO", id="no pid"),
        pytest.param({"head_sequence": 3, "outbox_oldest": 9}, "MALFORMED_HELLO", id="impossible outbox"),
        pytest.param({"pid": 1}, "WRONG_PROCESS", id="another process's pid"),
    ],
)
async def test_a_false_hello_is_refused(endpoint: Endpoint, changes: dict[str, object], reason: str) -> None:
    assert await _refused(endpoint, w.WorkerEnvelope(hello=_hello(**changes))) == reason


# proofs


async def test_a_peer_without_the_secret_is_refused(endpoint: Endpoint) -> None:
    async with scripted_worker(endpoint.path) as false:
        with pytest.raises(AssertionError, match="without a welcome"):
            await false.shake(secret=bytes(32))

    assert endpoint.refused == ["BAD_PROOF"]

    await _true_worker_is_taken(endpoint)


@pytest.mark.parametrize("mac", [b"", bytes(32), bytes(31), bytes(64)])
async def test_a_wrong_proof_is_refused(endpoint: Endpoint, mac: bytes) -> None:
    async with scripted_worker(endpoint.path) as false:
        false.send(w.WorkerEnvelope(hello=_hello()))
        await false.receive_kind("challenge")
        false.send(w.WorkerEnvelope(proof=w.Proof(mac=mac)))

        assert await false.refusal() == "BAD_PROOF"

    await _true_worker_is_taken(endpoint)


async def test_a_proof_over_another_nonce_is_refused(endpoint: Endpoint) -> None:
    async with scripted_worker(endpoint.path) as false:
        handshake = WorkerHandshake(session_id=SESSION, secret=SECRET, epoch=EPOCH, pid=os.getpid(), start_ticks=0)
        false.send(w.WorkerEnvelope(hello=handshake.hello(0, 1)))
        await false.receive_kind("challenge")
        false.send(w.WorkerEnvelope(proof=handshake.on_challenge(w.Challenge(gateway_nonce=bytes(NONCE_BYTES)))))

        assert await false.refusal() == "BAD_PROOF"

    await _true_worker_is_taken(endpoint)


async def test_a_replayed_transcript_is_refused(endpoint: Endpoint) -> None:
    handshake = WorkerHandshake(session_id=SESSION, secret=SECRET, epoch=EPOCH, pid=os.getpid(), start_ticks=0)
    hello = w.WorkerEnvelope(hello=handshake.hello(0, 1))
    async with scripted_worker(endpoint.path) as true:
        true.send(hello)
        challenge = await true.receive_kind("challenge")
        proof = w.WorkerEnvelope(proof=handshake.on_challenge(challenge.challenge))
        true.send(proof)
        await true.receive_kind("welcome")
    await endpoint.was_lost()
    endpoint.taken = None
    async with scripted_worker(endpoint.path) as replaying:
        replaying.send(hello)
        await replaying.receive_kind("challenge")
        replaying.send(proof)

        assert await replaying.refusal() == "BAD_PROOF"

    await _true_worker_is_taken(endpoint)


async def test_who_never_proves_itself_is_cut_in_time(endpoint: Endpoint) -> None:
    async with scripted_worker(endpoint.path) as silent, scripted_worker(endpoint.path) as half:
        half.send(w.WorkerEnvelope(hello=_hello()))
        await half.receive_kind("challenge")
        advance(6)

        assert await silent.refusal() == "PROOF_TIMEOUT"
        assert await half.refusal() == "PROOF_TIMEOUT"

    await _true_worker_is_taken(endpoint)


async def test_the_proof_timeout_is_over_once_proven(endpoint: Endpoint) -> None:
    async with scripted_worker(endpoint.path) as worker:
        await worker.shake()
        advance(60)  # the time that must not matter
        worker.send(w.WorkerEnvelope(pong=w.Pong(token=2)))
        await endpoint.received_count(1)

        assert endpoint.lost == []


# order


@pytest.mark.parametrize(
    "envelope",
    [
        pytest.param(w.WorkerEnvelope(ready=w.Ready(backend="sim")), id="ready"),
        pytest.param(block(1, 1), id="events"),
        pytest.param(w.WorkerEnvelope(correlation_id=1, reply=w.CommandReply()), id="reply"),
        pytest.param(w.WorkerEnvelope(proof=w.Proof(mac=bytes(32))), id="proof"),
        pytest.param(w.WorkerEnvelope(welcome=w.Welcome()), id="welcome"),
        pytest.param(w.WorkerEnvelope(goodbye=w.Goodbye()), id="goodbye"),
        pytest.param(w.WorkerEnvelope(correlation_id=3), id="empty"),
    ],
)
async def test_anything_but_a_hello_at_first_is_refused(endpoint: Endpoint, envelope: w.WorkerEnvelope) -> None:
    assert await _refused(endpoint, envelope) == "UNEXPECTED_MESSAGE"


@pytest.mark.parametrize(
    "second",
    [
        pytest.param(w.WorkerEnvelope(hello=_hello()), id="hello"),
        pytest.param(w.WorkerEnvelope(ready=w.Ready(backend="sim")), id="ready"),
        pytest.param(block(1, 1), id="events"),
    ],
)
async def test_anything_but_a_proof_after_the_challenge_is_refused(
    endpoint: Endpoint, second: w.WorkerEnvelope
) -> None:
    async with scripted_worker(endpoint.path) as false:
        false.send(w.WorkerEnvelope(hello=_hello()), second)

        await false.receive_kind("challenge")
        assert await false.refusal() == "UNEXPECTED_MESSAGE"

    assert endpoint.received == []

    await _true_worker_is_taken(endpoint)


async def test_a_second_connection_to_a_taken_endpoint_is_refused_even_with_the_secret(endpoint: Endpoint) -> None:
    async with scripted_worker(endpoint.path) as first:
        await first.shake()
        async with scripted_worker(endpoint.path) as second:
            with pytest.raises(AssertionError, match="without a welcome"):
                await second.shake()
        async with scripted_worker(endpoint.path) as third:
            with pytest.raises(AssertionError, match="without a welcome"):
                await third.shake(secret=bytes(32))
        first.send(w.WorkerEnvelope(pong=w.Pong(token=5)))
        await endpoint.received_count(1)

    # Only who proved itself learns that the endpoint is taken.
    assert endpoint.refused == ["ALREADY_CONNECTED", "BAD_PROOF"]
    assert await endpoint.was_lost() == "the connection ended"


async def test_another_process_is_refused_before_it_says_a_word(endpoint: Endpoint) -> None:
    endpoint.expected_pid = os.getpid() + 1
    async with scripted_worker(endpoint.path) as false:
        assert await false.refusal() == "WRONG_PROCESS"

    endpoint.expected_pid = os.getpid()
    await _true_worker_is_taken(endpoint)


async def test_another_user_is_refused_before_it_says_a_word(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What the platform would report of another user's process.
    foreign = PeerCredentials(os.getpid(), 4711, same_user=False)
    monkeypatch.setattr(connection_module, "peer_credentials", lambda _: foreign)
    async with scripted_worker(endpoint.path) as false:
        assert await false.refusal() == "WRONG_USER"

    monkeypatch.undo()
    await _true_worker_is_taken(endpoint)


async def test_a_child_process_that_knows_the_secret_and_lies_about_its_pid_is_refused(endpoint: Endpoint) -> None:
    code = (
        "import asyncio, sys; sys.path[:0] = sys.argv[4].split(':')\n"
        "from pathlib import Path\n"
        "from support.peers import scripted_worker\n"
        "async def main():\n"
        "    async with scripted_worker(Path(sys.argv[1])) as worker:\n"
        "        await worker.shake(secret=bytes.fromhex(sys.argv[2]), pid=int(sys.argv[3]))\n"
        "asyncio.run(main())\n"
    )
    arguments = [sys.executable, "-c", code, str(endpoint.path), SECRET.hex(), str(os.getpid()), ":".join(sys.path)]
    process = await asyncio.create_subprocess_exec(*arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    async with asyncio.timeout(60):
        _, stderr = await process.communicate()

    assert b"without a challenge" in stderr
    assert endpoint.refused == ["WRONG_PROCESS"]

    await _true_worker_is_taken(endpoint)


# bytes


async def test_a_handshake_that_comes_byte_by_byte_is_as_good(endpoint: Endpoint) -> None:
    async with scripted_worker(endpoint.path) as worker:
        send_whole = worker.send_raw

        def send(*envelopes: w.WorkerEnvelope) -> None:
            for envelope in envelopes:
                for byte in frame(envelope.SerializeToString()):
                    send_whole(bytes([byte]))

        worker.send = send  # type: ignore[method-assign]
        await worker.shake()
        worker.send(w.WorkerEnvelope(pong=w.Pong(token=9)), block(1, 3))
        await endpoint.received_count(2)

    assert [e.WhichOneof("body") for e in endpoint.received] == ["pong", "events"]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x00\x00\x00\x00", id="length 0"),
        pytest.param(b"\xff\xff\xff\xff", id="length 4 GiB"),
        pytest.param((4097).to_bytes(4, "big"), id="more than the unproven may send"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="http"),
        pytest.param(frame(b"\xff\xff\xff"), id="no envelope"),
        pytest.param(frame(b"\x12\x03\x08"), id="cut envelope"),
    ],
)
async def test_garbage_at_first_is_refused(endpoint: Endpoint, data: bytes) -> None:
    async with scripted_worker(endpoint.path) as false:
        false.send_raw(data)

        assert await false.refusal() == "MALFORMED"

    await _true_worker_is_taken(endpoint)


async def test_an_end_inside_a_frame_is_told_as_such(endpoint: Endpoint) -> None:
    async with scripted_worker(endpoint.path) as false:
        false.send_raw(frame(bytes(100))[:50])
        if not false.writer.can_write_eof():
            pytest.skip("a named pipe can only be closed as a whole")
        false.writer.write_eof()
        await false.ended()

    assert endpoint.refused == ["MALFORMED"]

    await _true_worker_is_taken(endpoint)


@pytest.mark.parametrize(
    ("data", "detail"),
    [
        pytest.param(b"\x00\x00\x00\x00", "length 0", id="length 0"),
        pytest.param((FRAME_BYTES + 1).to_bytes(4, "big"), "workers.frame_bytes", id="oversized"),
        pytest.param(frame(b"\xff\xff\xff"), "no WorkerEnvelope", id="garbage"),
        pytest.param(frame(block(1, 1).SerializeToString())[:-3] + frame(b"\x12"), "", id="frames interleaved"),
    ],
)
async def test_a_proven_worker_that_breaks_the_framing_is_cut(endpoint: Endpoint, data: bytes, detail: str) -> None:
    async with scripted_worker(endpoint.path) as worker:
        await worker.shake()
        worker.send_raw(data)
        worker.send_raw(frame(w.WorkerEnvelope(pong=w.Pong(token=1)).SerializeToString()))
        if worker.writer.can_write_eof():
            worker.writer.write_eof()
        else:
            await worker.close()

        assert detail in await endpoint.was_lost()

        await worker.ended()

    assert len(endpoint.lost) == 1
    assert all(not e.HasField("pong") for e in endpoint.received)


async def test_the_largest_frame_of_a_proven_worker_is_taken(endpoint: Endpoint) -> None:
    async with scripted_worker(endpoint.path) as worker:
        await worker.shake()
        room = FRAME_BYTES - len(block(1, 1, bytes(FRAME_BYTES)).SerializeToString()) + FRAME_BYTES
        worker.send(block(1, 1, bytes(room)))
        await endpoint.received_count(1)

    assert endpoint.received[0].ByteSize() == FRAME_BYTES


async def test_what_the_owner_calls_broken_is_cut_and_nothing_more_is_heard(endpoint: Endpoint) -> None:
    async with scripted_worker(endpoint.path) as worker:
        await worker.shake()
        worker.send(w.WorkerEnvelope(hello=_hello()))

        assert await endpoint.was_lost() == "a Hello out of place"

        await worker.ended()


async def test_a_connection_that_was_closed_sends_nothing_and_tells_nobody(endpoint: Endpoint) -> None:
    async with scripted_worker(endpoint.path) as worker:
        await worker.shake()

        assert endpoint.taken is not None

        endpoint.taken.close()
        endpoint.taken.send(w.WorkerEnvelope(ping=w.Ping(token=1)))
        await worker.ended()

    assert endpoint.lost == []


async def test_a_crowd_of_false_workers_leaves_nothing_behind(endpoint: Endpoint) -> None:
    async def attack(number: int) -> None:
        async with scripted_worker(endpoint.path) as false:
            false.send_raw(bytes([number]) * 7)
            await false.ended()

    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        for number in range(60):
            tasks.create_task(attack(number))

    assert set(endpoint.refused) == {"MALFORMED"}

    await _true_worker_is_taken(endpoint)
