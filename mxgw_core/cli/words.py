"""MXAccess numbers in words: qualities, statuses, close reasons. The raw numbers stay beside them in JSON output."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mxgw_client.values import Status

# Source: OPC DA quality codes as MXAccess delivers them (docs/reference/mxaccess.md#qualities); the low two bits
# are the limit.
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

# What a person does about a status; by native detail.
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


def quality_class(raw: int) -> str:
    """Return `good`, `uncertain` or `bad`; vendor bits above 0xFF do not count."""
    return _CLASSES.get(raw & 0xC0, "bad")


def quality_text(raw: int) -> str:
    """Return a raw quality in words, for example `bad: waiting for initial data`."""
    code = raw & 0xFC
    words = _QUALITIES.get(code, f"{quality_class(raw)}: code {raw & 0xFF}")
    limit = _LIMITS[raw & 0x03]
    return f"{words} ({limit})" if limit else words


def enum_words(member: enum.Enum) -> str:
    """Return an enum member in words: `WORKER_EXITED` -> `worker exited`."""
    return member.name.lower().replace("_", " ")


def enum_key(member: enum.Enum) -> str:
    """Return an enum member for JSON: `WORKER_EXITED` -> `worker_exited`."""
    return member.name.lower()


def status_text(status: Status) -> str:
    """Return one MXSTATUS_PROXY in words, with its native detail number and what to do about it."""
    category = enum_words(status.category)
    if status.success != 0:
        return "ok" if category in ("ok", "unspecified") else f"accepted, {category}"
    detail = status.detail_name.lower().replace("_", " ") or f"detail {hresult_text(status.detail)}"
    number = f", {status.detail}" if status.detail_name else ""
    advice = _ADVICE.get(status.detail, "")
    return f"{detail} ({category}{number})" + (f"; {advice}" if advice else "")


def statuses_text(statuses: Sequence[Status]) -> str:
    """Return several statuses in words; `ok` when none is a failure or a reservation."""
    remarkable = [text for text in map(status_text, statuses) if text != "ok"]
    return "; ".join(dict.fromkeys(remarkable)) or "ok"


def status_document(status: Status) -> dict[str, object]:
    """Return one status for JSON: names, and the native numbers of success, detail and source."""
    return {
        "success": status.success,
        "category": enum_key(status.category),
        "detail": status.detail,
        "detail_name": status.detail_name.lower(),
        "detected_by": status.detected_by,
    }


def hresult_text(hresult: int) -> str:
    """Return an HRESULT as people look it up: `0x80070057`."""
    return f"0x{hresult & 0xFFFFFFFF:08X}"
