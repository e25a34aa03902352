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
    if problem := range_problem(value, least, most):
        raise ValueError(f"{name} is {problem}")


def range_problem(value: float, least: float = 0, most: float = math.inf) -> str:
    """Return a phrase that says which number is out of the range, and the range; "" when it is in the range."""
    if least <= value <= most and value < math.inf:  # this is false for NaN too
        return ""
    is_short = isinstance(value, float) or abs(value) < 1 << 64
    limit = f"{least:g} or more, and finite" if most == math.inf else f"from {least:g} to {most:g}"
    return f"{value if is_short else 'a number of more than 64 bits'}; it must be {limit}"


def check_whole_number(name: str, value: int, least: int = 0) -> None:
    """Make sure that a number is whole, and at least `least`.

    Raises:
        TypeError: it is no whole number.
        ValueError: it is less than `least`.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, not {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name} is {value}; it must be {least} or more")
