"""What the command line of `mxgw dashboard` said."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Options:
    """Which gateway or recording, how to get there, and how it is shown."""

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
