"""Runs a gateway as a process of its own, which a test can kill and start again on the same data directory.

This shows what is left of a plugin's work after a crash: what its store has on disk, and what its sessions do when the
plugin `reattach` takes them back. For everything else `running_gateway` is quicker and easier to look into.

The process runs `mxgw serve`, as a site does. It finds the plugins that the test's own process finds: distributions in
the same environment, and those in directories that the test added to `sys.path`. A plugin that exists only as an object
in the test's process is not found.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from mxgw_core.data_directory import DataDirectory
from mxgw_core.testing.directories import private_directory
from mxgw_core.testing.waiting import until
from mxgw_worker.platform import HeldProcess, no_unix_sockets, output_of, process_ids

# How long the gateway may take to serve, and to end.
_START_S = 60.0
_END_S = 60.0


class GatewayProcess:
    """Runs `mxgw serve` on one directory, again and again. Made by `gateway_process`.

    Attributes:
        directory: holds the gateway's private files; a settings.toml in it is read.
        data: the data directory (`gateway.data_dir`).
        target: the address for clients. It is the same in every run, unless `gateway.listen` names port 0.
        process: the present run; None while the gateway does not run.
    """

    def __init__(self, directory: Path, overrides: Mapping[str, object] | None = None) -> None:
        self.directory = directory
        self._overrides = dict(overrides or {})
        self.data = Path(str(self._overrides.pop("gateway.data_dir", directory / "data")))
        self.target = "127.0.0.1:0" if no_unix_sockets() else f"unix:{directory}/gateway.sock"
        self.process: subprocess.Popen[str] | None = None
        self._runs = 0

    @property
    def log(self) -> str:
        """What all runs wrote to stderr."""
        return "".join(path.read_text() for path in sorted(self.directory.glob("gateway-*.log")))

    async def start(self, *arguments: str) -> None:
        """Start a run, and return when the gateway serves. `arguments` are more arguments of `mxgw serve`.

        Raises:
            RuntimeError: the gateway did not start. The text has its log.
        """
        if not await self.started(*arguments):
            code = await self.ended()
            text = self._log_of_run().read_text()
            raise RuntimeError(f"the gateway ended with code {code} before it served:\n{text}")

    async def started(self, *arguments: str) -> str:
        """Start a run, and return the line that the gateway prints when it serves; "" when it ended before."""
        if self.process is not None:
            raise RuntimeError("the gateway is running; end it before it is started again")
        self._runs += 1
        chosen = {"gateway.data_dir": str(self.data), **self._overrides}
        listen = () if "gateway.listen" in chosen else ("--listen", self.target)
        settings = [f"{key}={_text_of(value)}" for key, value in chosen.items() if value is not None]
        options = ["--json", *listen, *(option for setting in settings for option in ("--set", setting)), *arguments]
        with self._log_of_run().open("w") as errors:
            process = self.process = subprocess.Popen(  # noqa: ASYNC220  a few milliseconds of a test
                [*self.command(), "serve", *options],
                cwd=self.directory,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        assert process.stdout is not None
        try:
            async with asyncio.timeout(_START_S):
                line = await asyncio.to_thread(process.stdout.readline)
        except TimeoutError:
            process.kill()  # so that the thread that reads its output ends
            raise
        if line:
            self.target = json.loads(line)["addresses"][0]
        return line

    def _log_of_run(self) -> Path:
        return self.directory / f"gateway-{self._runs:03}.log"

    def command(self) -> Sequence[str]:
        """Return the command line that runs `mxgw`, without arguments."""
        return [sys.executable, "-m", "mxgw_cli"]

    def environment(self) -> dict[str, str]:
        """Return the environment variables of a run: those of this process without settings of mxgw, and the
        directories of `sys.path` in which this process finds plugins.
        """
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MXGW")}
        return {**kept, "PYTHONPATH": os.pathsep.join(_own_directories())}

    async def restart(self) -> None:
        """End the run in order, and start the next one.

        Raises:
            RuntimeError: the gateway did not start.
        """
        await self.terminate()
        await self.start()

    async def kill(self) -> None:
        """End the run with SIGKILL, as a crash or a power failure does, and wait for its end.

        Workers end with it, unless the plugin reattach keeps them.
        """
        assert self.process is not None, "the gateway is not running"
        self.process.kill()
        await self.ended()

    async def terminate(self, timeout_s: float = _END_S) -> int:
        """End the run in order, with SIGTERM; wait for its end, and return its exit code."""
        assert self.process is not None, "the gateway is not running"
        process = HeldProcess(self.process.pid)
        process.terminate()
        process.close()
        return await self.ended(timeout_s)

    async def ended(self, timeout_s: float = _END_S) -> int:
        """Wait for the end of the run, and return its exit code.

        Raises:
            subprocess.TimeoutExpired: the run did not end in time.
        """
        process = self.process
        assert process is not None, "the gateway is not running"
        code = await asyncio.to_thread(process.wait, timeout_s)
        assert process.stdout is not None
        process.stdout.close()
        self.process = None
        return code

    def worker_pids(self) -> Mapping[str, int]:
        """Return the workers of all runs that are alive. Key: the name of the worker's log file. Value: its pid.

        On Windows, no workers are found.
        """
        logs = (self.data / "logs").resolve()
        found: dict[str, int] = {}
        for pid in process_ids():
            if (output := output_of(pid)).parent == logs:
                found[output.name] = pid
        return found

    async def kill_worker(self, session_id: str) -> None:
        """End the worker process of a session with SIGKILL, and wait until the process is gone.

        The gateway notices this at once, and ends the session and its streams.

        Raises:
            LookupError: no worker of this session is alive, or it cannot be found (on Windows).
        """
        name = DataDirectory(self.data).log_of(session_id).name
        pid = self.worker_pids().get(name)
        if pid is None and not process_ids():
            raise LookupError("this platform does not tell which process is the worker of a session; ask the gateway")
        if pid is None:
            raise LookupError(f"no worker of session {session_id!r} is alive")
        await _killed([pid])

    async def close(self) -> None:
        """Kill whatever still runs: the gateway and its workers."""
        if self.process is not None:
            await self.kill()
        await _killed(self.worker_pids().values())


@asynccontextmanager
async def gateway_process(
    overrides: Mapping[str, object] | None = None, *, directory: Path | None = None
) -> AsyncIterator[GatewayProcess]:
    """Run a gateway as a process of its own. At the end of the block, the gateway and its workers are killed.

    `overrides` are settings by dotted key, as for `running_gateway`, and stay the same in every run. Without
    `directory` the gateway has a new temporary directory, which keeps its data directory from run to run.

    Example:
        async with gateway_process({"plugins.enabled": ["my_store"]}) as gateway:
            await record_something(gateway.target)
            await gateway.kill()
            await gateway.start()
            assert await what_is_stored(gateway.target)

    Raises:
        RuntimeError: the gateway did not start. The text has its log.
    """
    with private_directory(directory) as base:
        gateway = GatewayProcess(base, overrides)
        try:
            await gateway.start()
            yield gateway
        finally:
            await gateway.close()


async def _killed(pids: Iterable[int]) -> None:
    """Kill processes, and wait until none of them runs any more."""
    killed = list(pids)
    for pid in killed:
        with suppress(ProcessLookupError):
            process = HeldProcess(pid)
            process.kill()
            process.close()
    # A process that has ended has no open files, even when nobody has collected its exit status yet.
    await until(lambda: not any(output_of(pid).name for pid in killed))


def _text_of(value: object) -> str:
    """Return the text of a setting's value for the option `--set`."""
    return value if isinstance(value, str) else _toml(value)


def _toml(value: object) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value, default=str)


def _own_directories() -> list[str]:
    """Return the entries of `sys.path` that a new Python process does not have by itself."""
    usual = {Path(path).resolve() for path in sysconfig.get_paths().values()}
    return [entry for entry in sys.path if entry and Path(entry).is_dir() and not _is_usual(Path(entry), usual)]


def _is_usual(entry: Path, usual: set[Path]) -> bool:
    return entry.resolve() in usual or entry.name == "lib-dynload"
