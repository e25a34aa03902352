"""Read a value, write a setpoint, and check that the value has changed.

python examples/read_and_write.py [TARGET]
"""

from __future__ import annotations

import asyncio
import sys

from mxgw_client import MxAccessError, WriteFailed, connect


async def main(target: str) -> None:
    async with connect(target) as gateway, gateway.open_session(client_name="read-and-write") as session:
        level = await session.read("Tank_001.Level")
        print(f"{level.reference} = {level.value} ({level.quality.name}, {level.source_time})")

        # Write once: the client subscribes, waits until the type is known, writes, and waits for the completion.
        await session.write_once("Valve_001.PositionSP", 40.0)
        print("setpoint is now", (await session.read("Valve_001.PositionSP")).value)

        # To write several times, subscribe once. With `supervisory` MXAccess treats the writes as made by a program and
        # not by an operator.
        async with await session.subscribe("Bench_001.Count", "Bench_001.Text", supervisory=True) as items:
            await session.read_bulk(["Bench_001.Count", "Bench_001.Text"])
            outcomes = await session.write_bulk({items["Bench_001.Count"]: 7, items["Bench_001.Text"]: "x"}, wait=True)
            print("bulk write:", {outcome.reference: outcome.ok for outcome in outcomes})

        # When MXAccess refuses a write, an exception is raised whose text says what to do.
        try:
            await session.write_once("Bench_001.SecuredWrite", 1)
        except WriteFailed as failed:
            print("refused as expected:", failed)
        except MxAccessError as failed:
            print("refused for another reason:", failed)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:50051"))
