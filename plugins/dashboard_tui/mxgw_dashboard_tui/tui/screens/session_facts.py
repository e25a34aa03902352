"""The three lines above the panels of one session."""

from __future__ import annotations

from rich.text import Text

from mxgw.convert import duration_to_seconds
from mxgw.dashboard.v1 import dashboard_service_pb2 as pb
from mxgw.v1 import events_pb2 as e
from mxgw_dashboard_tui.tui import text as t
from mxgw_dashboard_tui.tui.alarms import session_name
from mxgw_dashboard_tui.tui.screens.session_rows import reason_words
from mxgw_dashboard_tui.tui.session_model import SessionModel


def session_facts(model: SessionModel, rate: float | None, problem: str) -> Text:
    """Return what is to be said of a session; `problem` is why its streams are not there."""
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
        f"{state}  {session_name(session)}  owner {t.clean(session.owner, 40)}  tag {t.clean(session.tag, 40) or '-'}"
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
