"""Pages of long answers: page sizes, page tokens, and how much fits on a page."""

from __future__ import annotations

import re
import secrets
from hashlib import blake2b

from google.protobuf.message import Message

from mxgw_core.api.errors import InvalidRequest
from mxgw_worker.ipc.page_tokens import PAGE_SHARE

_SEALED = re.compile(r"[0-9a-f]{48}", re.ASCII)


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


class SealedTokens:
    """Page tokens that contain a number which callers must neither learn nor choose.

    Each token has a new nonce, so that equal numbers have different tokens. The tokens are valid in this object only.
    """

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)

    def seal(self, number: int) -> str:
        """Return a token with this number, which is less than 2**64."""
        nonce = secrets.token_bytes(8)
        hidden = bytes(a ^ b for a, b in zip(number.to_bytes(8), self._hash(b"hide" + nonce), strict=True))
        return (nonce + hidden + self._hash(b"sign" + nonce + hidden)).hex()

    def number_of(self, token: str) -> int:
        """Return the number in a page token; 0 for the first page, which has no token.

        Raises:
            InvalidRequest: the text is no token of this object.
        """
        if not token:
            return 0
        data = bytes.fromhex(token) if _SEALED.fullmatch(token) else bytes(24)
        nonce, hidden, mark = data[:8], data[8:16], data[16:]
        if not secrets.compare_digest(mark, self._hash(b"sign" + nonce + hidden)):
            raise InvalidRequest(
                "page_token is not one that this gateway gave out since it started; start anew",
                metadata={"field": "page_token"},
            )
        return int.from_bytes(a ^ b for a, b in zip(hidden, self._hash(b"hide" + nonce), strict=True))

    def _hash(self, data: bytes) -> bytes:
        return blake2b(data, digest_size=8, key=self._key).digest()
