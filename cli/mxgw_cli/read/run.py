"""`mxgw read`: prints current values as a table or as JSON."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

import mxgw_client
from mxgw_cli.gateway import connected, session_of
from mxgw_cli.options import GatewayTarget
from mxgw_cli.render import (
    QUALITY_STYLES,
    failure_text,
    quality_class,
    quality_text,
    status_document,
    utc_text,
    value_text,
    write_json,
)
from mxgw_cli.shell import SilentFailure, console
from mxgw_core.printable import printable


async def read_tags(where: GatewayTarget, tags: Sequence[str], *, backend: str, session_id: str, as_json: bool) -> None:
    """Read the tags and print their values.

    Raises:
        SilentFailure: a tag has no value; the reason is in the output.
    """
    async with (
        connected(where) as gateway,
        session_of(gateway, command="read", backend=backend, session_id=session_id) as session,
    ):
        readings = await session.read_bulk(tags, wait_s=where.timeout_s)
    if as_json:
        write_json([reading_document(reading) for reading in readings])
    else:
        console().print(readings_table(readings))
    if not all(reading.ok for reading in readings):
        raise SilentFailure


def readings_table(readings: Sequence[mxgw_client.Reading]) -> Table:
    """Return a table with one line per tag: its value, quality and source time, or why the tag has no value."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=0, show_edge=False)
    table.add_column("Tag", overflow="fold")
    table.add_column("Value", justify="right", overflow="fold")
    table.add_column("Quality", overflow="fold")
    table.add_column("Source time", no_wrap=True)
    for reading in readings:
        tag = printable(reading.reference, 1024)
        if failure := failure_text(reading):
            table.add_row(tag, Text("failed", style="bold red"), Text(printable(failure, 500), style="red"), "")
            continue
        table.add_row(
            tag,
            Text(value_text(reading.value, 400), style="bold"),
            Text(quality_text(reading.raw_quality), style=QUALITY_STYLES[quality_class(reading.raw_quality)]),
            utc_text(reading.source_time) if reading.source_time else printable(reading.raw_source_time, 40),
        )
    return table


def reading_document(reading: mxgw_client.Reading) -> dict[str, object]:
    """Return one reading for JSON."""
    return {
        "tag": reading.reference,
        "ok": reading.ok,
        "value": reading.value,
        "quality": quality_class(reading.raw_quality),
        "quality_text": quality_text(reading.raw_quality),
        "raw_quality": reading.raw_quality,
        "source_time": reading.source_time,
        "was_cached": reading.was_cached,
        "failure": failure_text(reading),
        "reason": reading.reason,
        "hresult": reading.hresult,
        "statuses": [status_document(status) for status in reading.statuses],
    }
