"""Text from a peer, made safe for logs, errors and terminals."""

from __future__ import annotations


def printable(text: str, limit: int) -> str:
    """Return `text` with unprintable characters replaced and at most `limit` characters long."""
    shown = text if len(text) <= limit else text[: max(limit - 1, 0)] + "…"
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in shown)
