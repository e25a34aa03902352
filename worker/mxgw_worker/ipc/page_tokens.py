"""Page tokens. A token names a place within a long answer. Gateway and worker write tokens in the same way."""

from __future__ import annotations

import re
from zlib import crc32

# The name of the query for a session's items, in page tokens. The place in such a token is the server handle and the
# item handle of the last item on the page that came with the token.
STATE = "state"
# The largest share of a frame that one page fills.
PAGE_SHARE = 0.75
_TOKEN = re.compile(r"(\d{1,10})\.(\d{1,10})\.([0-9a-f]{8})", re.ASCII)


def page_token(first: int, second: int, query: str) -> str:
    """Return the token for a place, which is two numbers, within the answer to `query`."""
    return f"{first}.{second}.{crc32(query.encode()):08x}"


def place_of(token: str, query: str) -> tuple[int, int] | None:
    """Return the place in a token; None when the token is malformed or belongs to another query."""
    match = _TOKEN.fullmatch(token)
    if match is None or int(match[3], 16) != crc32(query.encode()):
        return None
    return int(match[1]), int(match[2])
