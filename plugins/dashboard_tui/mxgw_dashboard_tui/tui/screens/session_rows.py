"""Rows of the panels of one session."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mxgw.convert import duration_to_seconds, is_ok, timestamp_to_ns
from mxgw.dashboard.v1 import dashboard_service_pb2 as pb
from mxgw.v1 import events_pb2 as e
from mxgw.v1 import session_service_pb2 as ss
from mxgw.v1 import values_pb2 as v
from mxgw_dashboard_tui.tui import text as t
from mxgw_dashboard_tui.tui.widgets.grid import Cell, Column, Row

if TYPE_CHECKING:
    from mxgw_dashboard_tui.tui.session_model import Item, SessionModel

# Pages of 200: nobody reads more than this many items.
ITEM_PAGES = 5

ITEM_COLUMNS = (
    Column("item", "Item", 19, grow=2),
    Column("value", "Value", 14, right=True, grow=2),
    Column("quality", "Quality", 12),
    Column("status", "Status", 12, drop=2, grow=1),
    Column("source", "Time (UTC)", 12),
    Column("quiet", "Age", 6, right=True),
    Column("advise", "Advise", 11, drop=1),
    Column("handle", "Handle", 7, right=True, drop=3),
)
EVENT_COLUMNS = (
    Column("time", "Time (UTC)", 12),
    Column("sequence", "Sequence", 9, right=True),
    Column("kind", "Kind", 8),
    Column("item", "Item", 16, grow=2),
    Column("value", "Value", 14, grow=2),
    Column("quality", "Quality", 11),
)
READER_COLUMNS = (
    Column("name", "Subscriber", 14, grow=2),
    Column("policy", "Policy", 11),
    Column("lag", "Lag", 6, right=True),
    Column("lag_age", "Behind", 6, right=True),
    Column("limit", "Limit", 6, right=True),
    Column("delivered", "Sent", 6, right=True),
    Column("filtered", "Filtered", 8, right=True, drop=3),
    Column("lost", "Lost", 12, grow=1),
    Column("backlog", "Aside", 5, right=True, drop=2),
    Column("since", "Since", 8, drop=4),
    Column("address", "Address", 15, drop=1),
)
COMMAND_COLUMNS = (
    Column("name", "Command", 20, grow=1),
    Column("age", "Waits", 8, right=True),
)

_KINDS = {
    e.EVENT_KIND_DATA_CHANGE: "data",
    e.EVENT_KIND_WRITE_COMPLETE: "written",
    e.EVENT_KIND_OPERATION_COMPLETE: "done",
    e.EVENT_KIND_BUFFERED_DATA_CHANGE: "buffered",
}


def item_row(item: Item, model: SessionModel, now: float) -> Row:
    """Return the row of an item. `Time` is the source's, `Age` that since the last change, by the gateway's clock."""
    state, value = item.state, item.value
    quality, tone = t.quality_words(value.quality, value.raw_quality) if value is not None else (t.UNKNOWN, "dim")
    if model.source_is_lost:
        quality, tone = f"STALE {quality}", "bad"
    quiet_s = None
    changed_ns = item.worker_ns or (timestamp_to_ns(value.source_time) if value is not None else 0)
    if changed_ns and model.received_at is not None:
        quiet_s = max(0.0, (model.now_ns - changed_ns) / 1e9 + now - model.received_at)
    advise = t.words(ss.AdviseKind.Name(state.advise), "ADVISE_KIND_")
    name = t.clean(state.item_definition, 200) + (f" ({t.clean(state.item_context, 60)})" if state.item_context else "")
    status = _status(value)
    failed = status not in ("", "ok")
    shown = t.value_text(value.value) if value is not None else t.UNKNOWN
    cells = {
        "item": Cell(name),
        "value": Cell(shown) if shown != t.UNKNOWN or not failed else Cell(status, "bad"),
        "quality": Cell(quality, tone),
        "status": Cell(status, "bad" if failed else "dim"),
        "source": Cell(t.clock(value.source_time, with_ms=True) if value is not None else t.UNKNOWN),
        "quiet": Cell(t.span(quiet_s) if quiet_s is None or quiet_s >= 1 else "now", order=quiet_s or 0.0),
        "advise": Cell(advise + (" susp." if state.suspended else "")),
        "handle": Cell(str(state.item_handle), order=state.item_handle),
    }
    return Row(str(state.item_serial), cells, state)


def _status(value: e.DataChange | None) -> str:
    if value is None or is_ok(value.statuses):
        return "ok" if value is not None and value.statuses else ""
    failed = next(status for status in value.statuses if not status.success)
    detail = t.words(v.MxStatusDetail.Name(failed.detail), "MX_STATUS_DETAIL_")
    return f"{detail} ({failed.raw_detail})"


def event_row(event: e.Event, name: str) -> Row:
    """Return the row of an event."""
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
    """Return the row of a gap in the event log."""
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
    """Return the row that says how many events this view left out."""
    cells = {
        "time": Cell(t.clock(message.as_of, with_ms=True), "dim"),
        "kind": Cell("…", "dim"),
        "item": Cell(f"{t.count(message.conflated_events)} more", "dim"),
        "value": Cell("left out here", "dim"),
    }
    return Row(f"c{message.head_sequence}", cells)


def reader_row(reader: ss.Subscriber, head: int) -> Row:
    """Return the row of a subscriber."""
    del head
    lag_s = duration_to_seconds(reader.lag_age)
    lost = sum(each.events for each in reader.lost)
    why = ", ".join(
        f"{t.count(each.events)} {t.words(e.GapReason.Name(each.reason), 'GAP_REASON_')}" for each in reader.lost
    )
    cells = {
        "name": Cell(
            (t.clean(reader.client_name, 60) or t.clean(reader.subscriber_id)) + (" ENDING" if reader.ending else "")
        ),
        "policy": Cell(t.clean(reader.policy, 40)),
        "lag": Cell(t.count(reader.lag_events), "warn" if reader.lag_events > 1000 else "", reader.lag_events),
        "lag_age": Cell(t.span(lag_s) if lag_s else "0", "bad" if lag_s > 5 else "", lag_s),
        "limit": Cell(t.count(reader.limits.events) if reader.limits.events else "none", order=reader.limits.events),
        "delivered": Cell(t.count(reader.delivered_events), order=reader.delivered_events),
        "filtered": Cell(t.count(reader.filtered_events), order=reader.filtered_events),
        "lost": Cell(why or "none", "bad" if lost else "dim", lost),
        "backlog": Cell(t.size(reader.backlog_bytes), order=reader.backlog_bytes),
        "since": Cell(t.clock(reader.attached_at), order=reader.attached_at.seconds),
        "address": Cell(t.clean(reader.address, 60)),
    }
    return Row(reader.subscriber_id, cells, reader)


def command_row(number: int, command: pb.CommandInFlight) -> Row:
    """Return the row of a command that waits for its answer."""
    age_s = duration_to_seconds(command.age)
    cells = {
        "name": Cell(t.clean(command.name, 60)),
        "age": Cell(t.span(age_s), "warn" if age_s > 5 else "", age_s),
    }
    return Row(str(number), cells, command)


def reason_words(session: ss.Session) -> str:
    """Return why a session ended."""
    if session.close_reason == ss.CLOSE_REASON_CLIENT:
        return "by its client"
    return t.words(ss.CloseReason.Name(session.close_reason), "CLOSE_REASON_")
