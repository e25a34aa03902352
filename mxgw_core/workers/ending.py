"""How a worker comes to its end: asked, then SIGTERM, then SIGKILL; and how that is told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from mxgw.worker.v1.worker_pb2 import Goodbye
from mxgw_core.api.types import CloseReason
from mxgw_core.printable import printable
from mxgw_core.workers.adopted import ProcessHandle

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WorkerEnd:
    """How a worker came to its end, for the session's close reason."""

    reason: CloseReason
    detail: str


async def end_process(
    process: ProcessHandle, *, ask: Callable[[], None] | None, grace_s: float, is_stuck: bool
) -> None:
    """Return when the process is gone.

    `ask` asks it over its link; without a link it gets SIGTERM. One that is stuck is killed at once.
    """
    if process.exited.done():
        return
    try:
        if not is_stuck:
            if ask is not None:
                ask()
            else:
                process.terminate()
            await asyncio.wait((process.exited,), timeout=grace_s)
            if not process.exited.done():
                log.warning("worker %d did not leave within %.1f s and is killed", process.pid, grace_s)
        process.kill()
        await asyncio.wait((process.exited,))
    finally:
        if not process.exited.done():
            process.kill()  # cancelled while waiting: leave nothing behind


def told_end(code: int | None, goodbye: Goodbye | None) -> str:
    """Return the end of a process in words; `code` None is not known, negative is a signal."""
    said = f" ({printable(goodbye.detail or goodbye.reason, 300)})" if goodbye is not None else ""
    if code is None:
        how = "ended; with which exit code, only the gateway that started it could have known"
    else:
        how = f"was ended by signal {-code}" if code < 0 else f"left with exit code {code}"
    return f"the worker process {how}{said}"
