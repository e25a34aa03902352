"""Reads settings files, and finds the line of each key for error messages."""

from __future__ import annotations

import os
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any, TypeAlias

from mxgw.private_files import exposure

Path: TypeAlias = tuple[str, ...]  # a key, after the names of the tables around it

DEFAULT = "default"
COMMAND_LINE = "command line"
ENVIRONMENT_PREFIX = "MXGW_"

_TOML_PLACE = re.compile(r"^(.*?) \(at line (\d+), column \d+\)$", re.DOTALL)
_HEADER = re.compile(r"\s*\[\[?\s*([^\]]+?)\s*\]\]?\s*(#.*)?$")
_KEY = re.compile(r"""\s*((?:[\w\-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[\w\-]+|"[^"]*"|'[^']*'))*)\s*=""")


@dataclass(frozen=True, slots=True)
class Source:
    """The source of a layer: `label` for people ("settings.toml", "environment MXGW_X"), and the text of a file."""

    label: str
    text: str = ""

    def line_of(self, path: Path) -> int | None:
        """Return the line of `path`, or of the nearest table above it; None when neither is written."""
        lines = _lines(self.text)
        for length in range(len(path), 0, -1):
            if path[:length] in lines:
                return lines[path[:length]]
        return None

    def place(self, path: Path) -> str:
        """Return `file:line`, or the label alone."""
        line = self.line_of(path) if self.text else None
        return self.label if line is None else f"{self.label}:{line}"


class UnreadableSource(Exception):
    """A file cannot be used. The text names the file, the line if known, and how to fix it."""


def read_toml(path: FilePath, label: str, *, private: bool = False) -> tuple[Source, dict[str, Any]] | None:
    """Return a file's source and content, or None when there is no such file.

    Raises:
        UnreadableSource: it cannot be read, is no TOML, or is `private` and open to other users.
    """
    try:
        with path.open("rb") as file:
            # Checked on the open file, so that the checked file is the one that is read.
            if private and (why := exposure(os.fstat(file.fileno()).st_mode, path)):
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
    """Return the line of each key, for messages only: values with several lines are not understood."""
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
