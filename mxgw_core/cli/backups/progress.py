"""How far a long copy is, for who waits at a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from mxgw_core.cli.backups.archive import Progress

# Less than this takes no time to speak of.
_LONG_BYTES = 64 * 1024 * 1024


@contextmanager
def shown_progress(label: str, total_bytes: int, *, hidden: bool) -> Iterator[Progress]:
    """Yield what takes the bytes that went by; a long copy draws a bar on stderr when that is a terminal."""
    if hidden or total_bytes < _LONG_BYTES or not sys.stderr.isatty():
        yield lambda _: None
        return
    with click.progressbar(length=total_bytes, label=label, file=sys.stderr) as bar:
        yield bar.update
