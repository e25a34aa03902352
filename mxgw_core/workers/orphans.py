"""Workers of an earlier gateway run: each is judged by the plugins, and ended when nobody wants it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Sequence
from pathlib import Path

from mxgw_core.api.workers import Orphan, OrphanVerdict
from mxgw_core.plugins import PluginHost
from mxgw_worker.ipc.process import start_ticks

log = logging.getLogger(__name__)

_TERM_GRACE_S = 5.0
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def verdict_on(orphan: Orphan, plugins: PluginHost) -> OrphanVerdict:
    """Return what the plugins want; TERMINATE without an answer, or when a plugin fails."""
    for answer in plugins.ask("mxgw_orphan_verdict", orphan=orphan):
        if answer.error is None and isinstance(answer.value, OrphanVerdict):
            return answer.value
        return OrphanVerdict.TERMINATE
    return OrphanVerdict.TERMINATE


async def settle(orphans: Sequence[Orphan], plugins: PluginHost) -> None:
    """End every orphan that the plugins neither adopt nor ignore; returns when they are gone."""
    async with asyncio.TaskGroup() as tasks:
        for orphan in orphans:
            if verdict_on(orphan, plugins) is OrphanVerdict.TERMINATE:
                tasks.create_task(terminate(orphan), name=f"orphan:{orphan.pid}")


async def terminate(orphan: Orphan, *, grace_s: float = _TERM_GRACE_S) -> bool:
    """End an orphan: SIGTERM, then SIGKILL; return False when the process is not (or no more) that worker.

    The pidfd is opened before the identity is checked, so the process that is signalled is the one that was checked.
    """
    if not hasattr(os, "pidfd_open"):
        log.warning("cannot end orphan worker %d safely on this platform", orphan.pid)
        return False
    try:
        pidfd = os.pidfd_open(orphan.pid)
    except ProcessLookupError:
        return False
    try:
        if _boot_id() != orphan.boot_id or start_ticks(orphan.pid) != orphan.start_ticks:
            log.warning(
                "process %d is not the worker of session %s any more: left alone", orphan.pid, orphan.session_id
            )
            return False
        loop = asyncio.get_running_loop()
        gone = asyncio.Event()
        loop.add_reader(pidfd, gone.set)
        try:
            for number in (signal.SIGTERM, signal.SIGKILL):
                signal.pidfd_send_signal(pidfd, number)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(grace_s):
                        await gone.wait()
                        break
        except ProcessLookupError:
            pass
        finally:
            loop.remove_reader(pidfd)
    finally:
        os.close(pidfd)
    log.info("ended orphan worker %d of session %s", orphan.pid, orphan.session_id)
    return True


def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""
