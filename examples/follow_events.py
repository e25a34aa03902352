"""Follow tags, and handle everything that can come in a stream: events, gaps, heartbeats, and the end.

python examples/follow_events.py [TARGET [EVENTS]]
"""

from __future__ import annotations

import asyncio
import sys

from mxgw_client import DataChange, Draining, Gap, Heartbeat, SourceHealth, StreamEnded, StreamStale, connect

TAGS = ("Tank_001.Level", "Tank_001.Temperature", "Pump_001.Speed")


async def main(target: str, events_wanted: int | None) -> None:
    async with connect(target) as gateway, gateway.open_session(client_name="follow-events") as session:
        await session.subscribe(*TAGS)
        events, count = session.events(), 0
        try:
            async for item in events:
                match item:
                    case DataChange(is_good=True):
                        print(f"{item.sequence:>8}  {item.reference:<24} {item.value!s:<22} {item.source_time}")
                    case DataChange():
                        # The event has a failure status or bad quality: keep the last good value, and show that it is
                        # out of date.
                        why = ", ".join(map(str, item.statuses))
                        print(f"{item.sequence:>8}  {item.reference:<24} {item.quality.name}: {why}")
                    case Gap():
                        print(f"LOST {item.first_lost} to {item.last_lost}: {item.reason.name}. {item.detail}")
                        await session.read_bulk(TAGS)
                    case Heartbeat() if item.source_health is not SourceHealth.GOOD:
                        print("the source is away: every value is old, whatever its quality says")
                    case Draining():
                        print(f"the gateway stops; come back in {item.retry_after_s:g} s")
                count += isinstance(item, DataChange)
                if count == events_wanted:
                    break
        except (StreamEnded, StreamStale) as ended:
            print(f"the stream ended: {ended}; {'resume' if ended.resumable else 'begin anew'} after {events.position}")


if __name__ == "__main__":
    chosen = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:50051"
    asyncio.run(main(chosen, int(sys.argv[2]) if len(sys.argv) > 2 else None))
