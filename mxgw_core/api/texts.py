"""Checks of sequences of texts in the types of the API."""

from __future__ import annotations

from collections.abc import Iterable


def check_texts(name: str, texts: Iterable[str]) -> None:
    """Make sure that no single text was given in place of several texts: its letters would be used as the texts.

    Raises:
        TypeError: it is a single text.
    """
    if isinstance(texts, str | bytes | bytearray):
        raise TypeError(
            f"{name} must be a sequence of texts, not a single {type(texts).__name__}: write [{texts!r:.60}]"
        )
