"""Writes values, times, codes of MXAccess, and gaps: as text for people, and as JSON for scripts.

In text for people, control characters that come from a peer are replaced. In JSON, all characters beyond ASCII are
escaped.
"""

from __future__ import annotations

import base64
import enum
import json
import math
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from mxgw_core.printable import printable

if TYPE_CHECKING:
    from rich.text import Text

    from mxgw_client import Gap, ItemOutcome, Status

_KIB = 1024
QUALITY_STYLES = {"good": "green", "uncertain": "yellow", "bad": "bold red"}

# Key: quality code without its two lowest bits, which are the limit. Value: the code in words.
# Source: OPC DA quality codes as MXAccess delivers them (docs/reference/mxaccess.md#qualities).
_QUALITIES = {
    0: "bad",
    4: "bad: configuration error",
    8: "bad: not connected",
    12: "bad: device failure",
    16: "bad: sensor failure",
    20: "bad: last known value",
    24: "bad: communication failure",
    28: "bad: out of service",
    32: "bad: waiting for initial data",
    64: "uncertain",
    68: "uncertain: last usable value",
    80: "uncertain: sensor not accurate",
    84: "uncertain: engineering units exceeded",
    88: "uncertain: sub-normal",
    192: "good",
    216: "good: local override",
}
_CLASSES = {0x00: "bad", 0x40: "uncertain", 0xC0: "good"}
_LIMITS = ("", "at low limit", "at high limit", "constant")

# Key: native detail number of a status. Value: what a person can do about it.
_ADVICE = {
    6: "check the reference: `mxgw browse` shows what exists",
    11: "the attribute is still being resolved: wait for its first value",
    12: "the object is still being resolved: wait for its first value",
    13: "give the type that the attribute has, see --type",
    17: "a whole array needs `[]` at the end; elements count from 1",
    20: "the value does not fit the attribute's type",
    1003: "a whole array needs `[]` at the end; elements count from 1",
    1004: "the value is outside the attribute's range",
    1005: "give the type that the attribute has, see --type",
    1006: "the attribute cannot be read",
    1007: "the attribute cannot be written",
    1008: "the user may not write it: try --user-id with a user that may",
    1010: "the object is starting: try again in a moment",
    1011: "the engine is starting: try again in a moment",
    1012: "the attribute wants a secured write: one authenticated user",
    1013: "the attribute wants a verified write: a user and a second one who verifies",
    1016: "the user has no right to do this",
    1017: "the verifying user has no right to verify",
}


def write_json(document: object) -> None:
    """Write one JSON document as a line to stdout, and flush, so that the reader of a pipe gets the line at once."""
    sys.stdout.write(json_text(document) + "\n")
    sys.stdout.flush()


def json_text(document: object) -> str:
    """Return one line of JSON. All characters beyond ASCII are escaped, so the line is safe in any terminal.

    Times become ISO 8601 in UTC, time spans become seconds, and bytes become base64. Numbers that JSON cannot express
    become the strings "NaN", "Infinity" and "-Infinity", as in the JSON mapping of Protocol Buffers.
    """
    return json.dumps(_plain(document), allow_nan=False, separators=(", ", ": "))


def _plain(value: object) -> object:
    match value:
        case None | bool() | str():
            return value
        case enum.Enum():
            return value.name.lower()
        case int():
            return value
        case float():
            if math.isfinite(value):
                return value
            return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
        case datetime():
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case timedelta():
            return value.total_seconds()
        case bytes():
            return base64.b64encode(value).decode("ascii")
        case Mapping():
            return {str(key): _plain(element) for key, element in value.items()}
        case Sequence() | set() | frozenset():
            return [_plain(element) for element in value]
        case Path():
            return str(value)
        case _:
            raise TypeError(f"no JSON form for {type(value).__name__}")


def value_text(value: object, limit: int = 60) -> str:
    """Return a value as one line of at most `limit` characters; an ellipsis marks where characters are left out."""
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
    """Return as many elements as fit into `limit` characters; if some are left out, add the number of all elements."""
    whole = f"[{', '.join(_value_text(element, limit) for element in values[:limit])}]"
    if len(whole) <= limit and len(values) <= limit:
        return whole
    tail = f", …] ({len(values)})"
    kept = whole[: max(limit - len(tail), 1)].rpartition(", ")[0]
    return f"{kept}{tail}" if kept else f"[…] ({len(values)})"


