"""Page sizes and page tokens."""

from __future__ import annotations

import re
from zlib import crc32

from mxgw_worker.calls import CallFailed

_TOKEN = re.compile(r"(\d{1,10})\.(\d{1,10})\.([0-9a-f]{8})", re.ASCII)


def page_size_of(asked: int, default: int, maximum: int) -> int:
    """Return the page size to use: the default when none was asked for, never more than the maximum."""
    return default if asked <= 0 else min(asked, maximum)


def page_token(first: int, second: int, query: str) -> str:
    """Return the token of a place within the answer to `query`."""
    return f"{first}.{second}.{crc32(query.encode()):08x}"


def is_page_token_of(token: str, query: str) -> bool:
    """Return whether the token was made for this query."""
    match = _TOKEN.fullmatch(token)
    return match is not None and int(match[3], 16) == crc32(query.encode())


def parse_page_token(token: str, query: str) -> tuple[int, int]:
    """Return the place a token names.

    Raises:
        CallFailed: BAD_PAGE_TOKEN, it is malformed or belongs to another query.
    """
    match = _TOKEN.fullmatch(token)
    if match is None or not is_page_token_of(token, query):
        raise CallFailed(
            "BAD_PAGE_TOKEN", "the page token is not one of this query; use next_page_token as it came, or start anew"
        )
    return int(match[1]), int(match[2])
