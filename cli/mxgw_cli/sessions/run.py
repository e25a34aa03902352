"""`mxgw sessions`: lists sessions, shows one session with its subscribers, and closes sessions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress

import click
from rich.console import Group as RenderGroup
from rich.console import RenderableType
from rich.live import Live
from rich.text import Text

import mxgw_client
from mxgw_cli.gateway import connected, find_session
from mxgw_cli.options import GatewayTarget
from mxgw_cli.render import write_json
from mxgw_cli.sessions.view import (
    counter_lines,
    is_ended,
    item_document,
    reason_words,
    session_detail,
    session_document,
    sessions_table,
    subscribers_document,
    subscribers_line,
    subscribers_table,
    worker_document,
)
from mxgw_cli.shell import CliFailure, SilentFailure, console, is_live
from mxgw_client import SessionInfo, errors
from mxgw_core.printable import printable

WATCH_INTERVAL_S = 1.0


async def list_sessions(where: GatewayTarget, *, include_ended: bool, watch: bool, as_json: bool) -> None:
    """Print the sessions once; with `watch`, print them every `WATCH_INTERVAL_S` until Ctrl-C."""
    async with connected(where) as gateway:
        if not watch:
            sessions = await _sessions(gateway, include_ended)
            _print(sessions, as_json)
        elif as_json or not is_live():
            while True:
                _print(await _sessions(gateway, include_ended), as_json)
                await asyncio.sleep(WATCH_INTERVAL_S)
        else:
            await _watch(gateway, where, include_ended)


async def _watch(gateway: mxgw_client.Gateway, where: GatewayTarget, include_ended: bool) -> None:
    out = console()
    with Live(console=out, auto_refresh=False, screen=True) as live:
        while True:
            sessions = await _sessions(gateway, include_ended)
            alive = sum(not is_ended(session) for session in sessions)
            head = Text(f"{alive} open at {where.target}, {time.strftime('%H:%M:%S')}. Ctrl-C ends it.", style="dim")
            room = max(1, out.height - 4)
            table = sessions_table(sessions[:room], time.time(), out.width)
            live.update(RenderGroup(head, table), refresh=True)
            await asyncio.sleep(WATCH_INTERVAL_S)


async def _sessions(gateway: mxgw_client.Gateway, include_ended: bool) -> list[SessionInfo]:
    return [session async for session in gateway.sessions(include_ended=include_ended)]


def _print(sessions: Sequence[SessionInfo], as_json: bool) -> None:
    if as_json:
        write_json([session_document(session) for session in sessions])
    elif sessions:
        out = console()
        out.print(sessions_table(sessions, time.time(), out.width))
    else:
        click.echo("No session is open.")


async def show_session(where: GatewayTarget, session_id: str, *, as_json: bool) -> None:
    """Print everything about one session. The requests to its worker start the session's lease again."""
    worker, state, followers = None, None, None
    async with connected(where) as gateway:
        info = await find_session(gateway, session_id)
        if not is_ended(info):
            session = gateway.attach_session(info.session_id)
            # When the worker does not answer, the facts that the gateway itself knows are still printed.
            with suppress(errors.GatewayRefusal, errors.SessionEnded, errors.CallTimedOut):
                followers = await session.subscribers()
                worker = await session.worker_info()
                state = await session.state()
    if as_json:
        write_json(
            {
                **session_document(info),
                "worker": worker_document(worker) if worker else None,
                "items": [item_document(item) for item in state.items] if state else None,
                "events": subscribers_document(followers) if followers else None,
            }
        )
    else:
        out = console()
        out.print(session_detail(info, worker, state, time.time()))
        if followers is not None:
            out.print(_followers(followers))


async def watch_session(where: GatewayTarget, session_id: str, *, as_json: bool) -> None:
    """Print a session's subscribers every `WATCH_INTERVAL_S` until the session ends.

    This does not start the session's lease again.
    """
    async with connected(where) as gateway:
        info = await find_session(gateway, session_id)
        if as_json or not is_live():
            while (followers := await _subscribers_of(gateway, info)) is not None:
                _print_followers(info, followers, as_json)
                await asyncio.sleep(WATCH_INTERVAL_S)
        else:
            with Live(console=console(), auto_refresh=False, screen=True) as live:
                while (followers := await _subscribers_of(gateway, info)) is not None:
                    head = Text(f"{info.session_id} at {where.target}, {time.strftime('%H:%M:%S')}. Ctrl-C ends it.")
                    live.update(RenderGroup(head, _followers(followers)), refresh=True)
                    await asyncio.sleep(WATCH_INTERVAL_S)
        info = await find_session(gateway, info.session_id)
    click.echo(f"the session ended by {reason_words(info)}", err=True)


async def _subscribers_of(gateway: mxgw_client.Gateway, info: SessionInfo) -> mxgw_client.SubscriberList | None:
    """Return the subscribers of a session; None when the session has ended."""
    if is_ended(info):
        return None
    try:
        return await gateway.subscribers(info.session_id)
    except (errors.SessionGone, errors.SessionEnded):
        return None


def _print_followers(info: SessionInfo, followers: mxgw_client.SubscriberList, as_json: bool) -> None:
    if as_json:
        head = {"session_id": info.session_id, "head_sequence": followers.head_sequence}
        write_json({**head, **subscribers_document(followers)})
    else:
        console().print(_followers(followers))


def _followers(followers: mxgw_client.SubscriberList) -> RenderGroup:
    parts: list[RenderableType] = [Text(subscribers_line(followers), style="dim")]
    if followers.subscribers:
        parts.append(subscribers_table(followers.subscribers, time.time()))
    parts += [Text(line, style="dim") for line in counter_lines(followers.counters)]
    return RenderGroup(*parts)


async def close_sessions(where: GatewayTarget, session_ids: Sequence[str], *, as_json: bool) -> None:
    """Close sessions, and print for each how it ended.

    Raises:
        SilentFailure: a session could not be closed; the reason is in the output.
    """
    results: list[dict[str, object]] = []
    async with connected(where) as gateway:
        for text in session_ids:
            try:
                info = await find_session(gateway, text)
                closed = await gateway.close_session(info.session_id)
            except (CliFailure, errors.GatewayRefusal) as error:
                message = printable(getattr(error, "message", str(error)), 500)
                results.append({"session_id": text, "closed": False, "detail": message})
                continue
            results.append(
                {"session_id": closed.session_id, "closed": True, "detail": f"ended by {reason_words(closed)}"}
            )
    if as_json:
        write_json(results)
    else:
        for result in results:
            word = "closed" if result["closed"] else "not closed"
            click.echo(f"{printable(str(result['session_id']), 80)}: {word}, {result['detail']}")
    if not all(result["closed"] for result in results):
        raise SilentFailure
