"""The time of an alarm's record: DATE and TIME are texts in a zone that the record may name."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta

from mxgw_worker.backends.mxaccess.alarms.options import BIAS, EAST
from mxgw_worker.backends.mxaccess.dates import Dates

# A year first has only one meaning in use; every other order depends on the language of the machine.
_YEAR_FIRST = re.compile(r"(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})")
_TIME = re.compile(r"(\d{1,2}):(\d{1,2})(?::(\d{1,2})(?:[.,:](\d{1,9}))?)?(?:\s*([AP])\.?M\.?)?", re.IGNORECASE)
_FIRST_DAY = datetime(1899, 12, 30)  # noqa: DTZ001  a VT_DATE counts days from here, without a zone
_MOST_MINUTES = 26 * 60
# So many different dates are kept; the records of a day share one.
_MOST_DATES = 1000


class RecordTimes:
    """Converts the times of records. `zone` is that of the option `alarm_times`, `dates` is the zone of the backend.

    `date_of` reads a date in the language of the machine, and raises ValueError.
    """

    def __init__(self, zone: str, dates: Dates, date_of: Callable[[str], float]) -> None:
        self._zone = zone
        self._dates = dates
        self._fixed = {"utc": Dates(local=False), "local": Dates(local=True)}.get(zone)
        self._date_of = date_of
        self._days: dict[str, datetime] = {}

    def ns(self, date: str, time: str, offset: str, daylight: str) -> int | None:
        """Return the time in nanoseconds since 1970 (UTC), exact to the microsecond; None when it is no time.

        `offset` and `daylight` are minutes: GMTOFFSET and DSTADJUST of the record, "" when it has none.
        """
        try:
            moment = self._day(date) + _time_of_day(time)
            if self._fixed is not None:
                return self._fixed.ns_of(moment)
            minutes = _minutes(offset, daylight)
            if minutes is None:
                return self._dates.ns_of(moment)
            # Windows counts a bias from local time to UTC; the other sense is the usual one of an offset.
            # Which of the two a record has is unconfirmed (docs/reference/mxaccess.md#alarm-records).
            sign = {BIAS: 1, EAST: -1}[self._zone]
            return Dates(local=False).ns_of(moment + timedelta(minutes=sign * minutes))
        except (ValueError, OverflowError):
            return None

    def _day(self, text: str) -> datetime:
        day = self._days.get(text)
        if day is None:
            matched = _YEAR_FIRST.fullmatch(text)
            if matched:
                day = datetime(*map(int, matched.groups()))  # type: ignore[arg-type]  # noqa: DTZ001  as above
            else:
                day = _FIRST_DAY + timedelta(days=int(self._date_of(text)))
            if len(self._days) >= _MOST_DATES:
                self._days.clear()
            self._days[text] = day
        return day


def _time_of_day(text: str) -> timedelta:
    matched = _TIME.fullmatch(text)
    if not matched:
        raise ValueError(text)
    hour, minute, second = int(matched[1]), int(matched[2]), int(matched[3] or 0)
    half = (matched[5] or "").upper()
    if half:
        if not 1 <= hour <= 12:
            raise ValueError(text)
        hour = hour % 12 + (12 if half == "P" else 0)
    if hour > 23 or minute > 59 or second > 59:
        raise ValueError(text)
    return timedelta(hours=hour, minutes=minute, seconds=second, microseconds=int((matched[4] or "").ljust(6, "0")[:6]))


def _minutes(offset: str, daylight: str) -> int | None:
    try:
        minutes = int(offset) + int(daylight or 0)
    except ValueError:
        return None
    return minutes if abs(minutes) <= _MOST_MINUTES else None
