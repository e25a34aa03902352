"""Writes events as lines: aligned text for people, and documents for JSON lines."""

from __future__ import annotations

from rich.text import Text

from mxgw_cli.render import (
    QUALITY_STYLES,
    quality_class,
    quality_text,
    shortened,
    status_document,
    statuses_text,
    utc_text,
    value_text,
)
from mxgw_client.events import BufferedDataChange, DataChange, Event, OperationComplete, WriteComplete
from mxgw_core.printable import printable

TAG_CHARACTERS = 1024


def event_line(event: Event, tag: str, tag_width: int) -> Text:
    """Return one event as one line: time, tag, and value or result.

    The time is the source time; when the event has no source time, it is the worker time.
    """
    moment = event.source_time if isinstance(event, DataChange) else None
    line = Text(no_wrap=True, overflow="ignore")
    line.append(utc_text(moment or event.worker_time), style="dim")
    line.append(f"  {shortened(printable(tag, TAG_CHARACTERS), tag_width):<{tag_width}}  ")
    match event:
        case DataChange():
            _append_data_change(line, event)
        case WriteComplete():
            _append_write_complete(line, event)
        case OperationComplete():
            line.append(f"operation complete: {printable(statuses_text(event.statuses), 300)}")
        case BufferedDataChange():
            _append_buffered(line, event)
        case _:
            line.append("an event this release does not know", style="yellow")
    return line


def _append_data_change(line: Text, change: DataChange) -> None:
    line.append(f"{value_text(change.value, 200):>14}  ", style="bold")
    line.append(quality_text(change.raw_quality), style=QUALITY_STYLES[quality_class(change.raw_quality)])
    if not change.ok:
        line.append(f"  failed: {printable(statuses_text(change.statuses), 300)}", style="bold red")


def _append_write_complete(line: Text, complete: WriteComplete) -> None:
    if complete.missing:
        line.append(f"write {complete.write_id}: no completion came, the outcome is unknown", style="bold red")
        return
    line.append(f"write {complete.write_id} complete: ")
    line.append(printable(statuses_text(complete.statuses), 300), style="green" if complete.ok else "bold red")
    if complete.pairing_uncertain:
        line.append("  (may belong to another write of this item)", style="yellow")


def _append_buffered(line: Text, change: BufferedDataChange) -> None:
    worst = quality_class(min(change.raw_qualities, key=lambda raw: raw & 0xC0, default=0))
    line.append(f"{value_text(change.values, 200):>14}  ", style="bold")
    line.append(f"buffered, {len(change.raw_qualities)} values, {worst}", style=QUALITY_STYLES[worst])


_KINDS: dict[type, str] = {
    DataChange: "data_change",
    WriteComplete: "write_complete",
    OperationComplete: "operation_complete",
    BufferedDataChange: "buffered_data_change",
}


def event_document(event: Event, tag: str) -> dict[str, object]:
    """Return one event for JSON. Its `kind` says which of the four kinds of MXAccess events it is.

    When its `ok` is false, a status reports a failure, and the value must not replace an earlier good value.
    """
    document: dict[str, object] = {
        "type": "event",
        "kind": _KINDS.get(type(event), "unknown"),
        "tag": tag,
        "position": event.position.to_text(),
        "sequence": event.sequence,
        "server_handle": event.server_handle,
        "item_handle": event.item_handle,
        "item_serial": event.item_serial,
        "worker_time": event.worker_time,
    }
    match event:
        case DataChange():
            document |= {
                "value": event.value,
                "quality": quality_class(event.raw_quality),
                "quality_text": quality_text(event.raw_quality),
                "raw_quality": event.raw_quality,
                "source_time": event.source_time,
            }
        case WriteComplete():
            document |= {
                "write_id": event.write_id,
                "missing": event.missing,
                "pairing_uncertain": event.pairing_uncertain,
            }
        case BufferedDataChange():
            document |= {
                "values": event.values,
                "raw_qualities": event.raw_qualities,
                "source_times": event.source_times,
            }
        case _:
            pass
    return document | {"ok": event.ok, "statuses": [status_document(status) for status in event.statuses]}
