"""Functions that the commands share: tables, durations, error messages."""

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
# 100 years. The limit keeps times within the calendar, which ends with the year 9999.
_LONGEST_S = 36_525 * 86_400


def duration(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Return the value of an option such as `90d`, `12h` or `30m` in seconds; None when the option is not given.

    A duration of more than 100 years is refused.
    """
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
    """Within the block, turn an `MxgwError` into an error message on the terminal and exit code 1."""
    try:
        yield
    except MxgwError as error:
        raise click.ClickException(str(error)) from None


def write_record(audit: AuditLog, record: AuditRecord) -> None:
    """Write a record of a completed change to the audit log.

    Raises:
        click.ClickException: the record could not be written. The text says that the change was made all the same.
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
    """Print a table; each column is as wide as its widest cell."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    for row in (header, *rows):
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def moment(seconds: float | None) -> str | None:
    """Return a time (seconds since 1970) as ISO 8601 text in UTC; None for None.

    A stored time that the calendar does not have is returned as a number of seconds.
    """
    if seconds is None:
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
    except (OverflowError, ValueError, OSError):  # The error for a time beyond the calendar depends on the platform.
        return f"{seconds:g} s after 1970"
