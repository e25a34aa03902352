"""Turns numbers, and text from the gateway, into short text on one line that cannot change colours or layout."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from mxgw.convert import from_value, timestamp_to_ns
from mxgw.v1 import events_pb2 as e
from mxgw.v1 import session_service_pb2 as ss
from mxgw.v1.values_pb2 import MxValue

_BARS = "▁▂▃▄▅▆▇█"
UNKNOWN = "-"


def clean(text: str, limit: int = 200) -> str:
    """Return `text` as one line without control or formatting characters, at most `limit` characters long."""
    shown = text if len(text) <= limit else text[: max(limit - 1, 0)] + "…"
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in shown)


def session_name(session: ss.Session) -> str:
    """Return the name to show for a session: the name of its client, or without one the beginning of the session id."""
    return clean(session.client_name, 40) or short_id(session.session_id)


def short_id(session_id: str) -> str:
    """Return the first characters of a session id, which are enough to distinguish sessions."""
    return clean(session_id[:8])


def count(number: int) -> str:
    """Return a count in at most five characters, for example 999, 12.3k or 4.5M."""
    if number < 10_000:
        return str(number)
    for factor, unit in ((1e3, "k"), (1e6, "M"), (1e9, "G")):
        value = number / factor
        if value < 999.5:
            return f"{value:.1f}{unit}" if value < 99.95 else f"{value:.0f}{unit}"
    return f"{number / 1e12:.1f}T"


def rate(per_s: float | None) -> str:
    """Return a rate without its unit; "-" when the rate is unknown."""
    if per_s is None:
        return UNKNOWN
    if 0 < per_s < 10:
        return f"{per_s:.1f}"
    return count(round(per_s))


def size(number: int) -> str:
    """Return a number of bytes with a binary unit, for example 12M; "-" for 0."""
    if not number:
        return UNKNOWN
    value = float(number)
    for unit in ("B", "K", "M", "G"):
        if value < 999.5:
            return f"{value:.0f}{unit}" if value >= 9.95 or unit == "B" else f"{value:.1f}{unit}"
        value /= 1024
    return f"{value:.1f}T"


def memory(number: int) -> str:
    """Return a number of bytes for use in a sentence, for example 29 MiB; "-" for 0."""
    return size(number).replace("K", " KiB").replace("M", " MiB").replace("G", " GiB").replace("T", " TiB")


def span(seconds: float | None) -> str:
    """Return a duration in at most six characters, for example 0.3s, 12s, 5m12s, 3h04m or 12d3h."""
    if seconds is None:
        return UNKNOWN
    if seconds < 10:
        return f"{max(0.0, seconds):.1f}s"
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86_400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86_400}d{whole % 86_400 // 3600}h"


def clock(stamp: Timestamp, *, with_ms: bool = False) -> str:
    """Return the time of day in UTC."""
    if not stamp.ByteSize():
        return UNKNOWN
    moment = datetime.fromtimestamp(stamp.seconds, UTC)
    text = moment.strftime("%H:%M:%S")
    return f"{text}.{stamp.nanos // 1_000_000:03}" if with_ms else text


def moment(stamp: Timestamp) -> str:
    """Return day and time in UTC, without the year."""
    if not stamp.ByteSize():
        return UNKNOWN
    return datetime.fromtimestamp(stamp.seconds, UTC).strftime("%m-%d %H:%M:%S")


def since(stamp: Timestamp, now_ns: int) -> float | None:
    """Return the seconds from `stamp` to `now_ns`; None when `stamp` is not set."""
    return (now_ns - timestamp_to_ns(stamp)) / 1e9 if stamp.ByteSize() else None


def spark(values: Sequence[float], width: int) -> str:
    """Return the last `width` values as a line of bars, the newest at the right; the largest has the highest bar."""
    shown = list(values)[-width:]
    top = max(shown, default=0.0)
    if top <= 0:
        return ("▁" * len(shown)).rjust(width)
    return "".join(_BARS[min(7, int(value / top * 7.999))] if value > 0 else "▁" for value in shown).rjust(width)


def value_text(value: MxValue, limit: int = 120) -> str:
    """Return a value for an operator to read."""
    kind = value.WhichOneof("kind")
    if kind is None:
        return UNKNOWN
    plain = from_value(value)
    match plain:
        case float():
            return f"{plain:.7g}" if kind == "float" else f"{plain:.10g}"
        case bytes():
            return f"{len(plain)} bytes"
        case datetime():
            return plain.strftime("%Y-%m-%d %H:%M:%S")
        case str():
            return clean(plain, limit)
        case list() | tuple():
            return f"[{len(plain)}] " + clean(", ".join(str(element)[:40] for element in plain[:8]), limit)
        case _:
            return clean(str(plain), limit)


def state_words(session: ss.Session, detached_s: float | None) -> tuple[str, str]:
    """Return one word for the condition of a session, and the tone to paint the word in.

    When a session has several conditions, the worst one is returned.
    """
    if session.state == ss.SESSION_STATE_FAULTED:
        return "FAULTED", "bad"
    if session.state == ss.SESSION_STATE_CLOSED:
        return "closed", "dim"
    if session.state == ss.SESSION_STATE_CLOSING:
        return "closing", "dim"
    if session.state == ss.SESSION_STATE_ADOPTING:
        return "ADOPTING", "warn"
    if session.state == ss.SESSION_STATE_CREATING:
        return "starting", "accent"
    if session.worker_state == e.WORKER_STATE_SILENT:
        return "SILENT", "bad"
    if session.source_health == e.SOURCE_HEALTH_LOST:
        return "SRC LOST", "bad"
    if session.source_health == e.SOURCE_HEALTH_DEGRADED:
        return "SRC DEGR", "warn"
    if detached_s is not None:
        return "detached", "warn"
    return "ready", "good"


def words(name: str, prefix: str) -> str:
    """Return the name of an enum value as words; WORKER_STATE_READY with the prefix WORKER_STATE_ becomes "ready"."""
    return name.removeprefix(prefix).lower().replace("_", " ")


def quality_words(quality: int, raw: int) -> tuple[str, str]:
    """Return a quality as text, and the tone to paint the text in.

    The text is a word and the raw number; a good quality without details is only the word.
    """
    match quality:
        case 3:
            return ("good" if raw in (0, 192) else f"good {raw}"), "good"
        case 2:
            return f"UNCERTAIN {raw}", "warn"
        case 1:
            return f"BAD {raw}", "bad"
        case _:
            return "unknown", "warn"
