"""Short forms of values, times and sizes for people; peers' text in them is made printable."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from mxgw_core.printable import printable

_KIB = 1024
SHORT_ROOT_BYTES = 30


def value_text(value: object, limit: int = 60) -> str:
    """Return a value as one line of at most `limit` characters; what it leaves out it marks with an ellipsis."""
    return printable(_value_text(value, limit), limit)


def _value_text(value: object, limit: int) -> str:
    match value:
        case None:
            return "(no value)"
        case bool():
            return "true" if value else "false"
        case float():
            return _float_text(value)
        case datetime():
            return utc_text(value)
        case timedelta():
            return f"{value.total_seconds():g} s"
        case bytes():
            return f"0x{value[:limit].hex()}"
        case list() | tuple():
            return _sequence_text(value, limit)
        case _:
            return str(value)


def _float_text(value: float) -> str:
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("∞" if value > 0 else "-∞")
    return f"{value:.7g}"


def _sequence_text(values: Sequence[object], limit: int) -> str:
    """Return as many elements as there is room for, and how many there are when some are left out."""
    whole = f"[{', '.join(_value_text(element, limit) for element in values[:limit])}]"
    if len(whole) <= limit and len(values) <= limit:
        return whole
    tail = f", …] ({len(values)})"
    kept = whole[: max(limit - len(tail), 1)].rpartition(", ")[0]
    return f"{kept}{tail}" if kept else f"[…] ({len(values)})"


def utc_text(moment: datetime) -> str:
    """Return a UTC time with milliseconds, sortable: `2018-01-03 17:45:00.000Z`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def age_text(seconds: float) -> str:
    """Return a time span in at most six characters: `250ms`, `4.2s`, `3m07s`, `5h12m`, `8d03h`."""
    if seconds < 0:
        return "-" + age_text(-seconds)
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 60:
        return f"{seconds:.1f}s"
    whole = int(seconds)
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86_400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    days = whole // 86_400
    return f"{days}d{whole % 86_400 // 3600:02d}h" if days < 100 else f"{days}d"


def bytes_text(size: int) -> str:
    """Return a size in binary units: `512 B`, `38.1 MiB`."""
    number = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < _KIB or unit == "GiB":
            break
        number /= _KIB
    return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"


def milliseconds_text(milliseconds: float) -> str:
    """Return a latency: three digits where they mean something."""
    return f"{milliseconds:.2f} ms" if milliseconds < 10 else f"{milliseconds:.0f} ms"


def shortened(text: str, width: int) -> str:
    """Return `text` in at most `width` characters; names differ at both ends, so the middle gives way."""
    if len(text) <= width:
        return text
    tail = (width - 1) // 2
    return text[: width - 1 - tail] + "…" + (text[-tail:] if tail else "")


def short_temporary_root() -> str | None:
    """Return a directory for temporary Unix sockets; None for the usual one.

    A socket path has room for about a hundred bytes, and some systems put temporary files under long names.
    """
    usual = tempfile.gettempdir()
    return "/tmp" if len(usual) > SHORT_ROOT_BYTES and Path("/tmp").is_dir() else None  # noqa: S108 - mkdtemp is private
