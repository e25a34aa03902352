"""The rows of the table of one session's events. Each event and each gap has one row. Another kind of row
says how many events the dashboard left out."""

from __future__ import annotations

from mxgw.convert import is_ok
from mxgw.dashboard.v1 import dashboard_service_pb2 as pb
from mxgw.v1 import events_pb2 as e
from mxgw_dashboard_tui.tui import text as t
from mxgw_dashboard_tui.tui.widgets.grid import Cell, Column, Row

EVENT_COLUMNS = (
    Column("time", "Time (UTC)", 12),
    Column("sequence", "Sequence", 9, right=True),
    Column("kind", "Kind", 8),
    Column("item", "Item", 16, grow=2),
    Column("value", "Value", 14, grow=2),
    Column("quality", "Quality", 11),
)

_KINDS = {
    e.EVENT_KIND_DATA_CHANGE: "data",
    e.EVENT_KIND_WRITE_COMPLETE: "written",
    e.EVENT_KIND_OPERATION_COMPLETE: "done",
    e.EVENT_KIND_BUFFERED_DATA_CHANGE: "buffered",
}


def event_row(event: e.Event, name: str) -> Row:
    """Return the row of an event; `name` is the reference of the event's item."""
    body = event.WhichOneof("body")
    value, quality, tone = "", "", ""
    match body:
        case "data_change":
            value = t.value_text(event.data_change.value)
            quality, tone = t.quality_words(event.data_change.quality, event.data_change.raw_quality)
        case "buffered_data_change":
            value = t.value_text(event.buffered_data_change.value)
        case "write_complete":
            ok = is_ok(event.write_complete.statuses) and not event.write_complete.missing
            value = "ok" if ok else "MISSING" if event.write_complete.missing else "FAILED"
            tone = "good" if ok else "bad"
        case "operation_complete":
            ok = is_ok(event.operation_complete.statuses)
            value, tone = ("ok", "good") if ok else ("FAILED", "bad")
    cells = {
        "time": Cell(t.clock(event.worker_time, with_ms=True)),
        "sequence": Cell(str(event.sequence), order=event.sequence),
        "kind": Cell(_KINDS.get(event.kind, "unknown")),
        "item": Cell(t.clean(name, 200) or f"handle {event.item_handle}"),
        "value": Cell(value, tone if body != "data_change" else ""),
        "quality": Cell(quality, tone if body == "data_change" else ""),
    }
    return Row(f"e{event.sequence}", cells, event)


def gap_row(gap: e.Gap) -> Row:
    """Return the row of a gap."""
    reason = t.words(e.GapReason.Name(gap.reason), "GAP_REASON_")
    lost = f"{gap.count} events" if gap.count else "an unknown number of events"
    cells = {
        "sequence": Cell(str(gap.first_lost), order=gap.first_lost),
        "kind": Cell("GAP", "bad"),
        "item": Cell(f"{lost} lost: {reason}", "bad"),
        "value": Cell(t.clean(gap.detail, 200)),
    }
    return Row(f"g{gap.first_lost}-{gap.last_lost}", cells, gap)


def left_out_row(message: pb.WatchEventsResponse) -> Row:
    """Return the row that says how many events the dashboard does not show."""
    cells = {
        "time": Cell(t.clock(message.as_of, with_ms=True), "dim"),
        "kind": Cell("…", "dim"),
        "item": Cell(f"{t.count(message.conflated_events)} more", "dim"),
        "value": Cell("left out here", "dim"),
    }
    return Row(f"c{message.head_sequence}", cells)
