"""`mxgw stream`: prints a session's events as lines, and can continue where an earlier run stopped."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import click
from rich.console import Console

import mxgw_client
from mxgw_cli.gateway import client_name, connected, find_session, session_of
from mxgw_cli.options import GatewayTarget
from mxgw_cli.render import enum_words, gap_document, gap_line, json_text
from mxgw_cli.shell import CliFailure, SilentFailure, console
from mxgw_cli.stream.view import event_document, event_line
from mxgw_client import errors
from mxgw_client.position_file import POSITION_INTERVAL_S, PositionFile
from mxgw_core.printable import printable

TAG_COLUMN_AT_MOST = 40


@dataclass(frozen=True, slots=True)
class StreamRequest:
    """The arguments of `mxgw stream`."""

    tags: tuple[str, ...]
    start: mxgw_client.Start
    backend: str
    session_id: str
    duration_s: float | None
    count: int | None
    as_json: bool
    resume_file: Path | None = None
    policy: mxgw_client.Policy | None = None
    item_options: mxgw_client.ItemOptions | None = None


def start_of(text: str) -> mxgw_client.Start:
    """Return the start place that `text` names: `oldest`, `now` or `after:POSITION`.

    Raises:
        click.UsageError: the text has none of these forms.
    """
    match text.partition(":"):
        case ("oldest", "", ""):
            return mxgw_client.Start.OLDEST
        case ("now", "", ""):
            return mxgw_client.Start.NOW
        case ("after", ":", position):
            try:
                return mxgw_client.after(mxgw_client.Position.from_text(position))
            except ValueError as error:
                raise click.UsageError(f"--start: {error}") from None
        case _:
            raise click.UsageError(f"--start is oldest, now or after:POSITION, not {text!r}.")


def policy_of(name: str, parameters: Sequence[str]) -> mxgw_client.Policy | None:
    """Return the overflow policy `name` with its parameters, each of them `KEY=VALUE`; None without a name.

    Raises:
        click.UsageError: a parameter has another form, a key comes twice, or there are parameters without a name.
    """
    if parameters and not name:
        raise click.UsageError("--policy-parameter is for the policy of --policy, which is missing.")
    found: dict[str, str] = {}
    for parameter in parameters:
        key, equals, value = parameter.partition("=")
        if not key or not equals:
            raise click.UsageError(f"--policy-parameter is KEY=VALUE, not {parameter!r}.")
        if key in found:
            raise click.UsageError(f"--policy-parameter {key} is given twice.")
        found[key] = value
    return mxgw_client.Policy(name, found) if name else None


def item_options_of(deadband: str, sampling_interval_s: float | None) -> mxgw_client.ItemOptions | None:
    """Return the options of the tags to subscribe: a deadband as a number, or in percent (`2.5%`), and a sampling
    interval; None when none are wanted.

    Raises:
        click.UsageError: the deadband has another form, or is out of range.
    """
    if not deadband and sampling_interval_s is None:
        return None
    in_percent = deadband.endswith("%")
    try:
        # Python would also read 1_000.
        number = float(deadband.removesuffix("%").replace("_", "?")) if deadband else None
    except ValueError:
        number = -1.0
    if number is not None and not (0 <= number <= (100 if in_percent else sys.float_info.max)):
        raise click.UsageError(f"--deadband is a number of 0 or more, or a percentage up to 100%, not {deadband!r}.")
    return mxgw_client.ItemOptions(
        absolute_deadband=None if in_percent else number,
        percent_deadband=number if in_percent else None,
        sampling_interval_s=sampling_interval_s,
    )


class LineWriter:
    """Writes frames to stdout as lines, and flushes after every frame."""

    def __init__(self, *, as_json: bool, tag_width: int) -> None:
        self._as_json = as_json
        self._tag_width = tag_width
        self._console: Console = console()
        self.events = 0
        self.gaps = 0
        self.position: mxgw_client.Position | None = None

    def opened(self, opened: mxgw_client.StreamOpened) -> None:
        """With JSON, write the position at which the stream begins; otherwise write nothing."""
        self.position = opened.position
        if self._as_json:
            self._write(
                {
                    "type": "opened",
                    "position": opened.position.to_text(),
                    "head_sequence": opened.head_sequence,
                    "oldest_sequence": opened.oldest_sequence,
                    "recovered": opened.recovered,
                    "policy": opened.policy,
                }
            )

    def batch(self, batch: mxgw_client.EventBatch) -> None:
        """Write the events of a batch, one line each."""
        self.events += len(batch)
        self.position = batch.position
        if self._as_json:
            sys.stdout.write("".join(json_text(event_document(e, e.reference)) + "\n" for e in batch))
            sys.stdout.flush()
            return
        for event in batch:
            tag = event.reference or f"item {event.item_handle}"
            self._console.print(event_line(event, tag, self._tag_width), soft_wrap=True)
        self._console.file.flush()

    def gap(self, gap: mxgw_client.Gap) -> None:
        """Write a gap as a line, between the lines of the events before and after the gap."""
        self.gaps += 1
        if gap.covers_its_range:
            self.position = mxgw_client.Position(gap.epoch, gap.last_lost)
        if self._as_json:
            self._write(gap_document(gap))
        else:
            self._console.print(gap_line(gap), soft_wrap=True)

    def end(self, reason: str, detail: str) -> None:
        """Write why the stream ended, and the position up to which everything was written."""
        text = self.position.to_text() if self.position is not None else None
        if self._as_json:
            self._write(
                {
                    "type": "end",
                    "reason": reason,
                    "detail": detail,
                    "position": text,
                    "events": self.events,
                    "gaps": self.gaps,
                }
            )
        word = f"{self.events:,} events" + (f", {self.gaps} gaps" if self.gaps else "")
        click.echo(f"Stream ended: {printable(detail, 500)} ({word}).", err=True)
        if text is not None and not self._as_json:
            click.echo(f"Position: {text}", err=True)

    @staticmethod
    def _write(document: object) -> None:
        sys.stdout.write(json_text(document) + "\n")
        sys.stdout.flush()


async def follow(where: GatewayTarget, request: StreamRequest) -> None:
    """Print events until a limit is reached, the stream ends, or Ctrl-C.

    Raises:
        SilentFailure: the stream ended for another reason than --duration, --count or Ctrl-C.
    """
    tag_width = min(max((len(tag) for tag in request.tags), default=24), TAG_COLUMN_AT_MOST)
    writer = LineWriter(as_json=request.as_json, tag_width=tag_width)
    async with connected(where) as gateway, _session(gateway, request) as (session, file):
        tags = request.tags if file is None else await missing_tags(session, request.tags)
        subscription = await _subscribe(session, tags, request.item_options) if tags else None
        start, resume = request.start, None
        if file is not None:
            resume = mxgw_client.ResumePolicy()
            start = start if file.stored is None else mxgw_client.after(file.stored.position)
        stream = session.events(start=start, resume=resume, policy=request.policy)
        reason, detail = "interrupted", "interrupted"
        try:
            async with asyncio.timeout(request.duration_s), stream:
                reason, detail = await _write_all(stream, writer, request.count, file)
        except TimeoutError:
            reason, detail = "duration", f"{request.duration_s:g} s are over"
        except (errors.StreamEnded, errors.StreamStale, errors.ProtocolViolation) as error:
            reason, detail = error.reason.lower() or _snake(type(error).__name__), error.message
        except BrokenPipeError:
            # The program that reads the output has ended, so the last line (`LineWriter.end`) is not written.
            reason = ""
            raise
        finally:
            if reason and stream.opened is not None:
                writer.end(reason, detail)
            if request.session_id and subscription is not None and file is None:
                # The session belongs to another client, so the subscription is removed again. It is no error when the
                # session has ended meanwhile.
                with suppress(errors.MxgwClientError):
                    await subscription.close()
    if reason not in ("duration", "count", "interrupted"):
        raise SilentFailure


@asynccontextmanager
async def _session(
    gateway: mxgw_client.Gateway, request: StreamRequest
) -> AsyncIterator[tuple[mxgw_client.Session, PositionFile | None]]:
    if request.resume_file is not None:
        async with kept_session(
            gateway, request.resume_file, backend=request.backend, session_id=request.session_id
        ) as kept:
            yield kept
        return
    async with session_of(gateway, command="stream", backend=request.backend, session_id=request.session_id) as session:
        yield session, None


async def _subscribe(
    session: mxgw_client.Session, tags: tuple[str, ...], options: mxgw_client.ItemOptions | None
) -> mxgw_client.Subscription:
    try:
        return await session.subscribe(*tags, options=options)
    except errors.SubscribeFailed as error:
        lines = [f"  {printable(tag, 200)}: {printable(text, 300)}" for tag, text in error.failed.items()]
        raise CliFailure("tags were refused:\n" + "\n".join(lines), hint="`mxgw browse` shows what exists.") from None


async def _write_all(
    stream: mxgw_client.EventStream, writer: LineWriter, count: int | None, file: PositionFile | None
) -> tuple[str, str]:
    """Write frames until `count` events were written or the stream ends; return why the stream ended:
    a key for scripts, and words for people.

    A position is stored in `file` only after everything up to that position was written.
    """
    async for frame in stream.batches():
        match frame:
            case mxgw_client.EventBatch():
                if count is not None and writer.events + len(frame) >= count:
                    writer.batch(frame[: count - writer.events])
                    if file is not None:
                        file.note(writer.position)
                    return "count", f"{count} events were asked for"
                writer.batch(frame)
            case mxgw_client.Gap():
                writer.gap(frame)
            case mxgw_client.StreamOpened():
                writer.opened(frame)
            case mxgw_client.Draining():
                click.echo("The gateway is shutting down; the stream will end.", err=True)
            case mxgw_client.StreamCut():
                click.echo(f"The stream was cut and comes back: {printable(frame.error.message, 500)}", err=True)
            case mxgw_client.Heartbeat() if frame.source_health > mxgw_client.SourceHealth.GOOD:
                words = enum_words(frame.source_health)
                click.echo(f"The source is {words}: last values may be stale.", err=True)
            case _:
                pass
        if file is not None:
            file.note(stream.position)
    return "closed", "closed"


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


@asynccontextmanager
async def kept_session(
    gateway: mxgw_client.Gateway, path: Path, *, backend: str, session_id: str
) -> AsyncIterator[tuple[mxgw_client.Session, PositionFile]]:
    """Yield the session that the position file at `path` names, and the file. The session stays open afterwards.

    When the file does not exist yet, the session is `session_id` or, if `session_id` is "", a new session.

    Raises:
        CliFailure: the session has ended, or the file names another session than `session_id`.
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
        elif not session_id:
            # The new session is closed: the file was never written, so nobody could find this session again.
            await gateway.close_session(session.session_id)


async def missing_tags(session: mxgw_client.Session, tags: Sequence[str]) -> tuple[str, ...]:
    """Return the tags for which the session has no item yet, because no earlier run has subscribed them."""
    there = {item.item.reference for item in (await session.state()).items}
    return tuple(tag for tag in tags if tag not in there)
