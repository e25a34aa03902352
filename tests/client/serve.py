"""A real gateway in a process of its own: prints its target, and shuts down when its standard input ends."""

from __future__ import annotations

import asyncio
import sys

from mxgw_core.testing import running_gateway


async def main() -> None:
    async with running_gateway() as gateway:
        print(gateway.target, flush=True)  # noqa: T201 - the one thing its parent waits for
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
