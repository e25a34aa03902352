"""Page sizes and page tokens of the worker's answers."""

from __future__ import annotations

from mxgw_worker.calls import CallFailed
from mxgw_worker.ipc.page_tokens import place_of


def page_size_of(asked: int, default: int, maximum: int) -> int:
    """Return the page size to use. It is the default when `asked` is 0 or less, and never more than the maximum."""
    return default if asked <= 0 else min(asked, maximum)


def parse_page_token(token: str, query: str) -> tuple[int, int]:
    """Return the place in a page token.

    Raises:
        CallFailed: BAD_PAGE_TOKEN, the token is malformed or belongs to another query.
    """
    place = place_of(token, query)
    if place is None:
        raise CallFailed(
            "BAD_PAGE_TOKEN", "the page token is not one of this query; use next_page_token as it came, or start anew"
        )
    return place
