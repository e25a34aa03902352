"""Makes text from a peer safe for logs, errors and terminals."""

from __future__ import annotations


def printable(text: str, limit: int) -> str:
    """Return `text`, shortened to at most `limit` characters, with a replacement for each unprintable character."""
    shown = text if len(text) <= limit else text[: max(limit - 1, 0)] + "…"
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in shown)
