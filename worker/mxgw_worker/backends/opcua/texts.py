"""Texts of a server. They should be UTF-8, but some servers send other bytes; these must not end the session.

The library keeps a byte that is no UTF-8 as half of a surrogate pair, which no message can contain.
"""

from __future__ import annotations


def is_text(text: str) -> bool:
    """Return True when the text can be sent in a message."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def shown(text: str | None) -> str:
    """Return the text with each byte that is no UTF-8 replaced by U+FFFD, and "" when there is no text."""
    if text is None or text.isascii() or is_text(text):
        return text or ""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
