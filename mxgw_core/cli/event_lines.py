"""Stream frames as lines: aligned text for people, documents for JSON lines. Knows no terminal."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from google.protobuf.timestamp_pb2 import Timestamp
from rich.text import Text

from mxgw.convert import from_value, is_ok, timestamp_to_datetime
from mxgw.v1 import events_pb2 as e
from mxgw.v1 import values_pb2 as v
from mxgw_core.cli.text import shortened, utc_text, value_text
from mxgw_core.cli.words import enum_words, quality_class, quality_text, status_document, statuses_text
from mxgw_core.printable import printable

if TYPE_CHECKING:
    from mxgw_client import Gap

_STYLES = {"good": "green", "uncertain": "yellow", "bad": "bold red"}
TAG_CHARACTERS = 1024


def event_line(event: e.Event, tag: str, tag_width: int) -> Text:
    """Return one event as one line: when, which tag, what. The time is the source's, else the worker's."""
    line = Text(no_wrap=True, overflow="ignore")
    line.append(utc_text(_shown_time(event)), style="dim")
    line.append(f"  {shortened(printable(tag, TAG_CHARACTERS), tag_width):<{tag_width}}  ")
    match event.WhichOneof("body"):
        case "data_change":
            _append_data_change(line, event.data_change)
        case "write_complete":
            _append_write_complete(line, event.write_complete)
        case "operation_complete":
            line.append(f"operation complete: {printable(statuses_text(event.operation_complete.statuses), 300)}")
        case "buffered_data_change":
            _append_buffered(line, event.buffered_data_change)
        case _:
            line.append("an event this release does not know", style="yellow")
    return line


def _shown_time(event: e.Event) -> datetime:
    if event.HasField("data_change") and event.data_change.HasField("source_time"):
        return timestamp_to_datetime(event.data_change.source_time)
    return timestamp_to_datetime(event.worker_time)


def _append_data_change(line: Text, change: e.DataChange) -> None:
    text = value_text(from_value(change.value), 200)
    line.append(f"{text:>14}  ", style="bold")
    line.append(quality_text(change.raw_quality), style=_STYLES[quality_class(change.raw_quality)])
    if not is_ok(change.statuses):
        line.append(f"  failed: {printable(statuses_text(change.statuses), 300)}", style="bold red")


def _append_write_complete(line: Text, complete: e.WriteComplete) -> None:
    if complete.missing:
        line.append(f"write {complete.write_id}: no completion came, the outcome is unknown", style="bold red")
        return
    style = "green" if is_ok(complete.statuses) else "bold red"
    line.append(f"write {complete.write_id} complete: ")
    line.append(printable(statuses_text(complete.statuses), 300), style=style)
    if complete.pairing_uncertain:
        line.append("  (may belong to another write of this item)", style="yellow")


def _append_buffered(line: Text, change: e.BufferedDataChange) -> None:
    worst = min(change.raw_qualities, key=lambda raw: raw & 0xC0, default=0)
    line.append(f"{value_text(from_value(change.value), 200):>14}  ", style="bold")
    line.append(
        f"buffered, {len(change.raw_qualities)} values, {quality_class(worst)}", style=_STYLES[quality_class(worst)]
    )


def event_document(event: e.Event, tag: str, epoch: bytes) -> dict[str, object]:
    """Return one event for JSON; `type` is `event`, `kind` says which of the four MXAccess events it is."""
    document: dict[str, object] = {
        "type": "event",
        "kind": enum_words(e.EventKind.Name(event.kind), "EVENT_KIND_").replace(" ", "_"),
        "tag": tag,
        "epoch": epoch.hex(),
        "sequence": event.sequence,
        "server_handle": event.server_handle,
        "item_handle": event.item_handle,
        "worker_time": timestamp_to_datetime(event.worker_time),
    }
    match event.WhichOneof("body"):
        case "data_change":
            document |= data_change_document(event.data_change)
        case "write_complete":
            complete = event.write_complete
            document |= {
                "write_id": complete.write_id,
                "missing": complete.missing,
                "pairing_uncertain": complete.pairing_uncertain,
                "ok": not complete.missing and is_ok(complete.statuses),
                "statuses": [status_document(status) for status in complete.statuses],
            }
        case "operation_complete":
            statuses = event.operation_complete.statuses
            document |= {"ok": is_ok(statuses), "statuses": [status_document(status) for status in statuses]}
        case "buffered_data_change":
            buffered = event.buffered_data_change
            document |= {
                "value": from_value(buffered.value),
                "raw_qualities": list(buffered.raw_qualities),
                "source_times": [timestamp_to_datetime(stamp) for stamp in buffered.source_times],
                "ok": is_ok(buffered.statuses),
                "statuses": [status_document(status) for status in buffered.statuses],
            }
    return document


def data_change_document(change: e.DataChange) -> dict[str, object]:
    """Return value, quality, time and statuses for JSON. `ok` false: the value must not replace a good one."""
    return {
        "value": from_value(change.value),
        "quality": quality_class(change.raw_quality),
        "quality_text": quality_text(change.raw_quality),
        "raw_quality": change.raw_quality,
        "source_time": _time_or_none(change.source_time if change.HasField("source_time") else None),
        "ok": is_ok(change.statuses),
        "statuses": [status_document(status) for status in change.statuses],
    }


def _time_or_none(stamp: Timestamp | None) -> datetime | None:
    return None if stamp is None else timestamp_to_datetime(stamp)


def gap_line(gap: Gap) -> Text:
    """Return a gap as one line that cannot be overlooked."""
    if gap.first_lost and gap.last_lost:
        which = f"sequences {gap.first_lost} to {gap.last_lost}"
        count = gap.count or gap.last_lost - gap.first_lost + 1
    else:
        which, count = "which ones is not known", gap.count
    number = f"{count} events" if count else "an unknown number of events"
    reason = gap.reason.name.lower().replace("_", " ")
    line = Text(f"--- GAP: {number} lost ({which}): {reason}", style="bold red", no_wrap=True, overflow="ignore")
    if gap.detail:
        line.append(f"; {printable(gap.detail, 300)}")
    return line


def gap_document(gap: Gap) -> dict[str, object]:
    """Return a gap for JSON; numbers that are not known are null."""
    return {
        "type": "gap",
        "epoch": gap.epoch.hex(),
        "first_lost": gap.first_lost or None,
        "last_lost": gap.last_lost or None,
        "count": gap.count or None,
        "reason": gap.reason.name.lower(),
        "detail": gap.detail,
    }


def data_type_word(data_type: v.MxDataType.ValueType, *, is_array: bool) -> str:
    """Return a data type as people write it, `float[]` for an array."""
    word = enum_words(v.MxDataType.Name(data_type), "MX_DATA_TYPE_") if data_type else ""
    return f"{word}[]" if is_array and word else word
