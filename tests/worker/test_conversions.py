"""The conversion table for written values: the same for every backend that writes by it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone

import pytest

from mxgw.convert import PyValue, to_value
from mxgw_worker.backends.opcua import coerce as opcua
from mxgw_worker.backends.sim import coerce as sim
from mxgw_worker.backends.sim.status import Refused
from mxgw_worker.conversions import TABLE, ConversionRefused, Refusal, Target, convert

T, R = Target, Refusal


def by_the_table(value: PyValue, target: Target) -> object:
    return convert(value, target)


def by_sim(value: PyValue, target: Target) -> object:
    (data_type,) = [kind for kind, t in sim.TARGETS.items() if t is target][:1] or [sim.DataType.INTEGER]
    try:
        return sim.coerce(value, sim.DataType(data_type))
    except Refused as refused:
        raise ConversionRefused(next(r for r, d in sim.DETAILS.items() if d == refused.detail)) from refused


def by_opcua(value: PyValue, target: Target) -> object:
    kind = next(kind for kind, t in opcua.TARGETS.items() if t is target)
    try:
        return opcua.to_variant(to_value(value), opcua.NodeType(opcua._T(kind), -1)).Value
    except opcua.NotWritable as refused:
        raise ConversionRefused(next(r for r, d in opcua.DETAILS.items() if d == refused.detail)) from refused


SIM_HAS = {*sim.TARGETS.values(), T.INT32}
OPCUA_HAS = set(opcua.TARGETS.values())

# Each entry: what a client sends, the type of the item, and the converted value or the refusal.
CASES: list[tuple[PyValue, Target, object]] = [
    # Texts that are numbers.
    ("12", T.INT32, 12),
    (" \t12\r\n", T.INT32, 12),
    ("+12", T.INT32, 12),
    ("-12", T.INT32, -12),
    ("- 12", T.INT32, -12),
    ("12-", T.INT32, -12),
    ("(12)", T.INT32, -12),
    ("0000000000000000000000000000000000000012", T.INT32, 12),
    ("12.", T.INT32, 12),
    ("2.5", T.INT32, 2),
    ("3.5", T.INT32, 4),
    ("-2.5", T.INT32, -2),
    ("2.50000000000000000000000001", T.INT32, 3),
    (".5", T.INT32, 0),
    ("0.05", T.INT32, 0),
    ("1e3", T.INT32, 1000),
    ("12.5E+1", T.INT32, 125),
    ("1e-400", T.INT32, 0),
    ("1e-99999999999999999999", T.DOUBLE, 0.0),
    ("0e99999999999999999999", T.INT32, 0),
    ("1,000", T.INT32, 1000),
    ("12,345,678.5", T.DOUBLE, 12_345_678.5),
    ("&H1A", T.INT32, 26),
    ("&O17", T.INT32, 15),
    ("&HFFFFFFFF", T.INT32, -1),
    ("&hff", T.DOUBLE, 255.0),
    (".5", T.DOUBLE, 0.5),
    ("5.", T.DOUBLE, 5.0),
    ("-0.1", T.DOUBLE, -0.1),
    ("1.7976931348623157e308", T.DOUBLE, 1.7976931348623157e308),
    ("0.1", T.FLOAT, 0.10000000149011612),
    ("1e-60", T.FLOAT, 0.0),
    ("65535", T.UINT16, 65_535),
    ("-32768", T.INT16, -32_768),
    ("18446744073709551615", T.UINT64, 2**64 - 1),
    ("-9223372036854775808", T.INT64, -(2**63)),
    # Texts that are none.
    *[
        (text, target, R.TEXT)
        for target in (T.INT32, T.DOUBLE, T.FLOAT, T.BOOLEAN, T.UINT64)
        for text in (
            *("", " ", "abc", "12abc", "1_000", "1_0.5", "nan", "NaN", "inf", "-inf", "infinity", "Infinity"),
            *("\u0661\u0662", "\uff11\uff12", "\u00b2", "\u0967", "\u00a012", "\u200312", "12\x00", "1 000", "1'000"),
            *("1,5", "1,2,3", "1,0000", ",000", "1,000,", "1.000,5", "1.2.3", "--5", "+-5", "-5-", "(-5", "(5"),
            *(".", "-", "()", "e3", "1e", "1e+", "1e5.5", "1d3", "0x1A", "&H", "&O8", "-&H10", "$5", "5%", "1e\u0663"),
        )
    ],
    # Numbers out of range.
    ("1e400", T.DOUBLE, R.RANGE),
    ("1e99999999999999999999", T.DOUBLE, R.RANGE),
    ("1e400", T.INT32, R.RANGE),
    ("1e39", T.FLOAT, R.RANGE),
    ("9" * 500, T.INT32, R.RANGE),
    ("9" * 500, T.DOUBLE, R.RANGE),
    ("2147483648", T.INT32, R.RANGE),
    ("2147483647.5", T.INT32, R.RANGE),
    ("-1", T.UINT8, R.RANGE),
    ("256", T.UINT8, R.RANGE),
    ("&H1FFFFFFFFFFFFFFFF", T.UINT64, R.TEXT),
    ("&O7777777777777777777777", T.UINT64, R.RANGE),
    (2**31, T.INT32, R.RANGE),
    (128, T.INT8, R.RANGE),
    (-1, T.UINT32, R.RANGE),
    (1e39, T.FLOAT, R.RANGE),
    (math.inf, T.INT32, R.RANGE),
    (math.nan, T.INT32, R.RANGE),
    # Numbers and truth values.
    (2.5, T.INT32, 2),
    (3.5, T.INT32, 4),
    (3, T.DOUBLE, 3.0),
    (math.inf, T.DOUBLE, math.inf),
    (True, T.INT32, -1),
    (True, T.DOUBLE, -1.0),
    (False, T.DOUBLE, 0.0),
    (False, T.FLOAT, 0.0),
    (-0.0, T.DOUBLE, -0.0),
    (False, T.UINT8, 0),
    (True, T.UINT8, R.RANGE),
    (7, T.BOOLEAN, True),
    (0.0, T.BOOLEAN, False),
    ("TRUE", T.BOOLEAN, True),
    ("False", T.BOOLEAN, False),
    ("#TRUE#", T.BOOLEAN, True),
    ("#FALSE#", T.BOOLEAN, False),
    ("-1", T.BOOLEAN, True),
    ("0.0", T.BOOLEAN, False),
    ("true ", T.BOOLEAN, R.TEXT),
    ("yes", T.BOOLEAN, R.TEXT),
    ("on", T.BOOLEAN, R.TEXT),
    ("true", T.INT32, R.TEXT),
    # Values as text.
    ("", T.TEXT, ""),
    (12, T.TEXT, "12"),
    (True, T.TEXT, "True"),
    (False, T.TEXT, "False"),
    (3.0, T.TEXT, "3"),
    (0.1, T.TEXT, "0.1"),
    (0.1 + 0.2, T.TEXT, "0.3"),
    (1 / 3, T.TEXT, "0.333333333333333"),
    (0.10000000149011612, T.TEXT, "0.1"),
    (1e14, T.TEXT, "100000000000000"),
    (1e15, T.TEXT, "1E+15"),
    (0.000015, T.TEXT, "0.000015"),
    (1e-15, T.TEXT, "1E-15"),
    (1e-300, T.TEXT, "1E-300"),
    (-0.0, T.TEXT, "0"),
    (math.nan, T.TEXT, "NaN"),
    (-math.inf, T.TEXT, "-Infinity"),
    (datetime(2018, 1, 15, 10, tzinfo=UTC), T.TEXT, "2018-01-15T10:00:00+00:00"),
    # Times.
    ("2018-01-15", T.TIME, datetime(2018, 1, 15, tzinfo=UTC)),
    ("2018-01-15T10:00:00Z", T.TIME, datetime(2018, 1, 15, 10, tzinfo=UTC)),
    ("2018-01-15T10:00:00.1234567Z", T.TIME, datetime(2018, 1, 15, 10, 0, 0, 123_456, tzinfo=UTC)),
    ("2018-01-15T10:00:00+02:00", T.TIME, datetime(2018, 1, 15, 10, tzinfo=timezone(timedelta(hours=2)))),
    ("2018-1-5 7:30", T.TIME, datetime(2018, 1, 5, 7, 30, tzinfo=UTC)),
    ("2018/01/15", T.TIME, datetime(2018, 1, 15, tzinfo=UTC)),
    ("1/15/2018", T.TIME, datetime(2018, 1, 15, tzinfo=UTC)),
    ("01/15/2018 12:00:00", T.TIME, datetime(2018, 1, 15, 12, tzinfo=UTC)),
    ("1/15/2018 12:00 AM", T.TIME, datetime(2018, 1, 15, tzinfo=UTC)),
    ("1/15/2018 10:00:00 pm", T.TIME, datetime(2018, 1, 15, 22, tzinfo=UTC)),
    *[
        (text, T.TIME, R.TEXT)
        for text in (
            *("", "yesterday", "20180115", "43115", "10:30", "15/1/2018", "1/15/18", "2018-02-30", "2018-01-15 25:00"),
            *("2018-W03-1", "\u0662\u0660\u0661\u0668-01-15", "2018-01-15T10:00:00+25:00", "0000-01-01", "15.01.2018"),
            *("1/15/2018 0:00 AM", "1/15/2018 13:00 PM", "2018-01/15", "0001-01-01T00:00:00+01:00"),
        )
    ],
    (5, T.TIME, R.UNSUPPORTED),
    # Spans.
    (90, T.SPAN, timedelta(seconds=90)),
    ("1 02:03:04.5", T.SPAN, timedelta(days=1, hours=2, minutes=3, seconds=4.5)),
    ("\u0661 02:03:04", T.SPAN, R.TEXT),
    ("9" * 5_000 + " 02:03:04", T.SPAN, R.TEXT),
    # What has no conversion.
    (datetime(2018, 1, 1, tzinfo=UTC), T.INT32, R.UNSUPPORTED),
    (datetime(2018, 1, 1, tzinfo=UTC), T.BOOLEAN, R.UNSUPPORTED),
    (b"1", T.INT32, R.UNSUPPORTED),
    (b"1", T.TEXT, R.UNSUPPORTED),
    (None, T.DOUBLE, R.NO_VALUE),
    ("text", T.BYTES, b"text"),
    (1, T.BYTES, R.UNSUPPORTED),
]


@pytest.mark.parametrize("write", [by_the_table, by_sim, by_opcua])
def test_every_backend_converts_by_the_one_table(write: Callable[[PyValue, Target], object]) -> None:
    has = {by_sim: SIM_HAS, by_opcua: OPCUA_HAS}.get(write, set(TABLE))
    wrong = []
    for value, target, expected in CASES:
        if target not in has:
            continue
        try:
            got = write(value, target)
        except ConversionRefused as refused:
            got = refused.refusal
            if write is by_sim and got is R.NO_VALUE:
                got = expected if expected in (R.NO_VALUE, R.UNSUPPORTED) else got  # One detail for both: 13.
        # The text tells 0.0 from -0.0, which are equal.
        if (got, type(got), str(got)) != (expected, type(expected), str(expected)):
            wrong.append((value, target.name, expected, got))

    assert wrong == []


def test_the_table_has_every_type_and_the_cases_try_each() -> None:
    assert set(TABLE) == set(Target)
    assert {target for _, target, _ in CASES} == set(Target)


def test_a_text_of_a_hundred_kilobytes_is_converted_or_refused_in_bounded_work() -> None:
    n = 100_000
    texts = ["9" * n, "1" + ",000" * (n // 4), "0." + "0" * n + "1", " " * n + "x", "(" * n, "-" * n, "tr" * n]
    texts += ["1e" + "0" * n + "1", "1e" + "9" * n, "&H" + "0" * n + "1", "9" * n + ".5", "2018-01-15" + " " * n + "1"]
    outcomes = []
    for text in texts:
        try:
            outcomes.append(convert(text, T.DOUBLE))
        except ConversionRefused as refused:
            outcomes.append(refused.refusal)
        for target in (T.INT32, T.BOOLEAN, T.TIME, T.SPAN):
            with contextlib.suppress(ConversionRefused):
                convert(text, target)

    assert outcomes == [R.RANGE, R.RANGE, 0.0, *[R.TEXT] * 4, 10.0, R.RANGE, 1.0, R.RANGE, R.TEXT]
