"""Pages that are filled with what their reader may see."""

from __future__ import annotations

from google.protobuf.message import Message

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
