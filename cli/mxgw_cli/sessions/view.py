"""Writes sessions and their subscribers as tables that fit 80 columns, and as documents for JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from mxgw_cli.render import age_text, bytes_text, enum_key, enum_words, shortened, utc_text
from mxgw_client import Counter, GapReason, Subscriber, SubscriberList
from mxgw_client.enums import AdviseKind, SessionState
from mxgw_client.results import ItemState, SessionInfo, StateOfSession, WorkerInfo
from mxgw_core.printable import printable

_STATE_STYLES = {"ready": "green", "faulted": "bold red", "closed": "dim"}
WIDE_COLUMNS = 132
ITEMS_SHOWN = 10
WHO_CHARACTERS = 20
# Key: reason of a gap. Value: a word that is shorter than the reason's own name.
_REASONS = {GapReason.QUEUE_DROPPED: "dropped"}


def is_ended(session: SessionInfo) -> bool:
    """Return whether the session has ended, so that no call can use it."""
    return session.state in (SessionState.CLOSED, SessionState.FAULTED)


def reason_words(session: SessionInfo) -> str:
    """Return in words why a session ended; "" when it has not ended."""
    return enum_words(session.close_reason) if session.close_reason else ""


def sessions_table(sessions: Sequence[SessionInfo], now: float, width: int) -> Table:
    """Return a table with one line per session. On a wide terminal it also has tag, owner, lease, subscribers, head."""
    is_wide = width >= WIDE_COLUMNS
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=0, show_edge=False)
    # The session id is never cut, so that a user can copy it for other commands.
    table.add_column("Session", no_wrap=True, min_width=max([7, *(len(s.session_id) for s in sessions)]))
    table.add_column("State", no_wrap=True)
    table.add_column("Backend", no_wrap=True, overflow="ellipsis", max_width=10)
    table.add_column("Client", no_wrap=True, overflow="ellipsis", max_width=18)
    if is_wide:
        table.add_column("Tag", no_wrap=True, overflow="ellipsis", max_width=10)
        table.add_column("Owner", no_wrap=True, overflow="ellipsis", max_width=12)
    table.add_column("Age", justify="right", no_wrap=True)
    if is_wide:
        table.add_column("Lease", justify="right", no_wrap=True)
        table.add_column("Subs", justify="right", no_wrap=True)
        table.add_column("Head", justify="right", no_wrap=True)
    table.add_column("Pid", justify="right", no_wrap=True)
    table.add_column("Memory", justify="right", no_wrap=True)
    for session in sessions:
        state = enum_words(session.state)
        cells: list[str | Text] = [
            printable(session.session_id, 64),
            Text(state, style=_STATE_STYLES.get(state, "yellow")),
            printable(session.backend, 64),
            printable(session.client_name, 128),
        ]
        if is_wide:
            cells += [printable(session.tag, 64), printable(session.owner, 64)]
        cells.append(age_text(max(0.0, now - session.opened_at.timestamp())))
        if is_wide:
            cells += [_lease(session, now), str(session.subscribers), f"{session.head.sequence:,}"]
        rss = session.worker_rss_bytes
        cells += [str(session.worker_pid or ""), bytes_text(rss) if rss else ""]
        table.add_row(*cells)
    return table


def _lease(session: SessionInfo, now: float) -> str:
    if is_ended(session):
        return reason_words(session)
    if session.subscribers:
        return "attached"
    return age_text(max(0.0, session.lease_expires_at.timestamp() - now))


def session_detail(session: SessionInfo, worker: WorkerInfo | None, state: StateOfSession | None, now: float) -> Table:
    """Return a table of names and values with everything about one session, its worker and its items."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")

    def row(name: str, value: str | Text) -> None:
        if value:
            table.add_row(name, value)

    word = enum_words(session.state)
    row("session", printable(session.session_id, 64))
    row("state", Text(word, style=_STATE_STYLES.get(word, "yellow")))
    row("ended by", reason_words(session))
    row("", printable(session.close_detail, 500))
    row("client", printable(session.client_name, 128))
    row("owner", printable(session.owner, 128))
    row("tag", printable(session.tag, 64))
    row("backend", printable(session.backend, 64))
    row("opened", f"{utc_text(session.opened_at)}, {age_text(max(0.0, now - session.opened_at.timestamp()))} ago")
    if not is_ended(session):
        left = "held by its subscribers" if session.subscribers else f"{_lease(session, now)} left"
        row("lease", f"{age_text(session.lease_s)}, {left}")
    row("subscribers", str(session.subscribers))
    if session.detached_at is not None:
        row("", f"without one for {age_text(max(0.0, now - session.detached_at.timestamp()))}")
    row("pending commands", str(session.pending_commands))
    held = session.head.sequence - session.oldest_sequence + 1
    row(
        "event log",
        f"head {session.head.sequence:,}"
        + (f", holds {held:,} from {session.oldest_sequence:,}" if held > 0 else ", empty"),
    )
    if session.horizon_s is not None:
        row("", f"reaches back {age_text(session.horizon_s)} at its present rate")
    row("epoch", session.head.epoch.hex())
    if worker is not None:
        _worker_rows(row, worker)
    if state is not None:
        row(
            "registrations",
            ", ".join(f"{handle} {printable(name, 64)}" for handle, name in state.registrations.items()),
        )
        row("items", f"{len(state.items):,}")
        for item in state.items[:ITEMS_SHOWN]:
            row("", f"{item.item.handle}  {shortened(printable(item.item.reference, 1024), 60)}  ({_item_words(item)})")
        if len(state.items) > ITEMS_SHOWN:
            row("", f"… and {len(state.items) - ITEMS_SHOWN:,} more")
    return table


