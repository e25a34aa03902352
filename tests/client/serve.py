"""A real gateway in a process of its own: prints its target, and shuts down when its standard input ends.

Settings may be given as a JSON object of dotted keys.
"""

from __future__ import annotations

import asyncio
import json
import sys

from mxgw_core.testing import running_gateway


async def main() -> None:
    settings = json.loads(sys.argv[1]) if len(sys.argv) > 1 else {}
    async with running_gateway(settings) as gateway:
        print(gateway.target, flush=True)  # noqa: T201 - the one thing its parent waits for
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
