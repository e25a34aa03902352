"""Makes text from a peer safe for logs, errors and terminals."""

from __future__ import annotations


def printable(text: str, limit: int) -> str:
    """Return `text`, shortened to at most `limit` characters, with a replacement for each unprintable character."""
    shown = text if len(text) <= limit else text[: max(limit - 1, 0)] + "…"
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in shown)


def scalar_or_type(value: object, limit: int) -> str:
    """Return None, a truth value, a number or a text as it is written in Python; of anything else only the type.

    For wrong answers of plugins: the `repr` of another object is the plugin's code, which can fail or take long, and
    can show what must not be in a log.
    """
    if value is None or type(value) in (bool, int, float, str):
        return printable(repr(value), limit)
    return f"a value of type {printable(type(value).__qualname__, limit)}"
