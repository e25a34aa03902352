"""`mxgw stream --resume-file`: the place of a stream in a file, and the session that goes with it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import click

import mxgw_client
from mxgw_client import errors
from mxgw_client.position_file import POSITION_INTERVAL_S, PositionFile
from mxgw_core.cli.failures import CliFailure
from mxgw_core.cli.gateway import client_name, find_session
from mxgw_core.printable import printable


@asynccontextmanager
async def kept_session(
    gateway: mxgw_client.Gateway, path: Path, *, backend: str, session_id: str
) -> AsyncIterator[tuple[mxgw_client.Session, PositionFile]]:
    """Yield the session that the file names, or else `session_id` or a new one, and the file; the session stays open.

    Raises:
        CliFailure: the file's session has ended, or is not the one that was asked for.
    """
    stored = mxgw_client.read_position_file(path)
    if stored is not None:
        if session_id and not stored.session_id.startswith(session_id):
            raise CliFailure(
                f"{path} goes on in session {stored.session_id}, not in {printable(session_id, 80)}",
                hint="Leave --session out, or take another file.",
            )
        session = gateway.attach_session(stored.session_id, client_name=client_name("stream"))
    elif session_id:
        found = await find_session(gateway, session_id)
        session = gateway.attach_session(found.session_id, client_name=client_name("stream"))
    else:
        session = gateway.open_session(client_name=client_name("stream"), backend=backend, keep=True)
    try:
        await session.open()
    except (errors.SessionNotFound, errors.SessionEnded) as error:
        raise CliFailure(
            f"the session that {path} goes on in is over: {printable(error.message, 500)}",
            hint=f"Remove {path} to begin with a new session.",
        ) from None
    try:
        async with session:
            file = PositionFile(path, session.session_id, POSITION_INTERVAL_S)
            try:
                yield session, file
            finally:
                file.close()
    finally:
        if mxgw_client.read_position_file(path) is not None:
            click.echo(
                f"Session {session.session_id} is kept: the same command goes on in it, "
                f"`mxgw sessions close {session.session_id[:8]}` ends it.",
                err=True,
            )
        elif not session_id:  # it came to nothing, and no file names the session
            await gateway.close_session(session.session_id)


async def missing_tags(session: mxgw_client.Session, tags: Sequence[str]) -> tuple[str, ...]:
    """Return the tags that an earlier run has not subscribed in the session."""
    there = {item.item.reference for item in (await session.state()).items}
    return tuple(tag for tag in tags if tag not in there)
