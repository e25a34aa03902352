"""The tasks of the demo that fill the board: they read events and the worker's state, and watch the processes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

import mxgw_client
from mxgw.convert import is_ok, timestamp_to_ns
from mxgw_cli.children import Child
from mxgw_cli.demo.board import Board, WorkerStatus
from mxgw_cli.demo.options import DEFAULT_ITEMS, DemoOptions
from mxgw_cli.gateway import walk
from mxgw_cli.render import enum_words, statuses_text
from mxgw_cli.shell import CliFailure, ExitCode
from mxgw_client import DataChange, errors
from mxgw_core.printable import printable

# At most this many tags are subscribed. With `--backend load` the option --items sets the number instead.
TAGS_AT_MOST = 500
BROWSE_DEPTH = 12
OPCUA_OBJECT = "Steel"
WORKER_POLL_S = 1.0
# After a failed call the demo waits this long to see whether the gateway's process has ended, because its end explains
# the failure better than the error of the call.
DEATH_IS_NOTICED_S = 1.0
_NS_PER_MS = 1_000_000


async def tags_to_show(session: mxgw_client.Session, options: DemoOptions) -> list[str]:
    """Browse the backend, and return the references of the tags to subscribe.

    Raises:
        CliFailure: the backend has no tags.
    """
    if options.backend == "mxaccess":
        return await _tags_of_objects(session, options)
    limit = (options.items or DEFAULT_ITEMS) if options.backend == "load" else TAGS_AT_MOST
    top = ""
    if options.backend == "opcua":
        # An OPC UA server has hundreds of variables about itself. The recorded data is below the object OPCUA_OBJECT.
        top = next((n.path for n in [n async for n in session.browse("")] if n.name == OPCUA_OBJECT), "")
    found: list[str] = []
    async for node in walk(session, top, BROWSE_DEPTH):
        if node.reference and not node.is_array:
            found.append(node.reference)
        if len(found) >= limit:
            return found
    if not found:
        raise CliFailure("the backend offers no tag to show")
    return found


async def _tags_of_objects(session: mxgw_client.Session, options: DemoOptions) -> list[str]:
    found = list(options.tags)
    if not found and not options.objects:
        raise CliFailure(
            "MXAccess lists no objects: name one with --object, or tags with --tag",
            hint="mxgw demo --backend mxaccess --object Tank_001 --tag Tank_002.Level",
            exit_code=ExitCode.USAGE,
        )
    for name in options.objects:
        found += [node.reference async for node in session.browse(name) if not node.reference.endswith("[]")]
    return found[:TAGS_AT_MOST]


async def subscribe(session: mxgw_client.Session, tags: Sequence[str], board: Board) -> None:
    """Subscribe all tags in one call. If tags were refused, the board's notice says how many."""
    outcomes = await session.subscribe_bulk(tags)
    items = [outcome.item for outcome in outcomes if outcome.item is not None]
    board.name_tags([(item.serial, item.reference) for item in items])
    if len(items) < len(tags):
        board.notice = f"{len(tags) - len(items)} of {len(tags)} tags were refused"


async def follow_events(stream: mxgw_client.EventStream, board: Board, children: Sequence[Child]) -> NoReturn:
    """Read the stream, and put every event on the board.

    Raises:
        CliFailure: the stream ended.
    """
    try:
        async for frame in stream.batches():
            match frame:
                case mxgw_client.EventBatch():
                    _take(frame, board)
                case mxgw_client.Gap():
                    board.ledger.gap(frame.last_lost)
                    board.notice = f"gap: {enum_words(frame.reason)}"
                case mxgw_client.StreamOpened():
                    board.ledger.opened(frame.position.epoch, frame.position.sequence)
                case _:
                    pass
    except errors.MxgwClientError as error:
        await _explain(error, children)
    raise CliFailure("the stream ended without a reason")


def _take(batch: mxgw_client.EventBatch, board: Board) -> None:
    arrived_ns, now = time.time_ns(), time.perf_counter()
    ledger, latency = board.ledger, board.latency
    board.rate.count(now, len(batch))
    for event in batch:
        ledger.event(event.sequence)
        latency.add((arrived_ns - timestamp_to_ns(event.raw.worker_time)) / _NS_PER_MS)
        if isinstance(event, DataChange):
            change = event.raw.data_change
            failure = "" if is_ok(change.statuses) else statuses_text(event.statuses)
            source_time = change.source_time.seconds if change.HasField("source_time") else None
            board.data_change(now, event.item_serial, event.value, change.raw_quality, source_time, failure)


async def follow_worker(session: mxgw_client.Session, board: Board, children: Sequence[Child]) -> NoReturn:
    """Request the worker's state every `WORKER_POLL_S`, and put it on the board.

    Raises:
        CliFailure: the gateway no longer answers.
    """
    while True:
        try:
            worker = await session.worker_info()
        except errors.MxgwClientError as error:
            await _explain(error, children)
        health = enum_words(worker.source_health) if worker.source_health else ""
        board.worker = WorkerStatus(
            worker.pid, enum_words(worker.state), worker.rss_bytes, health, worker.source_detail
        )
        await asyncio.sleep(WORKER_POLL_S)


async def raise_when_dead(child: Child) -> NoReturn:
    """Wait for the end of a process that should run as long as the demo.

    Raises:
        CliFailure: the process ended; the text has the end of its log.
    """
    raise await child.died()


async def _explain(error: errors.MxgwClientError, children: Sequence[Child]) -> NoReturn:
    """Raise a CliFailure for a failed call.

    If the gateway's process has ended, the text of the failure says so. Otherwise it is the text of `error`.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(DEATH_IS_NOTICED_S):
            for child in children:
                if child.name == "gateway":
                    raise await child.died()
    raise CliFailure(printable(str(error), 1000)) from None
