"""A subscriber in a separate process that measures the delay of each event: `python -m bench.listener '{...}'`.

For every line on its input it prints one JSON line with what it measured since the last one. It parses every event, so
it can be used only for streams that are slow enough. The delay is the time on its own clock less the worker's time of
the event.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from typing import Any

import grpc.aio
import uvloop

from mxgw.convert import timestamp_to_ns
from mxgw.v1.event_service_pb2 import OverflowPolicyChoice, StreamEventsRequest, StreamEventsResponse

from bench.dialects import STREAM_EVENTS
from bench.processes import environment, module

# Each stream gets its own connection.
OPTIONS = [("grpc.use_local_subchannel_pool", 1)]


def stream(target: str, session_id: str, policy: str = "") -> Any:
    """Return a call that reads the stream of a session as unparsed bytes."""
    request = StreamEventsRequest(session_id=session_id, policy=OverflowPolicyChoice(name=policy))
    channel = grpc.aio.insecure_channel(target, options=OPTIONS)
    call = channel.unary_stream(STREAM_EVENTS)(request.SerializeToString())
    call.channel = channel  # the channel must exist as long as the call
    return call


async def listen(target: str, session_id: str) -> None:
    """Measure until the input ends."""
    call = stream(target, session_id, "disconnect")
    delays: list[int] = []
    sequence = missed = gaps = 0
    loop = asyncio.get_running_loop()

    def report() -> None:
        nonlocal delays
        taken, delays = sorted(delays), []
        figures: dict[str, float] = {"events": len(taken), "missed": missed, "gaps": gaps}
        if taken:
            figures |= {f"p{p}_ms": taken[min(len(taken) - 1, len(taken) * p // 100)] / 1e6 for p in (50, 99)}
            figures["max_ms"] = taken[-1] / 1e6
        print(json.dumps(figures), flush=True)

    def follow_input() -> None:
        for _ in sys.stdin:
            loop.call_soon_threadsafe(report)
        loop.call_soon_threadsafe(call.cancel)

    threading.Thread(target=follow_input, daemon=True).start()
    try:
        while (frame := await call.read()) is not grpc.aio.EOF:
            arrived_ns = time.time_ns()
            message = StreamEventsResponse.FromString(frame)
            gaps += message.HasField("gap")
            for event in message.events.events:
                missed += event.sequence - sequence - 1
                sequence = event.sequence
                delays.append(arrived_ns - timestamp_to_ns(event.worker_time))
    except asyncio.CancelledError:
        return


class Child:
    """A process that answers each line with a JSON line."""

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()
        )

    @classmethod
    def listener(cls, target: str, session_id: str) -> Child:
        """Start a listener process for a session."""
        return cls(module("listener", json.dumps({"target": target, "session_id": session_id})))

    async def line(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(await asyncio.to_thread(self._process.stdout.readline))

    async def ask(self) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return await self.line()

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


if __name__ == "__main__":
    uvloop.run(listen(**json.loads(sys.argv[1])))
