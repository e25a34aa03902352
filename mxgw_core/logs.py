"""The gateway's log on stderr: with colours on a terminal, otherwise as plain lines with times in UTC."""

from __future__ import annotations

import logging
import re
import sys
import time

from mxgw_core.printable import printable

LINE_CHARACTERS = 4000
# mxgw itself logs no credentials, but perhaps a library or a plugin does. This pattern finds the word after `Bearer`,
# and words that look like keys or tokens of mxgw.
_CREDENTIALS = re.compile(r"(\bbearer\s+)[^\s'\",;)]{16,}|\b(mxgw(?:op)?_)[\w.-]{40,}", re.IGNORECASE)


def without_credentials(text: str) -> str:
    """Return the text, with `***` in place of each credential that it seems to contain."""
    return _CREDENTIALS.sub(lambda found: f"{found[1] or found[2]}***", text)


class PlainFormatter(logging.Formatter):
    """Writes one line per record, for example `2026-01-02T03:04:05.678Z INFO mxgw_core.rpc: text`, and below it the
    lines of a traceback, indented.

    Unprintable characters are replaced, so text from a peer cannot begin a new line or control the terminal.
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
    """Write log records of this process to stderr, from `level` upwards. Call this once, before a gateway is made.

    Nothing is written where the process has no stderr, for example under pythonw.exe.
    """
    handler: logging.Handler
    if sys.stderr is None:
        handler = logging.NullHandler()
    elif sys.stderr.isatty():
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
        # At INFO and DEBUG, asyncio and gRPC log internal details that operators do not need.
        logging.getLogger("asyncio").setLevel(logging.WARNING)
        logging.getLogger("grpc").setLevel(logging.WARNING)


class _MessageOnly(PlainFormatter):
    """Formats only the text of a record, because rich adds the level and the local time itself."""

    def __init__(self) -> None:
        super().__init__()
        self._style = logging.PercentStyle("%(message)s")
        self.datefmt = "%H:%M:%S"
