"""The gateway's log on stderr: coloured for a person at a terminal, plain lines with UTC times for everything else."""

from __future__ import annotations

import logging
import re
import sys
import time

from mxgw_core.printable import printable

LINE_CHARACTERS = 4000
# mxgw logs no credentials. A library or plugin that does is stopped here: this finds the word after `Bearer`, and words
# that look like keys or tokens of mxgw.
_CREDENTIALS = re.compile(r"(\bbearer\s+)[^\s'\",;)]{16,}|\b(mxgw(?:op)?_)[\w.-]{40,}", re.IGNORECASE)


def without_credentials(text: str) -> str:
    """Return the text with `***` in place of everything that looks like a credential."""
    return _CREDENTIALS.sub(lambda found: f"{found[1] or found[2]}***", text)


class PlainFormatter(logging.Formatter):
    """One line per record, `2026-01-02T03:04:05.678Z INFO mxgw_core.rpc: text`; a traceback follows indented.

    Text from a peer can neither start a new line nor send control characters to the terminal.
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
    """Send the log of this process to stderr from `level` up. Call once, before a gateway is made."""
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
        # asyncio and gRPC log their inner workings at INFO and DEBUG, which operators do not need.
        logging.getLogger("asyncio").setLevel(logging.WARNING)
        logging.getLogger("grpc").setLevel(logging.WARNING)


class _MessageOnly(PlainFormatter):
    """The text only: rich adds level and local time itself."""

    def __init__(self) -> None:
        super().__init__()
        self._style = logging.PercentStyle("%(message)s")
        self.datefmt = "%H:%M:%S"
