"""The directories of gateways that run in tests."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def private_directory(given: Path | None) -> Iterator[Path]:
    """Yield `given`; if it is None, a new directory, which is removed at the end.

    The path of the new directory is short, because the gateway's Unix sockets are in it, and the path of a socket has
    about 100 characters at most. The paths that pytest makes are too long.
    """
    if given is not None:
        yield given
        return
    base = Path(tempfile.mkdtemp(prefix="mxgw-"))
    try:
        yield base
    finally:
        shutil.rmtree(base, ignore_errors=True)
