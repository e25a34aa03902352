"""Exceptions of plugins in words that may stand in a log."""

from __future__ import annotations

import traceback

_LONGEST = 300


def told(error: BaseException, *, with_text: bool = True) -> str:
    """Return type, text and place of an exception, printable and capped.

    `with_text` is off where the text may repeat credentials.
    """
    text = "".join(c if c.isprintable() else " " for c in str(error)).strip() if with_text else ""
    if len(text) > _LONGEST:
        text = text[: _LONGEST - 3] + "..."
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}{': ' if text else ''}{text}{place}"
