"""A real terminal (tmux), and `mxgw dashboard` running in it."""

from __future__ import annotations

import asyncio
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

# Variables of the terminal in which the tests run. They must not affect the terminal of the test.
_OF_THE_RUNNER = frozenset({"TMUX", "NO_COLOR", "COLORTERM", "COLUMNS", "LINES"})


class Terminal:
    """A tmux server with one session."""

    def __init__(self, socket: Path, columns: int, rows: int, command: list[str], environment: dict[str, str]) -> None:
        self._tmux = ["tmux", "-S", str(socket), "-f", "/dev/null"]
        self._run(
            "new-session", "-d", "-x", str(columns), "-y", str(rows), "-s", "t", *command, environment=environment
        )

    def _run(self, *arguments: str, environment: dict[str, str] | None = None) -> str:
        done = subprocess.run(
            [*self._tmux, *arguments], capture_output=True, text=True, timeout=60, env=environment, check=True
        )
        return done.stdout

    def press(self, *keys: str) -> None:
        self._run("send-keys", "-t", "t", *keys)

    def type(self, text: str) -> None:
        self._run("send-keys", "-t", "t", "-l", text)

    @property
    def screen(self) -> str:
        return self._run("capture-pane", "-p", "-t", "t")

    @property
    def title(self) -> str:
        return self._run("display", "-p", "-t", "t", "#{pane_title}")

    def styled_line(self, text: str) -> str:
        """Return the lines that contain `text`, with the escape sequences of their colours."""
        screen = self._run("capture-pane", "-p", "-e", "-t", "t")
        return "\n".join(line for line in screen.split("\n") if text in line)

    async def until(self, *texts: str, absent: str = "", timeout_s: float = 60) -> str:
        """Wait until the screen shows all `texts` and does not show `absent`. Return the screen."""
        deadline = time.monotonic() + timeout_s
        while True:
            screen = await asyncio.to_thread(lambda: self.screen)
            if all(text in screen for text in texts) and not (absent and absent in screen):
                return screen

            assert time.monotonic() < deadline, f"{texts} did not come:\n{screen}"

            await asyncio.sleep(0.05)

    async def left(self) -> None:
        """Wait until the program has ended with exit code 0 and has reset the terminal."""
        await self.until("left with 0")

    def close(self) -> None:
        subprocess.run([*self._tmux, "kill-server"], capture_output=True, timeout=60, check=False)


@asynccontextmanager
async def running(
    command: Sequence[str], *, columns: int = 80, rows: int = 24, environment: Mapping[str, str] | None = None
) -> AsyncIterator[Terminal]:
    """Run a command in a terminal of this size. At the end of the block the terminal is closed."""
    inherited = {key: value for key, value in os.environ.items() if key not in _OF_THE_RUNNER}
    shown = {**inherited, "TERM": "xterm-256color", "LANG": "C.UTF-8", **(environment or {})}
    # The path of a socket must be short, so its directory is not in the directory of the test.
    with tempfile.TemporaryDirectory(prefix="mxgw-tui-", dir="/tmp") as directory:
        line = ["sh", "-c", f"{shlex.join(command)}; echo left with $?; exec sleep 60"]
        made = await asyncio.to_thread(Terminal, Path(directory) / "tmux", columns, rows, line, shown)
        try:
            yield made
        finally:
            await asyncio.to_thread(made.close)


@asynccontextmanager
async def terminal(
    target: str, *options: str, columns: int = 80, rows: int = 24, no_color: bool = False
) -> AsyncIterator[Terminal]:
    """Run the dashboard in a terminal."""
    program = [sys.executable, "-W", "ignore", "-m", "mxgw_dashboard_tui", "--connect", target, *options]
    environment = {"NO_COLOR": "1"} if no_color else {}
    async with running(program, columns=columns, rows=rows, environment=environment) as made:
        yield made
