"""Browse a part of the plant, subscribe to all items in it with one call, and read the events in batches.

python examples/bulk_subscribe.py [TARGET [PARENT [SECONDS]]]
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter

from mxgw_client import EventBatch, Session, connect


async def references_below(session: Session, parent: str) -> list[str]:
    """Return every reference below a node, depth first."""
    found: list[str] = []
    async for node in session.browse(parent):
        if node.reference:
            found.append(node.reference)
        if node.has_children:
            found += await references_below(session, node.path)
    return found


async def main(target: str, parent: str, seconds: float) -> None:
    async with connect(target) as gateway, gateway.open_session(client_name="bulk-subscribe") as session:
        references = await references_below(session, parent)
        outcomes = await session.subscribe_bulk(references)
        print(f"{sum(outcome.ok for outcome in outcomes)} of {len(references)} references subscribed")
        for outcome in outcomes:
            if not outcome.ok:
                print(f"  {outcome.reference}: {outcome.message or outcome.reason}")

        counts: Counter[str] = Counter()
        try:
            # The stream is opened after the items were advised and still gets all their events, because it begins with
            # the oldest event that the gateway holds.
            async with asyncio.timeout(seconds), session.events() as events:
                async for frame in events.batches():
                    if isinstance(frame, EventBatch):
                        counts.update(event.reference for event in frame)
        except TimeoutError:
            pass
        print(f"{counts.total()} events of {len(counts)} items in {seconds:g} s; the busiest:")
        for reference, count in counts.most_common(5):
            print(f"  {reference:<28} {count / seconds:8.1f}/s")


if __name__ == "__main__":
    arguments = [*sys.argv[1:], *("127.0.0.1:50051", "", "5")[len(sys.argv) - 1 :]]
    asyncio.run(main(arguments[0], arguments[1], float(arguments[2])))