def _item_words(item: ItemState) -> str:
    words = [
        {AdviseKind.PLAIN: "advised", AdviseKind.SUPERVISORY: "advised supervisory"}.get(item.advise, "not advised")
    ]
    words += ["buffered"] if item.buffered else []
    words += ["suspended"] if item.suspended else []
    return ", ".join(words)


def _worker_rows(row: Callable[[str, str | Text], None], worker: WorkerInfo) -> None:
    row("worker", f"pid {worker.pid}, {enum_words(worker.state)}, last heard of {age_text(worker.silence_s)} ago")
    row("memory", bytes_text(worker.rss_bytes) if worker.rss_bytes else "")
    row("source", f"{printable(worker.backend, 64)}, {enum_words(worker.source_health)}")
    row("", printable(worker.source_detail, 500))
    row("outbox", f"{worker.outbox_events:,} events, {bytes_text(worker.outbox_bytes)}")
    if worker.events_lost:
        row("events lost", Text(f"{worker.events_lost:,}", style="bold red"))


def session_document(session: SessionInfo) -> dict[str, object]:
    """Return one session for JSON."""
    return {
        "session_id": session.session_id,
        "state": enum_key(session.state),
        "close_reason": enum_key(session.close_reason) if session.close_reason else None,
        "close_detail": session.close_detail,
        "client_name": session.client_name,
        "owner": session.owner,
        "tag": session.tag,
        "backend": session.backend,
        "opened_at": session.opened_at,
        "lease_s": session.lease_s,
        "lease_expires_at": None if is_ended(session) else session.lease_expires_at,
        "head": session.head.to_text(),
        "head_sequence": session.head.sequence,
        "oldest_sequence": session.oldest_sequence,
        "horizon_s": session.horizon_s,
        "subscribers": session.subscribers,
        "detached_at": session.detached_at,
        "pending_commands": session.pending_commands,
        "worker_pid": session.worker_pid or None,
        "worker_state": enum_key(session.worker_state),
        "source_health": enum_key(session.source_health),
        "rss_bytes": session.worker_rss_bytes or None,
    }


def worker_document(worker: WorkerInfo) -> dict[str, object]:
    """Return a worker for JSON."""
    return {
        "pid": worker.pid,
        "state": enum_key(worker.state),
        "backend": worker.backend,
        "started_at": worker.started_at,
        "silence_s": worker.silence_s,
        "rss_bytes": worker.rss_bytes or None,
        "source_health": enum_key(worker.source_health),
        "source_detail": worker.source_detail,
        "items": worker.items,
        "head_sequence": worker.head.sequence,
        "outbox_events": worker.outbox_events,
        "outbox_bytes": worker.outbox_bytes,
        "events_lost": worker.events_lost,
    }


def item_document(item: ItemState) -> dict[str, object]:
    """Return one item of a session for JSON."""
    return {
        "server_handle": item.item.server_handle,
        "item_handle": item.item.handle,
        "item_serial": item.item.serial,
        "tag": item.item.reference,
        "context": item.item.context,
        "advise": enum_key(item.advise),
        "buffered": item.buffered,
        "suspended": item.suspended,
        "last_sequence": item.last_sequence,
        "writes_in_flight": item.writes_in_flight,
    }


