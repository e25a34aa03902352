"""Removes files. A file that cannot be removed now is tried again later, and never ends anything.

A file can be open in another process, which prevents its removal on Windows, or be protected by an administrator. A
worker's log or socket that stays behind is no reason to end a gateway.
"""

from __future__ import annotations

import logging
from pathlib import Path

log = logging.getLogger(__name__)

# How many files are remembered to be tried again. The gateway's next start looks for older ones anyway.
_REMEMBERED = 1000
# How many remembered files are tried again whenever another file is removed. `sweep` tries all of them.
_TRIED_AT_ONCE = 10


class Removals:
    """Removes files, and remembers those that cannot be removed yet. Use an object in one thread."""

    def __init__(self) -> None:
        # The files to try again, the one that was tried longest ago first; the values are not used.
        self._waiting: dict[Path, None] = {}
        self._has_warned = False

    @property
    def waiting(self) -> tuple[Path, ...]:
        """The files that could not be removed so far."""
        return tuple(self._waiting)

    def remove(self, path: Path) -> None:
        """Remove a file if it exists. When this fails, the file is tried again later; no error is raised.

        The first failure is logged as a warning. The next warning can come after all files were removed.
        """
        self._try_again(_TRIED_AT_ONCE)
        error = _remove(path)
        if error is None:
            return
        if len(self._waiting) >= _REMEMBERED:
            del self._waiting[next(iter(self._waiting))]
        self._waiting[path] = None
        level = logging.DEBUG if self._has_warned else logging.WARNING
        self._has_warned = True
        log.log(
            level,
            "%s cannot be removed (%s); this is tried again, also at the next start of the gateway; other files that "
            "cannot be removed are not logged until then",
            path,
            error.strerror or error,
        )

    def sweep(self) -> None:
        """Try again to remove all files that could not be removed."""
        self._try_again(len(self._waiting))

    def _try_again(self, count: int) -> None:
        for path in tuple(self._waiting)[:count]:
            del self._waiting[path]
            if _remove(path) is not None:
                self._waiting[path] = None
        if self._has_warned and not self._waiting:
            self._has_warned = False
            log.info("all files that could not be removed are removed now")


def _remove(path: Path) -> OSError | None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        return error
    return None
