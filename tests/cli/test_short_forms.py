"""Values, times, sizes, qualities and statuses as people and scripts see them."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxgw.convert import status
from mxgw_cli.render import (
    age_text,
    bytes_text,
    json_text,
    milliseconds_text,
    quality_class,
    quality_text,
    shortened,
    status_text,
    statuses_text,
    utc_text,
    value_text,
)
from mxgw_client.values import status_from_message


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "(no value)"),
        (True, "true"),
        (7, "7"),
        (0.1 + 0.2, "0.3"),
        (1e300, "1e+300"),
        (math.nan, "NaN"),
        (-math.inf, "-∞"),
        ("plain [red]text[]", "plain [red]text[]"),
        ("two\nlines\x1b[2J", "two�lines�[2J"),
        (b"\x01\xff", "0x01ff"),
        (timedelta(seconds=90), "90 s"),
        ([1, 2, 3], "[1, 2, 3]"),
        ([], "[]"),
        (list(range(1000)), "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, …] (1000)"),
        (datetime(2018, 1, 3, 4, 5, 6, 789_999, UTC), "2018-01-03 04:05:06.789Z"),
    ],
)
def test_a_value_is_one_short_line(value: object, shown: str) -> None:
    assert value_text(value) == shown


@given(st.recursive(st.none() | st.floats() | st.text() | st.binary() | st.integers(), st.lists), st.integers(20, 60))
def test_no_value_is_long_or_reaches_the_terminals_controls(value: object, limit: int) -> None:
    shown = value_text(value, limit)

    assert shown.isprintable()
    assert len(shown) <= limit


def test_times_are_shown_in_utc_whatever_their_zone() -> None:
    assert utc_text(datetime(2026, 1, 1, 1, tzinfo=timezone(timedelta(hours=2)))) == "2025-12-31 23:00:00.000Z"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0ms"), (0.25, "250ms"), (4.2, "4.2s"), (187, "3m07s"), (18_720, "5h12m"), (702_000, "8d03h"), (-2, "-2.0s")],
)
def test_an_age_takes_six_characters(seconds: float, shown: str) -> None:
    assert age_text(seconds) == shown


@given(st.floats(0, 80_000_000))
def test_no_age_is_wider_than_its_column(seconds: float) -> None:
    assert len(age_text(seconds)) <= 6


def test_sizes_and_latencies_have_their_unit() -> None:
    assert [bytes_text(n) for n in (0, 1023, 1536, 40 * 1024**2)] == ["0 B", "1023 B", "1.5 KiB", "40.0 MiB"]
    assert [milliseconds_text(n) for n in (0.123, 12.3)] == ["0.12 ms", "12 ms"]


@given(st.text(min_size=1), st.integers(1, 40))
def test_a_shortened_name_fits_and_keeps_both_ends(text: str, width: int) -> None:
    short = shortened(text, width)

    assert len(short) <= max(width, 1)
    if len(text) > width >= 3:
        assert (short[0], short[-1]) == (text[0], text[-1])


@pytest.mark.parametrize(
    ("raw", "words", "kind"),
    [
        (192, "good", "good"),
        (216, "good: local override", "good"),
        (193, "good (at low limit)", "good"),
        (32, "bad: waiting for initial data", "bad"),
        (65_544, "bad: not connected", "bad"),
        (80, "uncertain: sensor not accurate", "uncertain"),
        (36, "bad: code 36", "bad"),
    ],
)
def test_qualities_are_words(raw: int, words: str, kind: str) -> None:
    assert (quality_text(raw), quality_class(raw)) == (words, kind)


def test_a_status_says_what_to_do_about_it() -> None:
    secured = status_from_message(status(0, 6, 1, 1012))

    assert status_text(secured).startswith("secured write (security error, 1012); the attribute wants a secured write")
    assert status_text(status_from_message(status(-1, 0, 1, 0))) == "ok"
    assert status_text(status_from_message(status(1, 1, 1, 0))) == "accepted, pending"
    assert (
        status_text(status_from_message(status(0, 4, 1, -2_140_209_152))) == "detail 0x806F0000 (configuration error)"
    )


def test_the_same_status_twice_is_told_once() -> None:
    failed = status_from_message(status(0, 4, 1, 6))

    assert statuses_text([failed, failed]) == status_text(failed)
    assert statuses_text([]) == "ok"


def test_json_is_plain_ascii_and_has_a_form_for_every_value() -> None:
    line = json_text(
        {"nan": math.nan, "inf": -math.inf, "when": datetime(2026, 1, 1, tzinfo=UTC), "raw": b"\x00", "é": "\x1b"}
    )

    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line) == {
        "nan": "NaN",
        "inf": "-Infinity",
        "when": "2026-01-01T00:00:00Z",
        "raw": "AA==",
        "é": "\x1b",
    }
    with pytest.raises(TypeError):
        json_text(object())
