"""Spare workers: worker processes that are started before a session needs them.

A spare has already imported its modules, so that a session with this worker opens within some milliseconds. A spare has
no session, no secret and no settings. It waits for the start-up message that every worker gets. With this message it
becomes a worker like any other: plugins are called for it, it makes the same handshake, and a later gateway can adopt
it. A process that is still a spare is never adopted, because no plugin knows it. It exits when its standard input is
closed, at the latest when this gateway ends.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from mxgw.worker.v1.worker_pb2 import WorkerStartup
from mxgw_core.workers.process import WorkerProcess
from mxgw_core.workers.startup import startup_payload
from mxgw_worker.platform import ReadySignal

log = logging.getLogger(__name__)

# A spare worker whose imports take longer than this is replaced.
_READY_TIMEOUT_S = 60.0
# The shortest and the longest pause, in seconds, before a spare worker that ended by itself is replaced by a new one.
# Each pause is twice as long as the pause before. As soon as a session has used a spare worker, there is no pause until
# the next failure.
_PAUSES_S = (0.5, 30.0)
# A spare worker that was asked to exit, and has not ended after this time, is killed.
_LEAVE_S = 2.0


class Spare:
    """A spare worker: a process that has no session yet. A session that uses the process also takes over the log file
    of the process.
    """

    def __init__(self, log_file: Path, kind: str, python: Path | None) -> None:
        self.log_file = log_file
        signal = ReadySignal()
        # Completed when the process has imported its modules, or has ended.
        self.ready = signal.ready
        try:
            self.process = WorkerProcess.launch(log_file, "spare", signal.argument, kind, python=python, ready=signal)
        except BaseException:
            signal.close()
            raise
        self.process.exited.add_done_callback(lambda _: signal.ended())


class WarmPool:
    """Starts workers, and keeps `size` spare workers ready as long as `run` runs. Use it in the event loop only.

    Args:
        parallel: how many workers are allowed to start at the same time; more would only slow each other down.
        kind: the kind of backend whose modules a spare worker imports.
        new_log: returns the path of the log file for a new spare worker.
        remove: removes a log file, now or later, and raises no error.
        python: the program of the Python that runs workers; None for the gateway's own.
    """

    def __init__(
        self,
        size: int,
        kind: str,
        new_log: Callable[[str], Path],
        *,
        remove: Callable[[Path], None],
        parallel: int = 1,
        python: Path | None = None,
    ) -> None:
        self._size = size
        self._slots = asyncio.Semaphore(parallel)
        self._kind = kind
        self._python = python
        self._new_log = new_log
        self._remove = remove
        self._spares: list[Spare] = []
        self._pause_s = 0.0
        # Set when there are perhaps too few spare workers; cleared by `run`.
        self._wanted = asyncio.Event()
        self._wanted.set()
        # Completed by `stop`; `run` then ends.
        self._stopped: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def ready(self) -> int:
        """The number of spare workers that have imported their modules and have not ended."""
        return sum(spare.ready.done() and spare.process.is_alive() for spare in tuple(self._spares))

    @asynccontextmanager
    async def start_slot(self) -> AsyncIterator[None]:
        """Wait for one of the `parallel` slots, and occupy the slot while the block runs. After the block, `run` starts
        the missing spare workers.

        The slots bound the load on the processor. A worker that waits for a slow source causes no load, so the block
        should end before this wait.
        """
        try:
            async with self._slots:
                yield
        finally:
            self.refill()

    def start(
        self, startup: WorkerStartup, log_file: Path, on_started: Callable[[WorkerProcess], None]
    ) -> WorkerProcess:
        """Return a process to which the start-up message was sent: a spare worker if there is one, otherwise a new
        process.

        `on_started` is called before the message is sent, see `WorkerProcess.send_startup`.

        Raises:
            OSError: the process could not be started.
            StartupTooLarge: the start-up message is too large, because of the options of the backend.
        """
        payload = startup_payload(startup)
        process = self.take(log_file) or WorkerProcess.launch(log_file, python=self._python)
        process.send_startup(payload, on_started)
        return process

    def take(self, log_file: Path) -> WorkerProcess | None:
        """Return the process of a spare worker, if possible of one that is ready; None when there is no spare worker.

        The log file of the spare worker is renamed to `log_file`. A spare worker whose log file cannot be renamed is
        not used. A new spare worker is started only after `refill` was
        called, because the start of another process would slow down the session that is opening.
        """
        self._spares.sort(key=lambda spare: not spare.ready.done())
        while self._spares:
            spare = self._spares.pop(0)
            if spare.process.is_alive():
                try:
                    spare.log_file.replace(log_file)
                except OSError as error:
                    log.warning("the log of a spare worker cannot be renamed to %s: %s", log_file, error)
                else:
                    self._pause_s = 0.0
                    return spare.process
            spare.process.dismiss()
            self._remove(spare.log_file)
        return None

    def refill(self) -> None:
        """Make `run` start the missing spare workers."""
        self._wanted.set()

    def stop(self) -> None:
        """Make `run` end all spare workers and then return."""
        if not self._stopped.done():
            self._stopped.set_result(None)
        self._wanted.set()

    async def run(self) -> None:
        """Start spare workers one after another, and replace each that ends. After `stop`, end all of them."""
        try:
            while not self._stopped.done():
                await self._wanted.wait()
                self._wanted.clear()
                # This loop starts only the spare workers that are missing now. When a session uses one during the loop,
                # the next `refill` makes `run` start the replacement.
                for _ in range(self._size - len(self._spares)):
                    if not self._stopped.done():
                        await self._add()
        finally:
            self.stop()
            await self._dismiss_all()

    async def _add(self) -> None:
        if self._pause_s:
            await asyncio.wait((self._stopped,), timeout=self._pause_s)
            if self._stopped.done():
                return
        try:
            spare = Spare(self._new_log(secrets.token_hex(4)), self._kind, self._python)
        except OSError as error:
            self._failed(f"could not be started: {error}")
            return
        self._spares.append(spare)
        spare.process.exited.add_done_callback(lambda exited: self._gone(spare, exited.result()))
        either = (spare.ready, self._stopped)
        done, _ = await asyncio.wait(either, timeout=_READY_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
        if not done and spare in self._spares:
            log.warning("a spare worker was not ready within %g s and is replaced", _READY_TIMEOUT_S)
            spare.process.kill()

    def _gone(self, spare: Spare, code: int | None) -> None:
        if spare not in self._spares:
            return  # the process belongs to a session now, and the session watches it
        self._spares.remove(spare)
        spare.process.dismiss()
        if self._stopped.done():
            self._remove(spare.log_file)
            return
        kept = self._new_log("ended")  # always the same name, so only the newest log file is kept
        try:
            spare.log_file.replace(kept)
        except OSError:
            kept = spare.log_file
        self._failed(f"ended with exit code {code}; its log is {kept}")

    def _failed(self, what: str) -> None:
        first, longest = _PAUSES_S
        level = logging.WARNING if self._pause_s == first else logging.INFO
        log.log(level, "a spare worker %s; another one takes its place", what)
        self._pause_s = min(max(first, self._pause_s * 2), longest)
        self._wanted.set()

    async def _dismiss_all(self) -> None:
        spares = tuple(self._spares)
        for spare in spares:
            spare.process.dismiss()
        exited = [spare.process.exited for spare in spares]
        if exited:
            await asyncio.wait(exited, timeout=_LEAVE_S)
            for spare in spares:
                spare.process.kill()
            await asyncio.wait(exited)