def subscribers_table(subscribers: Sequence[Subscriber], now: float) -> Table:
    """Return a table with three lines per subscriber: names, policy, position, lag, and lost events."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False, leading=1)
    table.add_column("Subscriber", no_wrap=True)
    table.add_column("Policy", no_wrap=True)
    table.add_column("Position", justify="right", no_wrap=True)
    table.add_column("Behind", justify="right", no_wrap=True)
    table.add_column("Lost", overflow="fold")
    for subscriber in subscribers:
        table.add_row(
            "\n".join(filter(None, _who(subscriber))),
            _policy(subscriber, now),
            f"{subscriber.position.sequence:,}\n{subscriber.delivered_events:,} given\n"
            f"{bytes_text(subscriber.delivered_bytes)}",
            _behind(subscriber),
            _lost(subscriber),
        )
    return table


def _who(subscriber: Subscriber) -> list[str]:
    texts = (subscriber.subscriber_id, subscriber.client_name, subscriber.address)
    return [shortened(printable(text, 128), WHO_CHARACTERS) for text in texts]


def _policy(subscriber: Subscriber, now: float) -> Text:
    text = Text(printable(subscriber.policy, 24))
    text.append(f"\nfor {age_text(max(0.0, now - subscriber.attached_at.timestamp()))}")
    if subscriber.ending:
        text.append("\nending", style="bold red")
    return text


def _behind(subscriber: Subscriber) -> Text:
    share = subscriber.lag_events / subscriber.limit_events if subscriber.limit_events else 0.0
    style = "bold red" if share > 1 else ("yellow" if share > 0.5 else "")
    text = Text(f"{subscriber.lag_events:,}", style=style)
    if subscriber.limit_events:
        text.append(f" of {subscriber.limit_events:,}", style="dim")
    size = bytes_text(subscriber.lag_bytes)
    text.append(f"\n{size}" + (f", {age_text(subscriber.lag_s)}" if subscriber.lag_events else ""))
    if subscriber.backlog_bytes:
        text.append(f"\n{bytes_text(subscriber.backlog_bytes)} held", style="dim")
    return text


def _lost(subscriber: Subscriber) -> Text:
    lines = [f"{events:,} {_REASONS.get(reason) or enum_words(reason)}" for reason, events in subscriber.lost.items()]
    text = Text("\n".join(lines) if lines else "nothing", style="red" if lines else "dim")
    if subscriber.filtered_events:
        text.append(f"\n{subscriber.filtered_events:,} not for it", style="dim")
    return text


def subscribers_line(found: SubscriberList) -> str:
    """Return a line with the number of subscribers and the contents of the session's log."""
    held = f"{found.log_events:,} events, {bytes_text(found.log_bytes)}" if found.log_events else "nothing"
    return (
        f"{len(found.subscribers)} of at most {found.maximum_subscribers} subscribers; "
        f"head {found.head_sequence:,}, the log holds {held}"
    )


def counter_lines(counters: Sequence[Counter]) -> list[str]:
    """Return one line per counter, for example `name{label=value} 1,234`."""
    return [f"{counter.name}{_labels(counter)} {counter.value:,}" for counter in counters]


def _labels(counter: Counter) -> str:
    labels = ",".join(f"{key}={printable(value, 64)}" for key, value in sorted(counter.labels.items()))
    return f"{{{labels}}}" if labels else ""


def subscriber_document(subscriber: Subscriber) -> dict[str, object]:
    """Return one subscriber for JSON."""
    return {
        "subscriber_id": subscriber.subscriber_id,
        "client_name": subscriber.client_name,
        "address": subscriber.address,
        "policy": subscriber.policy,
        "attached_at": subscriber.attached_at,
        "position": subscriber.position.to_text(),
        "sequence": subscriber.position.sequence,
        "lag_events": subscriber.lag_events,
        "lag_bytes": subscriber.lag_bytes,
        "lag_s": subscriber.lag_s,
        "limit_events": subscriber.limit_events,
        "limit_bytes": subscriber.limit_bytes,
        "limit_s": subscriber.limit_s,
        "backlog_bytes": subscriber.backlog_bytes,
        "delivered_events": subscriber.delivered_events,
        "delivered_bytes": subscriber.delivered_bytes,
        "filtered_events": subscriber.filtered_events,
        "lost": {enum_key(reason): events for reason, events in subscriber.lost.items()},
        "ending": subscriber.ending,
    }


def subscribers_document(found: SubscriberList) -> dict[str, object]:
    """Return a session's subscribers and counters for JSON."""
    return {
        "maximum_subscribers": found.maximum_subscribers,
        "log_events": found.log_events,
        "log_bytes": found.log_bytes,
        "subscribers": [subscriber_document(subscriber) for subscriber in found.subscribers],
        "counters": [
            {"name": counter.name, "labels": dict(counter.labels), "value": counter.value} for counter in found.counters
        ],
    }
