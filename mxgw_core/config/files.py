"""Reads settings files, and finds the lines of keys for error messages."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any, TypeAlias

from mxgw_worker.platform.private_files import danger

# A key and the tables around it, from the outside to the inside: ("limits", "sessions") is the key `limits.sessions`.
Path: TypeAlias = tuple[str, ...]

DEFAULT = "default"
COMMAND_LINE = "command line"
ENVIRONMENT_PREFIX = "MXGW_"

_TOML_PLACE = re.compile(r"^(.*?) \(at line (\d+), column \d+\)$", re.DOTALL)
_HEADER = re.compile(r"\s*\[\[?\s*([^\]]+?)\s*\]\]?\s*(#.*)?$")
_KEY = re.compile(r"""\s*((?:[\w\-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[\w\-]+|"[^"]*"|'[^']*'))*)\s*=""")


@dataclass(frozen=True, slots=True)
class Source:
    """The file, variable or option from which a layer of settings comes.

    `label` names the source in messages, for example "settings.toml" or "environment MXGW_X". `text` is the content of
    the file; "" when the source is no file.
    """

    label: str
    text: str = ""

    def line_of(self, path: Path) -> int | None:
        """Return the line of the key `path`, or of the innermost table around it; None when the text has neither."""
        lines = _lines(self.text)
        for length in range(len(path), 0, -1):
            if path[:length] in lines:
                return lines[path[:length]]
        return None

    def place(self, path: Path) -> str:
        """Return the place of a key as `file:line`, or only the label when no line is known."""
        line = self.line_of(path) if self.text else None
        return self.label if line is None else f"{self.label}:{line}"


class UnreadableSource(Exception):
    """A file cannot be used. The text names the file, the line if it is known, and the reason."""


def read_toml(path: FilePath, label: str, *, private: bool = False) -> tuple[Source, dict[str, Any]] | None:
    """Return the source and the content of a file; None when the file does not exist.

    Raises:
        UnreadableSource: the file cannot be read, or is not valid TOML, or other users have access to it although it
            must be `private`.
    """
    try:
        with path.open("rb") as file:
            # The open file is checked, so that nobody can replace the file between the check and reading.
            if private and (why := danger(file.fileno(), path)):
                raise UnreadableSource(f"{label}: {why}")
            text = file.read().decode("utf-8")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UnreadableSource(f"{label}:{line}: not UTF-8 text, which TOML must be") from None
    except OSError as error:
        raise UnreadableSource(f"{label}: cannot be read: {error.strerror}") from None
    try:
        return Source(label, text), tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        match = _TOML_PLACE.match(str(error))
        if match is None:
            line = text.count("\n") + 1 if "end of document" in str(error) else 0
            raise UnreadableSource(f"{label}{f':{line}' if line else ''}: TOML syntax: {error}") from None
        raise UnreadableSource(f"{label}:{match[2]}: TOML syntax: {match[1]}") from None


def _lines(text: str) -> dict[Path, int]:
    """Return the line of each key and each table of a TOML text.

    This is exact enough for messages only: inside a value of several lines, a line can be mistaken for a key.
    """
    lines: dict[Path, int] = {}
    table: Path = ()
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(line):
            table = _parts(header[1])
            lines.setdefault(table, number)
        elif key := _KEY.match(line):
            lines.setdefault(table + _parts(key[1]), number)
    return lines


def _parts(dotted: str) -> Path:
    return tuple(part.strip().strip("\"'") for part in dotted.split("."))
