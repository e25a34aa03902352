"""SIGTERM as an exception, for commands that leave files behind unless their clean-up runs."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from mxgw_core.cli.failures import ExitCode, SilentFailure


@contextmanager
def cleaning_up_at_sigterm() -> Iterator[None]:
    """Let the first SIGTERM raise inside the block; later ones do not disturb the clean-up. Main thread only.

    Raises:
        SilentFailure: after SIGTERM, with 143.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        del frame
        signal.signal(number, signal.SIG_IGN)
        raise SilentFailure(ExitCode.TERMINATED)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
