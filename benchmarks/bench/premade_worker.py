"""A worker that sends events made beforehand, so that a benchmark measures only the gateway.

It carries out the handshake and answers commands like a real worker. It is started by a gateway that `bench.launch`
runs.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys

from mxgw.worker.v1.worker_pb2 import CommandReply, Pong, Ready, WorkerEnvelope
from mxgw_worker.gateway_connection import block_frame
from mxgw_worker.ipc.framing import FrameDecoder, frame
from mxgw_worker.ipc.handshake import WorkerHandshake
from mxgw_worker.ipc.startup import read_startup
from mxgw_worker.outbox import Block
from mxgw_worker.platform import start_ticks

from bench.events import Blocks
from bench.source import BURST_BLOCKS
from bench.window import Window


class PremadeWorker:
    """Connects, carries out the handshake, waits for the readers, and then sends events as fast as they read."""

    def __init__(self) -> None:
        startup = read_startup(sys.stdin.buffer)
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(startup.endpoint)
        self._decoder = FrameDecoder(startup.maximum_frame_bytes)
        self._handshake = WorkerHandshake(
            session_id=startup.session_id,
            secret=startup.secret,
            epoch=os.urandom(16),
            pid=os.getpid(),
            start_ticks=start_ticks(os.getpid()),
        )
        self._is_stopped = False

    def run(self) -> None:
        self._send(WorkerEnvelope(hello=self._handshake.hello(0, 1)))
        while not self._receive(None):
            pass
        window, blocks, number = Window.named(), Blocks(), 0
        while not window.is_open and not self._is_stopped:
            self._receive(0.001)
        while not self._is_stopped:
            burst: list[bytes] = []
            for _ in range(BURST_BLOCKS):
                first, last, records = blocks.block(number)
                burst.append(block_frame(Block(first, last, [records])))
                number += 1
            self._socket.sendall(b"".join(burst))
            self._receive(0)
            while not window.has_room(last) and not self._is_stopped:
                self._receive(window.look_again_s)

    def _receive(self, timeout_s: float | None) -> bool:
        """Process the messages that came. Return True when the handshake was completed by one of them."""
        if not select.select([self._socket], [], [], timeout_s)[0]:
            return False
        data = self._socket.recv(65536)
        self._is_stopped |= not data
        is_proven = False
        for payload in self._decoder.feed(data):
            is_proven |= self._act(WorkerEnvelope.FromString(payload))
        return is_proven

    def _act(self, envelope: WorkerEnvelope) -> bool:
        match envelope.WhichOneof("body"):
            case "challenge":
                self._send(WorkerEnvelope(proof=self._handshake.on_challenge(envelope.challenge)))
            case "welcome":
                self._handshake.on_welcome(envelope.welcome)
                self._send(WorkerEnvelope(ready=Ready(backend="premade")))
                return True
            case "command":
                self._send(WorkerEnvelope(correlation_id=envelope.correlation_id, reply=CommandReply()))
            case "ping":
                self._send(WorkerEnvelope(pong=Pong(token=envelope.ping.token)))
            case "stop" | "reject":
                self._is_stopped = True
        return False

    def _send(self, envelope: WorkerEnvelope) -> None:
        self._socket.sendall(frame(envelope.SerializeToString()))


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the session was closed while events were sent
        PremadeWorker().run()
