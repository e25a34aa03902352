"""A client process whose readers stop reading: `python stalled.py TARGET SESSION READERS`.

Each reader has its own connection with gRPC's default options, so that its connection buffers as much as that of any
client. A reader reads its first two frames and then stops until a line comes on stdin. Then all readers read to the end
of their streams. The process prints two JSON lines: the ids of the subscribers when all readers have stopped, and at
the end the events that each reader got and how its stream ended.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import grpc.aio
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from mxgw.v1.event_service_pb2 import StreamEventsRequest
from mxgw.v1.event_service_pb2_grpc import EventServiceStub


async def main(target: str, session_id: str, readers: int) -> None:
    channels = [
        grpc.aio.insecure_channel(target, options=[("grpc.use_local_subchannel_pool", 1)]) for _ in range(readers)
    ]
    calls = [
        EventServiceStub(channel).StreamEvents(StreamEventsRequest(session_id=session_id, client_name=f"stalled {n}"))
        for n, channel in enumerate(channels)
    ]
    ids = [(await call.read()).opened.subscriber_id for call in calls]
    firsts = [[event.sequence for event in (await call.read()).events.events] for call in calls]
    say(ids)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        done = [
            tasks.create_task(read_to_the_end(call, sequences)) for call, sequences in zip(calls, firsts, strict=True)
        ]
    say([task.result() for task in done])


def say(words: object) -> None:
    sys.stdout.write(json.dumps(words) + "\n")
    sys.stdout.flush()


async def read_to_the_end(call: Any, sequences: list[int]) -> dict[str, object]:
    """Read a stream to its end. Return figures of its events and gaps, and why it ended.

    `sequences` contains the sequences of the events that were read before.
    """
    gaps = 0
    try:
        while (frame := await call.read()) is not grpc.aio.EOF:
            gaps += frame.HasField("gap")
            sequences += [event.sequence for event in frame.events.events]
    except grpc.aio.AioRpcError as error:
        info = ErrorInfo()
        details = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
        for packed in Status.FromString(details).details:
            packed.Unpack(info)
        return {
            "first": sequences[0],
            "last": sequences[-1],
            "events": len(sequences),
            "gaps": gaps,
            "reason": info.reason,
            "lost_from": int(info.metadata.get("lost_from", 0)),
        }
    raise SystemExit("a stream ended without a reason")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
