"""The gateway's log on stderr: coloured for a person at a terminal, plain lines with UTC times for everything else."""

from __future__ import annotations

import logging
import re
import sys
import time

from mxgw_core.printable import printable

LINE_CHARACTERS = 4000
# Nothing logs credentials; should a library or a plugin do so all the same, they stop here. What follows `Bearer`, and
# words that look like a key or a token of ours.
_CREDENTIALS = re.compile(r"(\bbearer\s+)[^\s'\",;)]{16,}|\b(mxgw(?:op)?_)[\w.-]{40,}", re.IGNORECASE)


def without_credentials(text: str) -> str:
    """Return the text with whatever looks like a credential as `***`."""
    return _CREDENTIALS.sub(lambda found: f"{found[1] or found[2]}***", text)


class PlainFormatter(logging.Formatter):
    """One line per record, `2026-01-02T03:04:05.678Z INFO mxgw_core.rpc: text`; a traceback follows indented.

    Whatever a peer may have put into the text cannot start a new line or reach the terminal's controls.
    """

    converter = staticmethod(time.gmtime)

    def __init__(self) -> None:
        super().__init__("%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        return printable(without_credentials(super().formatMessage(record)), LINE_CHARACTERS)

    def formatException(self, ei: object) -> str:  # noqa: N802 - logging's own name
        lines = super().formatException(ei).splitlines()  # type: ignore[arg-type]  # passed through as it came
        return "\n".join("    " + printable(without_credentials(line), LINE_CHARACTERS) for line in lines)


def log_to_stderr(level: str) -> None:
    """Send the log of this process to stderr from `level` up. Call once, when a command runs a gateway."""
    handler: logging.Handler
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.logging import RichHandler

        handler = RichHandler(
            console=Console(stderr=True, markup=False, highlight=False, emoji=False),
            show_path=False,
            markup=False,
            rich_tracebacks=False,
            omit_repeated_times=False,
        )
        handler.setFormatter(_MessageOnly())
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(PlainFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    if level != "DEBUG":
        # They explain asyncio's and gRPC's own doings, which nobody asked for.
        logging.getLogger("asyncio").setLevel(logging.WARNING)
        logging.getLogger("grpc").setLevel(logging.WARNING)


class _MessageOnly(PlainFormatter):
    """Rich adds level and time itself, the latter in the time of the person at the terminal."""

    def __init__(self) -> None:
        super().__init__()
        self._style = logging.PercentStyle("%(message)s")
        self.datefmt = "%H:%M:%S"
