"""The OPC UA peer: an asyncua server with one variable that is written at full speed. `python -m bench.opcua '{...}'`.

Events and subscribers are as in the other systems, as far as the protocol allows: the value of the variable is the
record of 120 bytes as a ByteString. The subscribers are asyncua clients in one process (`read`), which checks the
sequence of each value.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from typing import Any

from asyncua import Client, Server, ua

from bench.counting import WrongStream
from bench.events import SEQUENCE, SEQUENCE_AT, record_of
from bench.processes import cpu_s
from bench.window import Window

QUEUE = 100_000
PUBLISHING_MS = 10
# How many values are written before the event loop has its turn, so that values are published meanwhile.
SLICE = 50
WARM_UP_S = 0.5


async def serve(port: int) -> None:
    """Run the server, and write values while the window is open."""
    server = Server()
    await server.init()
    server.set_endpoint(f"opc.tcp://127.0.0.1:{port}/bench")
    server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    variable = await server.nodes.objects.add_variable(ua.NodeId("bench", 2), "bench", record_of(0))
    window = Window.named()
    async with server:
        print(json.dumps({"addresses": [f"opc.tcp://127.0.0.1:{port}/bench"]}), flush=True)
        while True:
            sequence = 0
            while not window.is_open:  # noqa: ASYNC110 - another process opens it
                await asyncio.sleep(0.002)
            while window.is_open:
                for _ in range(SLICE):
                    sequence += 1
                    value = ua.DataValue(ua.Variant(record_of(sequence), ua.VariantType.ByteString))
                    await server.write_attribute_value(variable.nodeid, value)
                await asyncio.sleep(0)
                while window.is_open and sequence > window.sequence + QUEUE // 10:  # noqa: ASYNC110 - as above
                    await asyncio.sleep(0.002)


class Handler:
    """Checks and counts the values of one subscription."""

    def __init__(self) -> None:
        self.sequence = 0
        self.wrong = ""

    def datachange_notification(self, _node: object, value: bytes, _data: object) -> None:
        (sequence,) = SEQUENCE.unpack_from(value, SEQUENCE_AT)
        # The first value is the one that the variable had before the subscription.
        if self.sequence and sequence != self.sequence + 1:
            self.wrong = f"event {sequence} came after {self.sequence}"
        self.sequence = sequence


async def read(target: str, subscribers: int, seconds: float, pid: int) -> dict[str, Any]:
    """Subscribe, open the window, and count values for so many seconds.

    Raises:
        WrongStream: a value was lost, repeated or out of order.
    """
    window, handlers, clients = Window.named(), [], []
    for _ in range(subscribers):
        client = Client(target)
        await client.connect()
        handler = Handler()
        subscription = await client.create_subscription(PUBLISHING_MS, handler)
        await subscription.subscribe_data_change(client.get_node(ua.NodeId("bench", 2)), queuesize=QUEUE)
        clients.append(client)
        handlers.append(handler)
    await asyncio.sleep(0.1)
    for handler in handlers:
        handler.sequence = 0
    window.open()
    for wait_s in (WARM_UP_S, seconds):
        first, used, began = [handler.sequence for handler in handlers], cpu_s([pid]), time.perf_counter()
        while time.perf_counter() - began < wait_s:
            await asyncio.sleep(0.005)
            window.sequence = min(handler.sequence for handler in handlers)
    took = time.perf_counter() - began
    events = sum(handler.sequence for handler in handlers) - sum(first)
    used = cpu_s([pid]) - used
    window.reset()
    for client in clients:
        await client.disconnect()
    if wrong := [handler.wrong for handler in handlers if handler.wrong]:
        raise WrongStream(wrong[0])
    return {"seconds": took, "events": events, "events_per_s": events / took, "cpu_s_per_million": used / events * 1e6}


if __name__ == "__main__":
    logging.disable(logging.ERROR)
    arguments = json.loads(sys.argv[1])
    if "port" in arguments:
        asyncio.run(serve(arguments["port"]))
    else:
        print(json.dumps(asyncio.run(read(**arguments))), flush=True)
