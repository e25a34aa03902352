"""What is known of a plugin, and what it answered."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any


class PluginState(enum.Enum):
    """Whether a plugin runs: AVAILABLE is installed and not enabled."""

    LOADED = "loaded"
    FAILED = "failed"
    AVAILABLE = "available"


@dataclass(frozen=True, slots=True)
class PluginRecord:
    """One plugin at one moment. `distribution` and `version` are "" when not installed; `detail` is for people."""

    name: str
    state: PluginState
    distribution: str
    version: str
    required: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one plugin made of one call: a value that is not None, or the exception it raised."""

    plugin: str
    value: Any = None
    error: Exception | None = None


class LoadFailure(Exception):
    """One plugin cannot be used; the text says why. Stays inside this package."""
