"""The scripted gateway of the conformance kit, with what only the tests of the Python client need."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import TypeVar

from mxgw_cli.conformance.scripted import (
    EPOCH,
    SESSION_ID,
    Refusal,
    Scripted,
    batch,
    change,
    changes,
    gap,
    heartbeat,
    opened,
    scripted_gateway,
)

__all__ = [
    "EPOCH",
    "SESSION_ID",
    "Refusal",
    "Scripted",
    "batch",
    "change",
    "changes",
    "gap",
    "heartbeat",
    "opened",
    "read_until",
    "scripted_gateway",
]

T = TypeVar("T")
Ended = TypeVar("Ended", bound=Exception)


async def read_until(error: type[Ended], items: AsyncIterator[T], note: Callable[[T], object]) -> tuple[list, Ended]:
    """Iterate until `error` is raised. Return that error, and what `note` returned for each element as it came."""
    seen: list[object] = []
    try:
        async for item in items:
            seen.append(note(item))  # noqa: PERF401 - a comprehension would lose what came before the error
    except error as ended:
        return seen, ended
    raise AssertionError(f"the iteration stopped without {error.__name__}")
