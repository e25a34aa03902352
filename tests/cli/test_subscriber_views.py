"""Subscribers as a table, counters, and JSON."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console, RenderableType

from mxgw_cli.render import json_text
from mxgw_cli.sessions.view import counter_lines, subscribers_document, subscribers_line, subscribers_table
from mxgw_client import Counter, GapReason, Position, Subscriber, SubscriberList

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


def subscriber(**changes: object) -> Subscriber:
    values: dict[str, object] = {
        "subscriber_id": "1a2b3c4d",
        "client_name": "desk",
        "address": "127.0.0.1:40123",
        "attached_at": NOW - timedelta(minutes=5),
        "policy": "drop_oldest",
        "limit_events": 10_000,
        "limit_bytes": 8 << 20,
        "limit_s": 0.0,
        "position": Position(b"\x0a" * 16, 123_456),
        "lag_events": 9_500,
        "lag_bytes": 49_152,
        "lag_s": 1.25,
        "backlog_bytes": 2_048,
        "delivered_events": 113_000,
        "delivered_bytes": 6_000_000,
        "filtered_events": 0,
        "lost": {GapReason.QUEUE_DROPPED: 1_000, GapReason.CONFLATED: 7},
        "ending": False,
        **changes,
    }
    return Subscriber(**values)  # type: ignore[arg-type]


FOUND = SubscriberList(
    (subscriber(),),
    8,
    123_456,
    113_957,
    9_500,
    49_152,
    (Counter("mxgw_subscriber_overflow_total", {"policy": "drop_oldest", "kind": "DropOldest"}, 12_345),),
)


def drawn(renderable: RenderableType, width: int) -> str:
    file = io.StringIO()
    Console(file=file, width=width, markup=False, highlight=False, emoji=False).print(renderable)
    return file.getvalue()


@pytest.mark.parametrize("width", [80, 120, 200])
def test_the_table_fits_and_says_who_how_far_how_far_behind_and_what_was_lost(width: int) -> None:
    long = subscriber(client_name="a client with a very long name indeed", address="unix:/a/very/long/path/to/a.sock")
    text = drawn(subscribers_table([subscriber(), long], NOW.timestamp()), width)

    assert max(map(len, text.splitlines())) <= width
    for wanted in ("1a2b3c4d", "desk", "127.0.0.1:40123", "drop_oldest", "for 5m00s", "123,456", "113,000 given"):
        assert wanted in text
    for wanted in ("9,500 of 10,000", "48.0 KiB, 1.2s", "2.0 KiB held", "1,000 dropped", "7 conflated"):
        assert wanted in text


def test_a_reader_that_is_level_and_lost_nothing_is_quiet() -> None:
    text = drawn(
        subscribers_table([subscriber(lag_events=0, lag_bytes=0, lag_s=0.0, backlog_bytes=0, lost={})], 0.0), 80
    )

    assert "nothing" in text
    assert "held" not in text


def test_one_that_is_ending_says_so_and_a_filtered_one_what_was_not_for_it() -> None:
    text = drawn(subscribers_table([subscriber(ending=True, filtered_events=42)], NOW.timestamp()), 80)

    assert "ending" in text
    assert "42 not for it" in text


def test_the_line_above_tells_room_head_and_log() -> None:
    assert subscribers_line(FOUND) == ("1 of at most 8 subscribers; head 123,456, the log holds 9,500 events, 48.0 KiB")


def test_counters_are_written_as_metrics_are() -> None:
    bare = Counter("mxgw_pump_stall_milliseconds_total", {}, 7)

    assert counter_lines([*FOUND.counters, bare]) == [
        "mxgw_subscriber_overflow_total{kind=DropOldest,policy=drop_oldest} 12,345",
        "mxgw_pump_stall_milliseconds_total 7",
    ]


def test_json_has_everything_by_stable_names() -> None:
    document = json.loads(json_text(subscribers_document(FOUND)))
    (one,) = document["subscribers"]

    assert one["lost"] == {"queue_dropped": 1_000, "conflated": 7}
    assert (one["lag_events"], one["lag_bytes"], one["lag_s"]) == (9_500, 49_152, 1.25)
    assert one["sequence"] == 123_456
    assert document["counters"] == [
        {
            "name": "mxgw_subscriber_overflow_total",
            "labels": {"policy": "drop_oldest", "kind": "DropOldest"},
            "value": 12_345,
        }
    ]
    assert set(one) == {
        *("subscriber_id", "client_name", "address", "policy", "attached_at", "position", "sequence", "ending"),
        *("lag_events", "lag_bytes", "lag_s", "limit_events", "limit_bytes", "limit_s", "backlog_bytes", "lost"),
        *("delivered_events", "delivered_bytes", "filtered_events"),
    }


def test_a_clients_name_cannot_reach_the_terminals_controls() -> None:
    text = drawn(subscribers_table([subscriber(client_name="\x1b[2J[bold]evil")], NOW.timestamp()), 120)

    assert "\x1b" not in text
    assert "[bold]evil" in text
