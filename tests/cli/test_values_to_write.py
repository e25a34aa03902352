"""What a value on the command line means."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from mxgw_cli.write.run import parsed
from mxgw_client import DataType


@pytest.mark.parametrize(
    ("text", "current", "value"),
    [
        ("on", False, True),
        ("0x10", 3, 16),
        ("5", 1.5, 5.0),
        ("0042", "text", "0042"),
        ("[1, 2.5]", [0.0], [1.0, 2.5]),
        ('["a", "b"]', ["x"], ["a", "b"]),
        ("90", timedelta(0), timedelta(seconds=90)),
        ("2026-01-31T08:00:00", datetime(2020, 1, 1, tzinfo=UTC), datetime(2026, 1, 31, 8, tzinfo=UTC)),
        ("true", None, True),
        ("12", None, 12),
        ("1.5", None, 1.5),
        ("abc", None, "abc"),
        ("[not json", None, "[not json"),
    ],
)
def test_by_itself_the_type_is_that_of_the_tags_value(text: str, current: object, value: object) -> None:
    result, _ = parsed(text, "auto", current)

    assert result == value
    assert type(result) is type(value)


def test_a_named_type_wins_over_what_the_tag_has() -> None:
    assert parsed("12", "string", 7) == ("12", DataType.STRING)
    assert parsed("12", "float", 7) == (12.0, DataType.FLOAT)
    assert parsed("[true, false]", "boolean", None) == ([True, False], DataType.BOOLEAN)


@pytest.mark.parametrize(
    ("text", "type_name", "current", "says"),
    [
        ("maybe", "auto", True, "no boolean: true or false"),
        ("1.5", "auto", 7, "no integer"),
        ("abc", "double", None, "no number"),
        ("5", "auto", [1, 2], "give a JSON list"),
        ("tomorrow", "time", None, "ISO 8601"),
        ("soon", "elapsed_time", None, "number of seconds"),
        ("inf", "elapsed_time", None, "number of seconds"),
    ],
)
def test_a_text_that_is_no_such_value_says_what_would_be(text: str, type_name: str, current: object, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parsed(text, type_name, current)
