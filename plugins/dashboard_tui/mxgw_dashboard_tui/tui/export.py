"""Writes table rows as JSON: one row for the clipboard, or all shown rows to a file."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from mxgw_core.api.files import open_private
from mxgw_dashboard_tui.tui.widgets.grid import Row


def document_text(row: Row) -> str:
    """Return a row as one line of JSON. All characters beyond ASCII are escaped."""
    document: object = row.document
    if isinstance(document, Message):
        document = MessageToDict(document, preserving_proto_field_name=True)
    return json.dumps(document or {key: cell.text for key, cell in row.cells.items()})


def write_export(name: str, rows: Sequence[Row]) -> Path:
    """Write the rows to a new file in the working directory; return its path. Only the present user can read the file.

    Raises:
        OSError: the file cannot be written.
    """
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")[:-3]
    path = Path.cwd() / f"mxgw-{name}-{stamp}.jsonl"
    descriptor = open_private(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.writelines(document_text(row) + "\n" for row in rows)
    return path
