"""Checks of numbers in the types of the API."""

from __future__ import annotations

import math


def check_range(name: str, value: float, least: float = 0, most: float = math.inf) -> None:
    """Make sure that a number is in a range. The largest value itself is allowed, if it is finite.

    Raises:
        TypeError: it is no number.
        ValueError: it is out of the range, not finite, or not a number.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number, not {type(value).__name__}")
    if not least <= value <= most or not math.isfinite(value):
        limit = f"{least:g} or more" if most == math.inf else f"from {least:g} to {most:g}"
        raise ValueError(f"{name} is {value}; it must be {limit}")
