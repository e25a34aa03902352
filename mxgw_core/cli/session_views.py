"""How sessions are shown: a table that fits 80 columns, everything about one, and documents for JSON."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from mxgw.convert import duration_to_seconds, timestamp_to_datetime, timestamp_to_ns
from mxgw.v1 import events_pb2 as e
from mxgw.v1 import session_service_pb2 as s
from mxgw_core.cli.text import age_text, bytes_text, shortened, utc_text
from mxgw_core.cli.words import enum_words
from mxgw_core.printable import printable

_STATE_STYLES = {"ready": "green", "faulted": "bold red", "closed": "dim"}
_NS = 1_000_000_000
WIDE_COLUMNS = 110


def state_word(session: s.Session) -> str:
    """Return the session's state in one word."""
    return enum_words(s.SessionState.Name(session.state), "SESSION_STATE_")


def reason_words(session: s.Session) -> str:
    """Return why a session ended; empty while it lives."""
    return enum_words(s.CloseReason.Name(session.close_reason), "CLOSE_REASON_") if session.close_reason else ""


def is_ended(session: s.Session) -> bool:
    """Return whether nothing can be done with the session any more."""
    return session.state in (s.SESSION_STATE_CLOSED, s.SESSION_STATE_FAULTED)


def sessions_table(sessions: Sequence[s.Session], memory: dict[str, int], now: float, width: int) -> Table:
    """Return one line per session. `memory` has the workers' resident bytes by session id, where they are known."""
    is_wide = width >= WIDE_COLUMNS
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=0, show_edge=False)
    # A session id must be readable as a whole: it is what every other command asks for.
    table.add_column("Session", no_wrap=True, overflow="ellipsis", min_width=8)
    table.add_column("State", no_wrap=True)
    table.add_column("Backend", no_wrap=True, overflow="ellipsis", max_width=12)
    table.add_column("Client", no_wrap=True, overflow="ellipsis", max_width=24 if is_wide else 10)
    if is_wide:
        table.add_column("Tag", no_wrap=True, overflow="ellipsis", max_width=14)
        table.add_column("Owner", no_wrap=True, overflow="ellipsis", max_width=14)
    table.add_column("Age", justify="right", no_wrap=True)
    if is_wide:
        table.add_column("Lease left", justify="right", no_wrap=True)
        table.add_column("Subs", justify="right", no_wrap=True)
    table.add_column("Head", justify="right", no_wrap=True)
    table.add_column("Pid", justify="right", no_wrap=True)
    table.add_column("Memory", justify="right", no_wrap=True)
    for session in sessions:
        state = state_word(session)
        cells: list[str | Text] = [
            printable(session.session_id, 64),
            Text(state, style=_STATE_STYLES.get(state, "yellow")),
            printable(session.backend, 64),
            printable(session.client_name, 128),
        ]
        if is_wide:
            cells += [printable(session.tag, 64), printable(session.owner, 64)]
        cells.append(age_text(max(0.0, now - timestamp_to_ns(session.opened_at) / _NS)))
        if is_wide:
            cells += [_lease_left(session, now), str(session.subscribers)]
        rss = memory.get(session.session_id, 0)
        cells += [f"{session.head_sequence:,}", str(session.worker_pid or ""), bytes_text(rss) if rss else ""]
        table.add_row(*cells)
    return table


def _lease_left(session: s.Session, now: float) -> str:
    if is_ended(session):
        return reason_words(session)
    if session.subscribers:
        return "attached"
    return age_text(max(0.0, timestamp_to_ns(session.lease_expires_at) / _NS - now))


