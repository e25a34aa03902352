"""Compares what came with what a scenario expects: every expected field must be there, others may be too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def differences(expected: Any, actual: Any, where: str = "") -> list[str]:
    """Return what is not as expected, one sentence each. Lists must have the same length; numbers are compared as such.

    An empty object is matched by any object.
    """
    name = where or "it"
    if isinstance(expected, Mapping):
        if not isinstance(actual, Mapping):
            return [f"{name} is {_short(actual)}, expected {_short(expected)}"]
        found = []
        for key, value in expected.items():
            inner = f"{where}.{key}" if where else key
            if key not in actual:
                found.append(f"{inner} is missing, expected {_short(value)}")
            else:
                found += differences(value, actual[key], inner)
        return found
    if isinstance(expected, list):
        if not isinstance(actual, Sequence) or isinstance(actual, str) or len(actual) != len(expected):
            return [f"{name} is {_short(actual)}, expected {_short(expected)}"]
        return [
            found
            for number, (one, other) in enumerate(zip(expected, actual, strict=True))
            for found in differences(one, other, f"{where}[{number}]")
        ]
    is_same = expected == actual and isinstance(expected, bool) == isinstance(actual, bool)
    return [] if is_same else [f"{name} is {_short(actual)}, expected {_short(expected)}"]


def unmatched(expected: Sequence[Any], actual: Sequence[Any]) -> list[str]:
    """Return in which place a list of lines differs first, and how."""
    for number, (one, other) in enumerate(zip(expected, actual, strict=False)):
        if found := differences(one, other):
            return [f"line {number + 1} ({_short(other)}): {difference}" for difference in found]
    if len(actual) > len(expected):
        return [f"{len(actual) - len(expected)} lines too many, the first is {_short(actual[len(expected)])}"]
    if len(actual) < len(expected):
        return [f"{len(expected) - len(actual)} lines are missing, the first is {_short(expected[len(actual)])}"]
    return []


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 160 else f"{text[:157]}..."
