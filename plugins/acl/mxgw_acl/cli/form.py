"""Shared by the commands: tables, durations, failures."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

import click

from mxgw_acl.audit_log import AuditLog, AuditRecord
from mxgw_core.api.errors import MxgwError

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_LONGEST_S = 36_525 * 86_400  # the calendar ends with the year 9999


def duration(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Return the seconds of `90d`, `12h`, `30m`, at most a hundred years; the callback of an option."""
    if value is None:
        return None
    match = _DURATION.fullmatch(value.strip())
    if match is None:
        raise click.BadParameter(f"{value!r} is no duration: write 90d, 12h, 30m or 10s", ctx, param)
    seconds = float(match[1]) * _SECONDS[match[2]]
    if seconds > _LONGEST_S:
        raise click.BadParameter(f"{value[:20]!r} is more than 100 years; leave it out for no end", ctx, param)
    return seconds


@contextmanager
def told_failures() -> Iterator[None]:
    """Turn the plugin's own errors into error messages and exit code 1."""
    try:
        yield
    except MxgwError as error:
        raise click.ClickException(str(error)) from None


def write_record(audit: AuditLog, record: AuditRecord) -> None:
    """Record what was done.

    Raises:
        click.ClickException: it could not be recorded; the text says so.
    """
    try:
        audit.write(record)
    except OSError as error:
        raise click.ClickException(
            f"{record.action}, {record.reason}: this was done, and the audit log has no record of it: {error}"
        ) from None


def show_json(document: object) -> None:
    """Print a JSON document."""
    click.echo(json.dumps(document, indent=2))


def show_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print columns that are as wide as their widest text."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    for row in (header, *rows):
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def moment(seconds: float | None) -> str | None:
    """Return a time for people and programs; a stored time beyond the calendar is shown as a number."""
    if seconds is None:
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
    except (OverflowError, ValueError, OSError):  # which one is the platform's choice
        return f"{seconds:g} s after 1970"