def session_detail(
    session: s.Session, worker: s.GetWorkerInfoResponse | None, state: s.GetSessionStateResponse | None, now: float
) -> Table:
    """Return everything about one session as names and values, its worker and items beneath."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")

    def row(name: str, value: str | Text) -> None:
        if value:
            table.add_row(name, value)

    word = state_word(session)
    row("session", printable(session.session_id, 64))
    row("state", Text(word, style=_STATE_STYLES.get(word, "yellow")))
    row("ended by", Text(reason_words(session)))
    row("", printable(session.close_detail, 500))
    row("client", printable(session.client_name, 128))
    row("owner", printable(session.owner, 128))
    row("tag", printable(session.tag, 64))
    row("backend", printable(session.backend, 64))
    opened = timestamp_to_datetime(session.opened_at)
    row("opened", f"{utc_text(opened)}, {age_text(max(0.0, now - opened.timestamp()))} ago")
    if not is_ended(session):
        lease = age_text(duration_to_seconds(session.lease))
        row("lease", f"{lease}, {_lease_left(session, now)}" + ("" if session.subscribers else " left"))
    row("subscribers", str(session.subscribers))
    row("pending commands", str(session.pending_commands))
    row("head", f"{session.head_sequence:,}")
    row(
        "event log", f"{session.log_events:,} events, {bytes_text(session.log_bytes)}, from {session.oldest_sequence:,}"
    )
    row("epoch", session.epoch.hex())
    if worker is not None:
        _worker_rows(row, worker)
    if state is not None:
        row(
            "registrations",
            ", ".join(printable(r.client_name, 64) or str(r.server_handle) for r in state.registrations),
        )
        row("items", f"{state.total_items:,}")
        for item in state.items[:10]:
            row("", f"{item.item_handle}  {shortened(printable(item.item_definition, 1024), 60)}{_advise(item)}")
        if state.total_items > 10:
            row("", f"… and {state.total_items - 10:,} more")
    return table


def _advise(item: s.ItemState) -> str:
    words = [enum_words(s.AdviseKind.Name(item.advise), "ADVISE_KIND_")] if item.advise > s.ADVISE_KIND_NONE else []
    words += ["buffered"] if item.buffered else []
    words += ["suspended"] if item.suspended else []
    return f"  ({', '.join(words)})" if words else "  (not advised)"


def _worker_rows(row: object, worker: s.GetWorkerInfoResponse) -> None:
    assert callable(row)
    row("worker", f"pid {worker.pid}, {enum_words(e.WorkerState.Name(worker.state), 'WORKER_STATE_')}")
    row("", f"last heard of {age_text(duration_to_seconds(worker.silence))} ago")
    row("memory", bytes_text(worker.rss_bytes) if worker.rss_bytes else "")
    health = enum_words(e.SourceHealth.Name(worker.source_health), "SOURCE_HEALTH_")
    row("source", f"{printable(worker.backend, 64)}, {health}")
    row("", printable(worker.source_detail, 500))
    row("outbox", f"{worker.outbox_events:,} events, {bytes_text(worker.outbox_bytes)}")
    if worker.events_lost:
        row("events lost", Text(f"{worker.events_lost:,}", style="bold red"))


def session_document(session: s.Session, rss_bytes: int = 0) -> dict[str, object]:
    """Return one session for JSON."""
    return {
        "session_id": session.session_id,
        "state": state_word(session),
        "close_reason": reason_words(session).replace(" ", "_") or None,
        "close_detail": session.close_detail,
        "client_name": session.client_name,
        "owner": session.owner,
        "tag": session.tag,
        "backend": session.backend,
        "opened_at": timestamp_to_datetime(session.opened_at),
        "lease_s": duration_to_seconds(session.lease),
        "lease_expires_at": timestamp_to_datetime(session.lease_expires_at) if not is_ended(session) else None,
        "epoch": session.epoch.hex(),
        "head_sequence": session.head_sequence,
        "oldest_sequence": session.oldest_sequence,
        "log_events": session.log_events,
        "log_bytes": session.log_bytes,
        "subscribers": session.subscribers,
        "pending_commands": session.pending_commands,
        "worker_pid": session.worker_pid or None,
        "worker_state": enum_words(e.WorkerState.Name(session.worker_state), "WORKER_STATE_"),
        "source_health": enum_words(e.SourceHealth.Name(session.source_health), "SOURCE_HEALTH_"),
        "rss_bytes": rss_bytes or None,
    }


def worker_document(worker: s.GetWorkerInfoResponse) -> dict[str, object]:
    """Return a worker for JSON."""
    return {
        "pid": worker.pid,
        "state": enum_words(e.WorkerState.Name(worker.state), "WORKER_STATE_"),
        "backend": worker.backend,
        "started_at": timestamp_to_datetime(worker.started_at),
        "silence_s": duration_to_seconds(worker.silence),
        "rss_bytes": worker.rss_bytes or None,
        "source_health": enum_words(e.SourceHealth.Name(worker.source_health), "SOURCE_HEALTH_"),
        "source_detail": worker.source_detail,
        "items": worker.items,
        "head_sequence": worker.head_sequence,
        "outbox_events": worker.outbox_events,
        "outbox_bytes": worker.outbox_bytes,
        "events_lost": worker.events_lost,
        "protocol_version": worker.protocol_version,
    }


def item_document(item: s.ItemState) -> dict[str, object]:
    """Return one item of a session for JSON."""
    return {
        "server_handle": item.server_handle,
        "item_handle": item.item_handle,
        "tag": item.item_definition,
        "context": item.item_context,
        "advise": enum_words(s.AdviseKind.Name(item.advise), "ADVISE_KIND_"),
        "buffered": item.buffered,
        "suspended": item.suspended,
        "last_sequence": item.last_sequence,
    }
