"""Converts the dates of COM (VT_DATE, FILETIME) to nanoseconds since 1970 (UTC) and back."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

# A VT_DATE counts days from this day. Source: the documentation of DATE in the reference of OLE Automation.
_EPOCH = datetime(1899, 12, 30)  # noqa: DTZ001  a VT_DATE has no time zone
_1970 = datetime(1970, 1, 1)  # noqa: DTZ001  as above
# A double has steps of about 0.6 us at today's dates, so anything finer than a microsecond is noise.
_US_PER_DAY = 86_400_000_000
_NS_PER_US = 1_000
# A FILETIME counts steps of 100 ns from 1601-01-01 (UTC). Source: the documentation of FILETIME.
_FILETIME_1970 = 116_444_736_000_000_000
_FILETIME_NS = 100
# Years 1 to 9999, which is what a google.protobuf.Timestamp can hold, in nanoseconds since 1970.
_FIRST_NS = -62_135_596_800 * 10**9
_LAST_NS = 253_402_300_800 * 10**9 - 1


class Dates:
    """Converts dates whose zone is UTC, or this machine's own.

    Which of them MXAccess uses is unconfirmed (docs/reference/mxaccess.md#times), so an option of the backend decides.
    """

    def __init__(self, *, local: bool) -> None:
        """Set the zone: that of this machine if `local`, otherwise UTC."""
        self._to_utc: Callable[[datetime], timedelta] = _local_to_utc if local else _no_offset
        self._from_utc: Callable[[datetime], timedelta] = _utc_to_local if local else _no_offset

    def ns(self, date: float) -> int:
        """Return the time of a VT_DATE in nanoseconds since 1970 (UTC), exact to the microsecond.

        Raises:
            OverflowError: the date is not a number, or is outside the years 1 to 9999.
        """
        if not math.isfinite(date):
            raise OverflowError(f"{date} is not a date")
        # The fraction is the time of day, also of a day before the epoch: -1.25 is 06:00 on 1899-12-29.
        days = int(date)
        return self.ns_of(_EPOCH + timedelta(days=days, microseconds=round(abs(date - days) * _US_PER_DAY)))

    def ns_of(self, moment: datetime) -> int:
        """Return a time that has no zone of its own in nanoseconds since 1970 (UTC).

        Raises:
            OverflowError: the time is outside the years 1 to 9999.
        """
        return checked(_ns(moment + self._to_utc(moment)))

    def date(self, ns: int) -> float:
        """Return nanoseconds since 1970 (UTC) as a VT_DATE.

        Raises:
            OverflowError: the time is outside the years 1 to 9999.
        """
        moment = _1970 + timedelta(microseconds=checked(ns) // _NS_PER_US)
        passed = moment + self._from_utc(moment) - _EPOCH
        part = (passed.seconds * 1_000_000 + passed.microseconds) / _US_PER_DAY
        return passed.days + part if passed.days >= 0 else passed.days - part


def filetime_ns(ticks: int) -> int:
    """Return a FILETIME, in steps of 100 ns since 1601 (UTC), as nanoseconds since 1970 (UTC).

    Raises:
        OverflowError: the time is outside the years 1 to 9999.
    """
    return checked((ticks - _FILETIME_1970) * _FILETIME_NS)


def filetime(ns: int) -> int:
    """Return nanoseconds since 1970 (UTC) as a FILETIME; what is finer than 100 ns is lost."""
    return ns // _FILETIME_NS + _FILETIME_1970


def without_fraction(text: str) -> tuple[str, int]:
    """Return a text without the fraction of its seconds, and the fraction in nanoseconds."""
    start = text.rfind(":")
    point = text.find(".", start + 1) if start >= 0 else -1
    if point < 0:
        return text, 0
    end = point + 1
    while end < len(text) and text[end] in "0123456789":
        end += 1
    digits = text[point + 1 : end][:9]
    if not digits or not text[point - 1 : point].isdigit():
        return text, 0
    return text[:point] + text[end:], int(digits.ljust(9, "0"))


def checked(ns: int) -> int:
    """Return `ns` when it is a time of the years 1 to 9999.

    Raises:
        OverflowError: it is not.
    """
    if not _FIRST_NS <= ns <= _LAST_NS:
        raise OverflowError("the time is outside the years 1 to 9999")
    return ns


def _ns(moment: datetime) -> int:
    passed = moment - _1970
    return (passed.days * 86_400_000_000 + passed.seconds * 1_000_000 + passed.microseconds) * _NS_PER_US


def _no_offset(_moment: datetime) -> timedelta:
    return timedelta(0)


def _local_to_utc(moment: datetime) -> timedelta:
    try:
        return -(moment.astimezone().utcoffset() or timedelta(0))
    except (OSError, ValueError, OverflowError):  # Windows has no local time before 1970 and after 3000
        return -_present_offset()


def _utc_to_local(moment: datetime) -> timedelta:
    try:
        return moment.replace(tzinfo=UTC).astimezone().utcoffset() or timedelta(0)
    except (OSError, ValueError, OverflowError):
        return _present_offset()


def _present_offset() -> timedelta:
    return datetime.now().astimezone().utcoffset() or timedelta(0)
