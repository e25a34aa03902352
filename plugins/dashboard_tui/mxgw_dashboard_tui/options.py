"""The options of `mxgw dashboard`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Options:
    """Which gateway or recording to show, how to reach it, and how to show it."""

    target: str
    user: str
    ca: Path | None
    certificate: Path | None
    private_key: Path | None
    interval_s: float
    record: Path | None
    replay: Path | None
    theme: str
    alarm_rows: int = 1000
    # Of a gateway that accepts one key and knows no operators, as that of `mxgw demo` does.
    api_key_file: Path | None = None
