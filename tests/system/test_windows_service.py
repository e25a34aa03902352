"""The gateway as a Windows service: Wine has a service control manager, which starts and stops it.

What Wine does not do, and so is not tested: starting a service again after a failure, other accounts, access lists of
files for them, and showing the event log.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psutil
import pytest
from support import wine
from support.adoption import LOAD, adopted, follow
from support.clients import client_of
from support.waiting import until
from support.windows_gateway import free_port, needs_windows

from mxgw_core.testing.checker import StreamChecker

pytestmark = [*needs_windows, pytest.mark.asyncio, pytest.mark.timeout(600)]

# The sessions wait as long as a Python takes to start in Wine on a busy machine, and the outbox holds what comes then.
_PATIENT = (
    f"{LOAD.replace('rate = 500.0', 'rate = 20.0')}\n"
    "[plugins.reattach]\nadopt_within_seconds = 100.0\nmax_orphan_lifetime_seconds = 400.0\n"
)
# Runs commands of mxgw, one JSON list per line, in one program: it takes seconds to start in Wine. The control manager
# of Wine ends with the last program, so this one also keeps it.
_COMMANDS = r"""
import contextlib, io, json, sys
from mxgw_cli.main import root
for line in sys.stdin:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            root.main(json.loads(line), "mxgw")
        except SystemExit as end:
            code = int(end.code or 0)
    print(json.dumps([code, out.getvalue(), err.getvalue()]), flush=True)
"""


# By default, the control manager of Wine waits 10 s for the first call of a new process, of Windows 30 s. It reads this
# when it starts.
_PATIENCE = (
    r"HKLM\SYSTEM\CurrentControlSet\Control",
    "/v",
    "ServicesPipeTimeout",
    "/t",
    "REG_SZ",
    "/d",
    "300000",
    "/f",
)


class Machine:
    """A Windows with a service control manager, and a settings file for a service.

    Attributes:
        target: where the gateway listens.
        data: gateway.data_dir, as this side sees it.
    """

    def __init__(self, windows: wine.Windows, shared: Path) -> None:
        self.target = f"127.0.0.1:{free_port()}"
        self.data = shared / "d"
        self._windows = windows
        self._file = shared / "settings.toml"
        for command in (("wine", "reg", "add", *_PATIENCE), ("wineserver", "--wait")):
            subprocess.run(windows.command(*command), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
        self._shell = subprocess.Popen(
            windows.python(wine.Interpreter.BITS_64, "-c", _COMMANDS),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def configure(self, **gateway: object) -> None:
        """Write the settings file."""
        values = {"listen": [self.target], "data_dir": "d", **gateway}
        lines = (f"{name} = {json.dumps(value)}" for name, value in values.items())
        self._file.write_text("\n".join(["[gateway]", *lines, _PATIENT]))

    async def mxgw(self, *arguments: str, code: int = 0) -> str:
        """Run a command of mxgw, and return its output, when it ends with this exit code; otherwise fail."""
        ended_with, out, err = await asyncio.to_thread(self._run, arguments)

        assert ended_with == code, f"mxgw {' '.join(arguments)}: {out}{err}{self.log}"

        return f"{out}{err}"

    @property
    def log(self) -> str:
        file = self.data / "logs" / "service.log"
        return file.read_text() if file.exists() else "no log"

    def workers(self) -> list[int]:
        """Return the process ids of the workers that run, as this side sees them."""
        found = []
        for process in self._windows.processes():
            with suppress(psutil.NoSuchProcess):
                if "mxgw_worker" in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process.pid)
        return found

    def close(self) -> None:
        with self._shell:  # this closes its pipes and waits for its end
            pass

    def _run(self, arguments: tuple[str, ...]) -> tuple[int, str, str]:
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        self._shell.stdin.write(json.dumps(arguments) + "\n")
        self._shell.stdin.flush()
        code, out, err = json.loads(self._shell.stdout.readline())
        return code, out, err


@asynccontextmanager
async def machine() -> AsyncIterator[Machine]:
    with tempfile.TemporaryDirectory(prefix="mxgw-s-", dir="/tmp") as name, wine.Windows(Path(name)) as windows:
        one = Machine(windows, Path(name))
        one.configure()
        try:
            yield one
        finally:
            await asyncio.to_thread(one.close)


async def test_a_service_serves_and_its_sessions_outlive_a_stop_but_not_its_removal() -> None:
    async with machine() as windows:
        installed = await windows.mxgw("service", "install", "--settings", "Z:/shared/settings.toml")

        assert "Installed the service mxgw, which runs as NT SERVICE\\mxgw." in installed
        assert (windows.data).is_dir()

        await windows.mxgw("service", "status", code=3)
        await windows.mxgw("service", "start", "--timeout", "300")
        status = json.loads(await windows.mxgw("service", "status", "--json"))

        assert (status["state"], status["account"]) == ("running", "NT SERVICE\\mxgw")
        assert status["pid"]

        checker = StreamChecker(may_lose=lambda lost: False)
        async with client_of(windows.target) as client:
            session = await client.open()
            await client.subscribe(session.session_id, ["Load.Item00001"])
            await follow(client, session.session_id, checker, 50)
            stopped = await windows.mxgw("service", "stop")

        assert "has stopped after" in stopped
        assert "wait for the next start" in stopped
        assert "stop request: draining" in windows.log
        assert len(windows.workers()) == 1

        changed = await windows.mxgw("service", "install", "--settings", "Z:/shared/settings.toml")
        await windows.mxgw("service", "start", "--timeout", "300")

        assert "Changed the service mxgw" in changed

        async with client_of(windows.target) as client:
            await adopted(client, session.session_id)
            await follow(client, session.session_id, checker, 50)

        assert not checker.violations, checker.report()
        assert checker.gaps == 0

        removed = await windows.mxgw("service", "uninstall")

        assert "Its data stays:    Z:\\shared\\d" in removed
        assert (windows.data / "manifest.sqlite3").exists()

        await until(lambda: not windows.workers())
        await windows.mxgw("service", "status", code=1)


async def test_refused_settings_stop_the_service_for_good_and_start_says_what_is_wrong() -> None:
    async with machine() as windows:
        await windows.mxgw("service", "install", "--settings", "Z:/shared/settings.toml", "--manual")
        windows.configure(listen=5)
        failure = await windows.mxgw("service", "start", "--timeout", "300", code=1)

        assert "refuses its settings" in failure
        assert "gateway.listen" in failure

        status = json.loads(await windows.mxgw("service", "status", "--json", code=3))

        assert (status["state"], status["exit_code"]) == ("stopped", 78)

        refused = await windows.mxgw("service", "install", "--settings", "Z:/shared/settings.toml", code=1)

        assert "Nothing was installed" in refused

        await windows.mxgw("service", "run", code=1)
        await windows.mxgw("service", "uninstall")
