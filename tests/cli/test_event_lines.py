"""Events and gaps as lines and as JSON."""

from __future__ import annotations

from mxgw.convert import ok_status, status, timestamp_from_ns, to_value
from mxgw.v1 import events_pb2 as e
from mxgw_cli.render import gap_document, gap_line
from mxgw_cli.stream.view import event_document, event_line
from mxgw_client import EventBatch, Gap, GapReason
from mxgw_client.events import Event, StreamContext
from mxgw_client.references import ReferenceMap

NS = 1_000_000_000


def view(raw: e.Event) -> Event:
    return EventBatch([raw], StreamContext(b"\x0a" * 16, ReferenceMap()))[0]


def data_change(value: object, quality: int = 192, statuses: list[object] | None = None) -> Event:
    change = e.DataChange(
        value=to_value(value),  # type: ignore[arg-type]  # any value of the tests below
        raw_quality=quality,
        source_time=timestamp_from_ns(1_515_000_000 * NS),
        statuses=statuses or [ok_status()],  # type: ignore[arg-type]
    )
    return view(
        e.Event(
            sequence=5,
            item_handle=2,
            server_handle=1,
            kind=e.EVENT_KIND_DATA_CHANGE,
            worker_time=timestamp_from_ns(1_600_000_000 * NS),
            data_change=change,
        )
    )


def test_a_data_change_is_time_tag_value_and_quality_in_columns() -> None:
    line = event_line(data_change(23.5), "Tank_001.Level", 20).plain

    assert line == "2018-01-03 17:20:00.000Z  Tank_001.Level                  23.5  good"


def test_a_failed_data_change_says_so_beside_its_value() -> None:
    line = event_line(data_change(None, 0, [status(0, 4, 1, 6)]), "X", 4).plain

    assert "(no value)  bad  failed: invalid reference (configuration error, 6)" in line


def test_a_peers_text_stays_on_its_line_and_brackets_stay_brackets() -> None:
    line = event_line(data_change("a\nb\x1b[31m"), "Evil\x1b[2J[red]", 30).plain

    assert line.isprintable()
    assert "[red]" in line


def test_a_missing_completion_is_an_unknown_outcome() -> None:
    raw = e.Event(
        sequence=1, kind=e.EVENT_KIND_WRITE_COMPLETE, write_complete=e.WriteComplete(write_id=9, missing=True)
    )
    event = view(raw)

    assert "the outcome is unknown" in event_line(event, "X", 4).plain
    assert event_document(event, "X")["ok"] is False


def test_json_has_words_beside_native_numbers() -> None:
    document = event_document(data_change(1, 65_544, [status(0, 6, 1, 1012)]), "Tank[]")

    assert (document["quality"], document["raw_quality"], document["ok"]) == ("bad", 65_544, False)
    assert document["statuses"] == [
        {"success": 0, "category": "security_error", "detail": 1012, "detail_name": "secured_write", "detected_by": 1}
    ]
    assert document["position"] == f"mxgw1.{'0a' * 16}.5"
    assert document["tag"] == "Tank[]"


def test_a_gap_cannot_be_overlooked_and_says_which_events_are_lost() -> None:
    gap = Gap(b"\x0a", 34, 45, 0, GapReason.RING_EVICTED, "raise the retention\n")

    assert gap_line(gap).plain == "--- GAP: 12 events lost (sequences 34 to 45): ring evicted; raise the retention�"
    assert "bold red" in str(gap_line(gap).style)
    assert gap_document(gap)["count"] is None


def test_a_gap_of_unknown_size_does_not_invent_one() -> None:
    gap = Gap(b"\x0a", 0, 0, 0, GapReason.SOURCE_RECONNECTED, "")

    assert "an unknown number of events lost" in gap_line(gap).plain
    assert gap_document(gap)["first_lost"] is None
