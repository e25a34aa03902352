"""The text on the screen of one session: the three lines above the panels, and the rows of its tables.

The rows of the table of events are in `event_rows`.
"""

from __future__ import annotations

from rich.text import Text

from mxgw.convert import duration_to_seconds, is_ok, timestamp_to_ns
from mxgw.dashboard.v1 import dashboard_service_pb2 as pb
from mxgw.v1 import events_pb2 as e
from mxgw.v1 import session_service_pb2 as ss
from mxgw.v1 import values_pb2 as v
from mxgw_dashboard_tui.tui import text as t
from mxgw_dashboard_tui.tui.session_model import Item, SessionModel
from mxgw_dashboard_tui.tui.widgets.grid import Cell, Column, Row

# How many pages of 200 items are requested at most; nobody reads more items on a screen.
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


def item_row(item: Item, model: SessionModel, now: float) -> Row:
    """Return the row of an item.

    The column Time has the source time of the value. The column Age has the time since the last change of the value, by
    the gateway's clock.
    """
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
    """Return the close reason of a session in words."""
    if session.close_reason == ss.CLOSE_REASON_CLIENT:
        return "by its client"
    return t.words(ss.CloseReason.Name(session.close_reason), "CLOSE_REASON_")


def session_facts(model: SessionModel, rate: float | None, problem: str) -> Text:
    """Return the three lines about a session; `problem` says why the gateway sends nothing, or is ""."""
    if model.detail is None:
        return Text(f"✖ {problem}" if problem else "Waiting for the gateway.")
    row, session = model.detail.row, model.detail.row.session
    lines = [_who(row), _worker(row, model.now_ns), _flow(row, rate)]
    if model.is_over:
        lines[1] = f"ended: {reason_words(session)} {t.clean(session.close_detail, 200)}"
    elif problem:
        lines[2] = f"✖ {problem}"
    return Text("\n").join(Text(line, no_wrap=True, overflow="ellipsis") for line in lines)


def _who(row: pb.SessionRow) -> str:
    session = row.session
    state, _ = t.state_words(session, _detached_s(row))
    return (
        f"{state}  {t.session_name(session)}  owner {t.clean(session.owner, 40)}  tag {t.clean(session.tag, 40) or '-'}"
        f"  backend {t.clean(session.backend, 40)}"
    )


def _worker(row: pb.SessionRow, now_ns: int) -> str:
    session = row.session
    state = t.words(e.WorkerState.Name(session.worker_state), "WORKER_STATE_")
    source = t.words(e.SourceHealth.Name(session.source_health), "SOURCE_HEALTH_")
    left_s = t.since(session.lease_expires_at, now_ns)
    detached_s = _detached_s(row)
    return (
        f"worker {session.worker_pid} {state}, {t.memory(session.worker_rss_bytes)}  source {source}"
        f"  open for {t.span(t.since(session.opened_at, now_ns))}"
        f"  lease {t.span(-left_s if left_s is not None else None)} left"
        + (f"  detached {t.span(detached_s)}" if detached_s is not None else "")
    )


def _flow(row: pb.SessionRow, rate: float | None) -> str:
    session = row.session
    return (
        f"{t.rate(rate)} events/s, {t.count(session.head_sequence)} so far, {t.count(session.log_events)} kept  lag "
        f"{t.count(row.lag_events)}  gaps {row.gap_frames}  lost {row.lost_events}  overflows {row.overflows}"
    )


def _detached_s(row: pb.SessionRow) -> float | None:
    return duration_to_seconds(row.detached) if row.HasField("detached") else None
