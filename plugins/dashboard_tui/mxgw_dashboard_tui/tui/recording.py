"""Recordings: the gateway reports that a dashboard receives are written to a file, and played back later.

A gateway report is the state of the whole gateway at one moment (model.py).

Each line of the file is a JSON object. The first line is a header. Each further line has one gateway report in
protobuf's JSON form, and the seconds since the start of the recording. A recording contains the names, owners and
tags of sessions, but no values of items.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import IO, Any, TypeVar

from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from google.protobuf.message import Message

from mxgw.dashboard.v1 import dashboard_service_pb2 as pb
from mxgw_core.api.files import open_private
from mxgw_dashboard_tui.tui.model import Link
from mxgw_dashboard_tui.tui.source import Listener, Refused

_M = TypeVar("_M", bound=Message)

_FORMAT = "mxgw-dashboard-recording"
_VERSION = 1


class NoRecording(Exception):
    """A recording cannot be read or written; the text says why."""


class Recorder:
    """Creates a file that only the present user can read, and appends gateway reports to the file.

    Raises:
        NoRecording: the file exists already, or cannot be written.
    """

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._began = clock()
        try:
            descriptor = open_private(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        except OSError as error:
            raise NoRecording(f"{path}: {error.strerror}; a recording needs a new file") from None
        self._file: IO[str] = os.fdopen(descriptor, "w", encoding="utf-8")
        self._write({"format": _FORMAT, "version": _VERSION})

    def snapshot(self, snapshot: pb.WatchGatewayResponse) -> None:
        """Append a gateway report to the file."""
        document = MessageToDict(snapshot, preserving_proto_field_name=True)
        self._write({"at_s": round(self._clock() - self._began, 3), "snapshot": document})

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, document: dict[str, Any]) -> None:
        self._file.write(json.dumps(document, separators=(",", ":")) + "\n")
        self._file.flush()


def read_recording(path: Path) -> Iterator[tuple[float, pb.WatchGatewayResponse]]:
    """Yield each gateway report, and after how many seconds of the recording the report arrived.

    An incomplete last line is skipped.

    Raises:
        NoRecording: the file cannot be read, is not a recording, or is damaged.
    """
    try:
        with path.open(encoding="utf-8") as file:
            header = json.loads(file.readline() or "null")
            if not isinstance(header, dict) or header.get("format") != _FORMAT or header.get("version") != _VERSION:
                raise NoRecording(f"{path} is no recording of `mxgw dashboard --record`")
            for line in file:
                if not line.endswith("\n"):
                    return
                document = json.loads(line)
                yield float(document["at_s"]), ParseDict(document["snapshot"], pb.WatchGatewayResponse())
    except OSError as error:
        raise NoRecording(f"{path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, ParseError) as error:
        raise NoRecording(f"{path} is damaged: {error}") from None


class Playback:
    """A recording as the source of the dashboard, played at its original speed. All calls are refused."""

    is_recording = True

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def name(self) -> str:
        return self._path.name

    async def run(self, listener: Listener) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            for at_s, snapshot in read_recording(self._path):
                await asyncio.sleep(max(0.0, began + at_s - loop.time()))
                listener.link_changed(Link.REPLAY, "")
                listener.snapshot_arrived(snapshot)
        except NoRecording as error:
            listener.link_changed(Link.DENIED, str(error))
        else:
            listener.link_changed(Link.ENDED, "")
        await asyncio.Event().wait()

    async def login(self, *_: object) -> None:
        raise Refused(_NOT_LIVE)

    async def logout(self) -> None:
        raise Refused(_NOT_LIVE)

    async def ask(self, _method: str, _request: Message, _answer: type[_M], /) -> _M:
        raise Refused(_NOT_LIVE)

    async def follow(self, _method: str, _request: Message, _answer: type[_M], /) -> AsyncIterator[_M]:
        raise Refused(_NOT_LIVE)
        yield

    async def watch_audit(self) -> AsyncIterator[pb.WatchAuditResponse]:
        raise Refused(_NOT_LIVE)
        yield

    async def watch_session(self, *_: object) -> AsyncIterator[pb.WatchSessionResponse]:
        raise Refused(_NOT_LIVE)
        yield

    async def watch_events(self, *_: object) -> AsyncIterator[pb.WatchEventsResponse]:
        raise Refused(_NOT_LIVE)
        yield

    async def list_items(self, *_: object) -> pb.ListItemsResponse:
        raise Refused(_NOT_LIVE)

    async def list_settings(self) -> pb.ListSettingsResponse:
        raise Refused(_NOT_LIVE)

    async def close_session(self, *_: object) -> None:
        raise Refused(_NOT_LIVE)

    async def kill_worker(self, *_: object) -> None:
        raise Refused(_NOT_LIVE)

    async def close(self) -> None:
        return


_NOT_LIVE = "a recording has no more than the tables of sessions: connect to the gateway for this"
