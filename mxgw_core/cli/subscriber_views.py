"""How a session's subscribers are shown: a table that fits 80 columns, its counters, and documents for JSON."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from mxgw_client import Counter, GapReason, Subscriber, SubscriberList
from mxgw_core.cli.text import age_text, bytes_text, shortened
from mxgw_core.cli.words import enum_key, enum_words
from mxgw_core.printable import printable

WHO_CHARACTERS = 20
# Shorter words for what is lost most.
_REASONS = {GapReason.QUEUE_DROPPED: "dropped"}


def subscribers_table(subscribers: Sequence[Subscriber], now: float) -> Table:
    """Return three lines per subscriber: who, by which policy, how far, how far behind, and what it lost."""
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
    """Return how many there are, and how far the session's log reaches."""
    held = f"{found.log_events:,} events, {bytes_text(found.log_bytes)}" if found.log_events else "nothing"
    return (
        f"{len(found.subscribers)} of at most {found.maximum_subscribers} subscribers; "
        f"head {found.head_sequence:,}, the log holds {held}"
    )


def counter_lines(counters: Sequence[Counter]) -> list[str]:
    """Return the counters as metrics are usually written."""
    return [f"{counter.name}{{{_labels(counter)}}} {counter.value:,}" for counter in counters]


def _labels(counter: Counter) -> str:
    return ",".join(f"{key}={printable(value, 64)}" for key, value in sorted(counter.labels.items()))


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
