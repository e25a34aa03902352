"""Tells from a time and the clock which zone the time is in."""

from __future__ import annotations

import time

# A time that differs from the clock by less than this is of this moment: clocks of machines and the way to them differ.
_TOLERANCE_S = 180.0


def offset_s() -> int:
    """Return by how many seconds the local time of this machine is ahead of UTC at present."""
    return time.localtime().tm_gmtoff


def zone_of(time_ns: int | None, clock_ns: int, ahead_s: int) -> str:
    """Return which zone a time is in that was read as if it were UTC, and that is known to be of this moment.

    `clock_ns` is the clock at that moment (UTC), `ahead_s` by how much local time is ahead of UTC.
    """
    if time_ns is None:
        return "no time"
    difference_s = (time_ns - clock_ns) / 1e9
    is_utc, is_local = abs(difference_s) < _TOLERANCE_S, abs(difference_s - ahead_s) < _TOLERANCE_S
    if is_utc and is_local:
        return "undecided: the zone of this machine is UTC"
    if is_utc:
        return "utc"
    if is_local:
        return "local"
    return f"neither: {difference_s:+.0f} s from UTC, {difference_s - ahead_s:+.0f} s from local time"