def utc_text(moment: datetime) -> str:
    """Return a time in UTC with milliseconds, for example `2018-01-03 17:45:00.000Z`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def age_text(seconds: float) -> str:
    """Return a time span in at most six characters, for example `250ms`, `4.2s`, `3m07s`, `5h12m` or `8d03h`."""
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
    """Return a size in binary units, for example `512 B` or `38.1 MiB`."""
    number = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < _KIB or unit == "GiB":
            break
        number /= _KIB
    return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"


def milliseconds_text(milliseconds: float) -> str:
    """Return a latency as text: with two decimals below 10 ms, and without decimals above."""
    return f"{milliseconds:.2f} ms" if milliseconds < 10 else f"{milliseconds:.0f} ms"


def shortened(text: str, width: int) -> str:
    """Return `text` in at most `width` characters. The middle is left out, because names usually differ at the ends."""
    if len(text) <= width:
        return text
    tail = (width - 1) // 2
    return text[: width - 1 - tail] + "…" + (text[-tail:] if tail else "")


def quality_class(raw: int) -> str:
    """Return `good`, `uncertain` or `bad` for a raw quality; the vendor's bits above 0xFF are ignored."""
    return _CLASSES.get(raw & 0xC0, "bad")


def quality_text(raw: int) -> str:
    """Return a raw quality in words, for example `bad: waiting for initial data`."""
    code = raw & 0xFC
    words = _QUALITIES.get(code, f"{quality_class(raw)}: code {raw & 0xFF}")
    limit = _LIMITS[raw & 0x03]
    return f"{words} ({limit})" if limit else words


def enum_words(member: enum.Enum) -> str:
    """Return an enum member in words; `WORKER_EXITED` becomes `worker exited`."""
    return member.name.lower().replace("_", " ")


def enum_key(member: enum.Enum) -> str:
    """Return an enum member for JSON; `WORKER_EXITED` becomes `worker_exited`."""
    return member.name.lower()


def status_text(status: Status) -> str:
    """Return one MXSTATUS_PROXY in words. A failure also has its native detail number and advice for the user."""
    category = enum_words(status.category)
    if status.success != 0:
        return "ok" if category in ("ok", "unspecified") else f"accepted, {category}"
    detail = status.detail_name.lower().replace("_", " ") or f"detail {hresult_text(status.detail)}"
    number = f", {status.detail}" if status.detail_name else ""
    advice = _ADVICE.get(status.detail, "")
    return f"{detail} ({category}{number})" + (f"; {advice}" if advice else "")


def statuses_text(statuses: Sequence[Status]) -> str:
    """Return the statuses that are not ok in words; `ok` when all statuses are ok."""
    remarkable = [text for text in map(status_text, statuses) if text != "ok"]
    return "; ".join(dict.fromkeys(remarkable)) or "ok"


def status_document(status: Status) -> dict[str, object]:
    """Return one status for JSON, with the native numbers and their names."""
    return {
        "success": status.success,
        "category": enum_key(status.category),
        "detail": status.detail,
        "detail_name": status.detail_name.lower(),
        "detected_by": status.detected_by,
    }


def hresult_text(hresult: int) -> str:
    """Return an HRESULT in the usual form, for example `0x80070057`."""
    return f"0x{hresult & 0xFFFFFFFF:08X}"


def failure_text(outcome: ItemOutcome) -> str:
    """Return in words why a bulk call failed for one item; "" when it succeeded."""
    parts = []
    if outcome.hresult:
        parts.append(f"{outcome.message or 'MXAccess refused it'} ({hresult_text(outcome.hresult)})")
    elif outcome.reason:
        parts.append(outcome.message or outcome.reason.lower().replace("_", " "))
    if not all(status.ok for status in outcome.statuses):
        parts.append(statuses_text(outcome.statuses))
    return "; ".join(parts)


def gap_line(gap: Gap) -> Text:
    """Return a gap as one line in red."""
    from rich.text import Text

    which, count = "which ones is not known", gap.count
    if gap.first_lost and gap.last_lost:
        which = f"{'some of ' if gap.runs else ''}sequences {gap.first_lost} to {gap.last_lost}"
        count = gap.count or gap.last_lost - gap.first_lost + 1
    number = f"{count} event{'s' if count > 1 else ''}" if count else "an unknown number of events"
    line = Text(f"--- GAP: {number} lost ({which}): {enum_words(gap.reason)}", style="bold red")
    line.no_wrap, line.overflow = True, "ignore"
    if gap.detail:
        line.append(f"; {printable(gap.detail, 300)}")
    return line


def gap_document(gap: Gap) -> dict[str, object]:
    """Return a gap for JSON; unknown numbers become null."""
    return {
        "type": "gap",
        "epoch": gap.epoch.hex(),
        "first_lost": gap.first_lost or None,
        "last_lost": gap.last_lost or None,
        "count": gap.count or None,
        "ranges": [list(lost) for lost in gap.lost_ranges],
        "reason": enum_key(gap.reason),
        "detail": gap.detail,
    }
