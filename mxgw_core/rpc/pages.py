"""Pages of long answers: their size, their tokens, and how much fits on one that is filled here."""

from __future__ import annotations

from google.protobuf.message import Message

from mxgw_core.api.errors import InvalidRequest

# Part of a frame that one page may fill, as in a worker.
_PAGE_SHARE = 0.75


class PageRoom:
    """The room on a page: for so many entries, and about as many bytes as a worker's page has."""

    def __init__(self, entries: int, frame_bytes: int) -> None:
        self._entries = entries
        self._bytes = int(frame_bytes * _PAGE_SHARE)
        self._taken = 0
        # Whether an entry found no room, so that there is another page.
        self.is_full = False

    def takes(self, entry: Message) -> bool:
        """Take an entry if there is room; the first one always has it, and after one that has none no other does."""
        self._bytes -= entry.ByteSize()
        if self.is_full or self._taken == self._entries or (self._taken and self._bytes < 0):
            self.is_full = True
            return False
        self._taken += 1
        return True


def page(size: int, default: int, maximum: int) -> int:
    """Return the page size to use.

    Raises:
        InvalidRequest: it is negative or too large.
    """
    if not 0 <= size <= maximum:
        raise InvalidRequest(
            f"page_size is {size}; it must lie between 0 (for {default}) and {maximum}",
            metadata={"field": "page_size", "limit": str(maximum)},
        )
    return size or default


def after_token(token: str) -> int:
    """Return the number a page token stands for: 0 for the first page.

    Raises:
        InvalidRequest: the token is none of ours.
    """
    if not token:
        return 0
    if not (token.isascii() and token.isdigit() and len(token) < 20):
        raise InvalidRequest("page_token is not one that this gateway gave out", metadata={"field": "page_token"})
    return int(token)
