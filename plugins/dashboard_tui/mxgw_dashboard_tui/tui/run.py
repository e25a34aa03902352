"""Runs the dashboard app with the source and the recorder that the options name."""

from __future__ import annotations

import asyncio
import time

import click

from mxgw_dashboard_tui.options import Options
from mxgw_dashboard_tui.tui.recording import NoRecording, Playback, Recorder, read_recording
from mxgw_dashboard_tui.tui.source import Source


def run(options: Options) -> None:
    """Show the dashboard until the operator leaves it.

    Raises:
        click.ClickException: a file that the options name cannot be read or written.
    """
    try:
        if options.replay is not None:
            next(read_recording(options.replay), None)
        recorder = Recorder(options.record, time.perf_counter) if options.record is not None else None
    except NoRecording as error:
        raise click.ClickException(str(error)) from None
    try:
        asyncio.run(_show(options, recorder))
    finally:
        if recorder is not None:
            recorder.close()


async def _show(options: Options, recorder: Recorder | None) -> None:
    from mxgw_dashboard_tui.tui.app import DashboardApp

    source = _source(options)
    try:
        await DashboardApp(
            source,
            user=options.user,
            theme=options.theme,
            recorder=recorder,
            alarm_rows=options.alarm_rows,
        ).run_async()
    finally:
        await source.close()


def _source(options: Options) -> Source:
    if options.replay is not None:
        return Playback(options.replay)
    from mxgw_dashboard_tui.tui.connection import Connection, Target

    target = Target(options.target, options.ca, options.certificate, options.private_key, options.api_key_file)
    try:
        return Connection(target, options.interval_s)
    except OSError as error:
        raise click.ClickException(f"{error.filename}: {error.strerror}") from None
