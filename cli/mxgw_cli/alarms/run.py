"""`mxgw alarms`: lists the active alarms, follows their changes, and acknowledges them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import click
from rich.console import Group as RenderGroup
from rich.console import RenderableType
from rich.live import Live
from rich.text import Text

import mxgw_client
from mxgw_cli.alarms.view import (
    acknowledgement_document,
    acknowledgement_line,
    alarm_document,
    alarms_table,
    counts_line,
    in_order,
    provider_changed_document,
    provider_document,
    provider_line,
    transition_document,
    transition_line,
)
from mxgw_cli.gateway import client_name, connected
from mxgw_cli.options import GatewayTarget
from mxgw_cli.render import gap_document, gap_line, write_json
from mxgw_cli.shell import CliFailure, SilentFailure, console, is_live
from mxgw_client import errors
from mxgw_core.printable import printable

# The time between two paintings of the live list, which does not depend on how many alarms change.
PAINT_INTERVAL_S = 0.25


@asynccontextmanager
async def _connected(where: GatewayTarget) -> AsyncIterator[mxgw_client.Gateway]:
    """Connect to a gateway.

    Raises:
        CliFailure: the gateway cannot be reached, refuses a call, or does not have the plugin alarms enabled.
    """
    async with connected(where) as gateway:
        try:
            yield gateway
        except errors.FeatureNotEnabled:
            raise CliFailure(
                "this gateway does not monitor alarms",
                hint='Add "alarms" to plugins.enabled in its settings, and restart it.',
            ) from None


async def list_alarms(where: GatewayTarget, wanted: mxgw_client.AlarmFilter, *, as_json: bool) -> None:
    """Print the alarms that are active now."""
    async with _connected(where) as gateway:
        listed = await _listed(gateway, wanted)
    alarms = in_order(listed)
    if as_json:
        write_json([alarm_document(alarm) for alarm in alarms])
        return
    out = console()
    if alarms:
        out.print(alarms_table(alarms, out.width))
    out.print(Text(f"{counts_line(alarms)}; ").append_text(provider_line(listed.provider)))


async def _listed(gateway: mxgw_client.Gateway, wanted: mxgw_client.AlarmFilter) -> mxgw_client.AlarmList:
    """Return the active alarms at one moment, and the provider that reports them."""
    listed = mxgw_client.AlarmList()
    async with gateway.alarms(wanted=wanted, client_name=client_name("alarms"), resume=None) as stream:
        async for frame in stream:
            listed.apply(frame)
            if isinstance(frame, mxgw_client.SnapshotComplete):
                break
    return listed


async def watch_alarms(where: GatewayTarget, wanted: mxgw_client.AlarmFilter, *, as_json: bool) -> None:
    """Print the active alarms and then all changes, until Ctrl-C or until the stream ends."""
    async with (
        _connected(where) as gateway,
        gateway.alarms(wanted=wanted, client_name=client_name("alarms")) as stream,
    ):
        if as_json or not is_live():
            async for frame in stream:
                _write(frame, as_json=as_json)
        else:
            await _paint(stream, where)


def _write(frame: mxgw_client.AlarmItem, *, as_json: bool) -> None:
    out = console()
    match frame:
        case mxgw_client.AlarmSnapshot(alarms=alarms):
            for alarm in alarms:
                if as_json:
                    write_json({"type": "active", **alarm_document(alarm)})
            if not as_json:
                out.print(alarms_table(in_order(alarms), out.width))
        case mxgw_client.SnapshotComplete(position=position, provider=provider):
            if as_json:
                document = provider_document(provider)
                write_json({"type": "snapshot_complete", "position": position.to_text(), **document})
            else:
                out.print(provider_line(provider))
        case mxgw_client.AlarmTransition():
            if as_json:
                write_json(transition_document(frame))
            else:
                out.print(transition_line(frame), soft_wrap=True)
        case mxgw_client.ProviderChanged(current=current):
            if as_json:
                write_json(provider_changed_document(frame))
            else:
                out.print(provider_line(current))
        case mxgw_client.Gap():
            if as_json:
                write_json(gap_document(frame))
            else:
                out.print(gap_line(frame), soft_wrap=True)
        case mxgw_client.StreamCut():
            click.echo(f"The stream was cut and comes back: {printable(frame.error.message, 500)}", err=True)
        case _:
            pass
    out.file.flush()


async def _paint(stream: mxgw_client.AlarmStream, where: GatewayTarget) -> None:
    """Show the list of alarms on the whole screen, and paint it again every `PAINT_INTERVAL_S`."""
    listed = mxgw_client.AlarmList()
    notice = Text("waiting for the first list", style="dim")
    out = console()
    with Live(console=out, auto_refresh=False, screen=True) as live:

        def paint() -> None:
            alarms = in_order(listed)
            room = max(1, out.height - 4)
            head = Text(f"{counts_line(alarms)} at {where.target}, {time.strftime('%H:%M:%S')}. Ctrl-C ends it.")
            parts: list[RenderableType] = [head, provider_line(listed.provider)]
            if notice:
                parts.append(notice)
            live.update(RenderGroup(*parts, alarms_table(alarms[:room], out.width)), refresh=True)

        async with asyncio.TaskGroup() as tasks:

            async def repaint() -> None:
                while True:
                    await asyncio.sleep(PAINT_INTERVAL_S)
                    paint()

            painting = tasks.create_task(repaint(), name="alarms:paint")
            try:
                async for frame in stream:
                    listed.apply(frame)
                    match frame:
                        case mxgw_client.StreamCut():
                            notice = Text("connection lost, coming back: the list may be old", style="bold yellow")
                        case mxgw_client.Gap():
                            notice = Text("something was missed; waiting for a new list", style="yellow")
                        case mxgw_client.SnapshotComplete() | mxgw_client.StreamOpened(recovered=True):
                            notice = Text()
                        case _:
                            pass
            finally:
                painting.cancel()


async def acknowledge(
    where: GatewayTarget, references: Sequence[str], comment: str, operator: str, *, as_json: bool
) -> None:
    """Acknowledge alarms and print the result of each.

    Raises:
        SilentFailure: an acknowledgement was not accepted; the reason is in the output.
    """
    async with _connected(where) as gateway:
        results = await gateway.acknowledge_alarms(*references, comment=comment, operator=operator)
    if as_json:
        write_json([acknowledgement_document(result) for result in results])
    else:
        for result in results:
            click.echo(acknowledgement_line(result))
    if not all(result.accepted for result in results):
        raise SilentFailure
