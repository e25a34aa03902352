"""Reads a CSV file of measurements: its columns with their types, and its times in rising order.

The text of a time stamp is not always the time that it means. In the steel data every midnight row has the date of the
day that has just ended. In files that went through a spreadsheet, day and month have often changed places. A time is
corrected only when the correction follows the row before at the file's usual step, and the time as written does not.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from math import isfinite
from pathlib import Path

from mxgw_worker.backends.base import BackendUnavailable
from mxgw_worker.backends.sim.coerce import Scalar
from mxgw_worker.backends.sim.status import DataType

_MAXIMUM_ROWS = 1_000_000
# Times of this form are parsed without `strptime`, whose import alone would add 10 ms to the start of a worker.
_DAY_FIRST = re.compile(r"(\d{1,2})[/.](\d{1,2})[/.](\d{4})[ T]+(\d{1,2}):(\d{2})(?::(\d{2}))?", re.ASCII)
_MISSING = frozenset(("nan", "null", "none", "n/a", "#n/a"))
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Column:
    """One measured quantity: its header, its type, and one value per row. The value of an empty cell is None."""

    header: str
    data_type: DataType
    values: tuple[Scalar | None, ...]


@dataclass(frozen=True, slots=True)
class Recording:
    """The columns, the UTC time of each row in rising order, and the usual number of seconds between two rows."""

    name: str
    times: tuple[datetime, ...]
    columns: tuple[Column, ...]
    step_s: float


def read_recording(path: Path, timestamp_column: str = "", timestamp_format: str = "") -> Recording:
    """Return the recording in `path`.

    `timestamp_column` is the header of the column with the times; "" means the first column. `timestamp_format` is a
    format of `strptime`. Without a format, ISO 8601 and dates with the day first are read. Times without a zone are
    taken as UTC.

    Raises:
        BackendUnavailable: the file is not a recording that can be read; the text names the row or the column.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BackendUnavailable(f"the recording {path} cannot be read: {error}") from error
    if len(rows) < 3 or len(rows) > _MAXIMUM_ROWS:
        raise BackendUnavailable(
            f"the recording {path} needs a header and 2 to {_MAXIMUM_ROWS} rows, not {len(rows) - 1}"
        )
    header, rows = [name.strip() for name in rows[0]], rows[1:]
    for number, row in enumerate(rows, 2):
        if len(row) != len(header):
            raise BackendUnavailable(f"row {number} of {path} has {len(row)} cells where the header has {len(header)}")
    if timestamp_column and timestamp_column not in header:
        raise BackendUnavailable(f"{path} has no column {timestamp_column!r}; it has {', '.join(header)}")
    stamps = header.index(timestamp_column) if timestamp_column else 0
    times, step = _times([row[stamps].strip() for row in rows], timestamp_format, path)
    columns = tuple(
        _column(name, [row[index].strip() for row in rows]) for index, name in enumerate(header) if index != stamps
    )
    return Recording(path.name, times, columns, step.total_seconds())


def _times(texts: list[str], timestamp_format: str, path: Path) -> tuple[tuple[datetime, ...], timedelta]:
    written = [_read_time(text, timestamp_format, path, number) for number, text in enumerate(texts, 2)]
    steps = Counter(later - earlier for earlier, later in pairwise(written) if later > earlier)
    if not steps:
        raise BackendUnavailable(
            f"the times of {path} never rise; name the right column with option 'timestamp_column'"
        )
    # Among the steps that are most frequent, this is the shortest.
    step = max(steps, key=lambda each: (steps[each], -each))
    times = [written[0]]
    for number, time in enumerate(written[1:], 3):
        before = times[-1]
        if time != before + step:
            time = next((other for other in _other_readings(time) if other == before + step), time)
        if time <= before:
            raise BackendUnavailable(
                f"row {number} of {path} ({time}) does not come after the row before it ({before})"
            )
        times.append(time)
    return tuple(times), step


def _other_readings(time: datetime) -> list[datetime]:
    readings = [time]
    if time.day <= 12:
        readings.append(time.replace(day=time.month, month=time.day))
    # A time at midnight can have the date of the day that has just ended. So the next day is also a possible reading.
    nights = [reading + _DAY for reading in readings if not (time.hour or time.minute or time.second)]
    return readings[1:] + nights


def _read_time(text: str, timestamp_format: str, path: Path, number: int) -> datetime:
    try:
        if timestamp_format:
            time = datetime.strptime(text, timestamp_format)  # noqa: DTZ007 - zone below
        elif match := _DAY_FIRST.fullmatch(text):
            day, month, year, hour, minute, second = (int(part) for part in match.groups(default="0"))
            time = datetime(year, month, day, hour, minute, second)  # noqa: DTZ001 - zone below
        else:
            time = datetime.fromisoformat(text)
    except ValueError as error:
        raise BackendUnavailable(
            f"row {number} of {path}: {text!r:.60} is no time; name its column with option 'timestamp_column' "
            "or its form with 'timestamp_format'"
        ) from error
    return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)


def _column(header: str, texts: list[str]) -> Column:
    """Return the column with the narrowest type that fits all its cells. An empty cell fits every type."""
    parsers: tuple[tuple[DataType, Callable[[str], Scalar]], ...] = (
        (DataType.BOOLEAN, _boolean),
        (DataType.INTEGER, _int32),
        (DataType.DOUBLE, _finite),
    )
    texts = ["" if text.lower() in _MISSING else text for text in texts]
    if any(texts):
        for data_type, parse in parsers:
            try:
                return Column(header, data_type, tuple(parse(text) if text else None for text in texts))
            except ValueError:
                continue
    return Column(header, DataType.STRING, tuple(text or None for text in texts))


def _boolean(text: str) -> bool:
    try:
        return {"true": True, "false": False}[text.lower()]
    except KeyError:
        raise ValueError(text) from None


def _finite(text: str) -> float:
    number = float(text.replace("_", "?"))
    if not isfinite(number):
        raise ValueError(text)
    return number


def _int32(text: str) -> int:
    number = int(text.replace("_", "?"))
    if not -(2**31) <= number < 2**31:
        raise ValueError(text)
    return number
