"""Pages of long answers: page sizes, page tokens, and how much fits on a page."""

from __future__ import annotations

from google.protobuf.message import Message

from mxgw_core.api.errors import InvalidRequest
from mxgw_worker.ipc.page_tokens import PAGE_SHARE


class PageRoom:
    """Counts the entries and bytes on a page.

    A page has at most `entries` entries, and about as many bytes as a page of a worker.
    """

    def __init__(self, entries: int, frame_bytes: int) -> None:
        self._entries = entries
        self._bytes = int(frame_bytes * PAGE_SHARE)
        self._taken = 0
        # Whether an entry did not fit, so that another page is needed.
        self.is_full = False

    def takes(self, entry: Message) -> bool:
        """Return whether the entry fits on the page. If it fits, it is counted.

        The first entry always fits. After an entry that did not fit, no other entry fits.
        """
        self._bytes -= entry.ByteSize()
        if self.is_full or self._taken == self._entries or (self._taken and self._bytes < 0):
            self.is_full = True
            return False
        self._taken += 1
        return True


def page(size: int, default: int, maximum: int) -> int:
    """Return the page size to use: `size`, or `default` when `size` is 0.

    Raises:
        InvalidRequest: the size is negative or larger than `maximum`.
    """
    if not 0 <= size <= maximum:
        raise InvalidRequest(
            f"page_size is {size}; it must lie between 0 (for {default}) and {maximum}",
            metadata={"field": "page_size", "limit": str(maximum)},
        )
    return size or default


def after_token(token: str) -> int:
    """Return the number in a page token; 0 for the first page, which has no token.

    Raises:
        InvalidRequest: the text cannot be a page token of this gateway.
    """
    if not token:
        return 0
    if not (token.isascii() and token.isdigit() and len(token) < 20):
        raise InvalidRequest("page_token is not one that this gateway gave out", metadata={"field": "page_token"})
    return int(token)
