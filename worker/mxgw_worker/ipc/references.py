"""The memory that the references of items use. Worker and gateway count it in the same way."""

from __future__ import annotations

# The largest value of `limits.reference_bytes`.
MOST_REFERENCE_BYTES = 64 * 1024 * 1024


def reference_bytes(definition: str, context: str) -> int:
    """Return the bytes of memory that the texts of an item's reference use."""
    return _text_bytes(definition) + _text_bytes(context)


def _text_bytes(text: str) -> int:
    """Return the bytes of memory of a text. Each character uses as many bytes as the widest character. Source: PEP
    393.
    """
    if text.isascii():
        return len(text)
    widest = max(text)
    return len(text) * (1 if widest < "\u0100" else 2 if widest < "\U00010000" else 4)
