"""The testee of the Python client: carries out what `mxgw conformance run` asks for, and prints what it gets.

    python -m mxgw_cli.conformance.testee

Commands come as JSON lines on stdin, answers leave as JSON lines on stdout (docs/clients/conformance.md). It is also
the model for the testees of other languages: it uses nothing but the public part of the client.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import mxgw_client
from mxgw_client import errors

Line = dict[str, Any]
_STARTS = {"oldest": mxgw_client.Start.OLDEST, "now": mxgw_client.Start.NOW, "snapshot": mxgw_client.Start.SNAPSHOT}
_ON_GAP = {"": "UNSPECIFIED", "deliver_retained": "DELIVER_RETAINED", "refuse": "REFUSE", "snapshot": "SNAPSHOT"}
# The first class that fits names the kind. A reason of the gateway comes before all of them.
_KINDS: tuple[tuple[type[Exception], str], ...] = (
    (errors.MxAccessError, "mxaccess"),
    (errors.StreamStale, "stale"),
    (errors.ConnectionLost, "connection_lost"),
    (errors.GatewayUnreachable, "unreachable"),
    (errors.NotAGateway, "not_a_gateway"),
    (errors.CallTimedOut, "timed_out"),
    (errors.ProtocolViolation, "protocol"),
)


def say(line: Line) -> None:
    """Print one line, at once."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def error_line(error: errors.MxgwClientError) -> Line:
    """Return an error in the words of all clients."""
    named = [kind for cls, kind in _KINDS if isinstance(error, cls)]
    if error.reason and not isinstance(error, errors.MxAccessError):
        named = ["gateway"]
    line: Line = {
        "kind": named[0] if named else "failed",
        "reason": error.reason,
        "code": error.code.name if error.code is not None else "",
        "message": error.message,
        "metadata": error.metadata,
        "resumable": error.resumable,
    }
    if error.retry_after_s is not None:
        line["retry_after_s"] = error.retry_after_s
    if isinstance(error, errors.MxAccessError):
        line["hresult"] = error.hresult
    return line


def value_line(value: Any) -> Line:
    """Return a value with its type. What JSON has no numbers for is text: large integers, times, NaN."""
    match value:
        case None:
            return {"none": True}
        case bool():
            return {"boolean": value}
        case int():
            return {"integer": str(value)}
        case float():
            return {"float": value if value - value == 0 else _NOT_FINITE.get(str(value), "NaN")}
        case str():
            return {"string": value}
        case bytes():
            return {"bytes": value.hex()}
        case datetime():
            return {"time_us": str((value - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1))}
        case timedelta():
            return {"duration_us": str(value // timedelta(microseconds=1))}
        case _:
            return {"array": [value_line(element) for element in value]}


_NOT_FINITE = {"inf": "Infinity", "-inf": "-Infinity"}


def place_line(position: mxgw_client.Position | None) -> Line:
    """Return a position as two fields, so that lines can be compared."""
    return {} if position is None else {"epoch": position.epoch.hex(), "sequence": position.sequence}


def item_line(item: Any) -> Line:
    """Return what a stream handed out, in the words of all clients."""
    match item:
        case mxgw_client.DataChange():
            return _event(item, "change") | {
                "value": value_line(item.value),
                "quality": item.quality.name,
                "ok": item.ok,
                "statuses": [status.detail for status in item.statuses],
            }
        case mxgw_client.WriteComplete():
            facts = {"write_id": item.write_id, "missing": item.missing, "uncertain": item.pairing_uncertain}
            return _event(item, "write_complete") | facts | {"ok": item.ok}
        case mxgw_client.OperationComplete():
            return _event(item, "operation_complete") | {"ok": item.ok}
        case mxgw_client.BufferedDataChange():
            return _event(item, "buffered_change") | {
                "values": [value_line(value) for value in item.values],
                "qualities": item.raw_qualities,
                "times_us": [value_line(time)["time_us"] for time in item.source_times],
            }
        case mxgw_client.UnknownEvent():
            return _event(item, "unknown_event")
        case mxgw_client.StreamOpened():
            return {
                "item": "opened",
                "at": place_line(item.position),
                "head": item.head_sequence,
                "oldest": item.oldest_sequence,
                "resuming": item.was_resuming,
                "recovered": item.recovered,
                "policy": item.policy,
                "heartbeat_s": item.heartbeat_interval_s,
            }
        case mxgw_client.Gap():
            return {
                "item": "gap",
                "epoch": item.epoch.hex(),
                "first": item.first_lost,
                "last": item.last_lost,
                "count": item.count,
                "reason": item.reason.name,
                "runs": list(item.runs),
                "lost": [list(ends) for ends in item.lost_ranges],
            }
        case mxgw_client.Heartbeat():
            return {"item": "heartbeat", "at": place_line(item.position), "source": item.source_health.name}
        case mxgw_client.Progress():
            return {"item": "progress", "at": place_line(item.position)}
        case mxgw_client.Snapshot():
            values = [
                {
                    "sequence": v.sequence,
                    "serial": v.item_serial,
                    "value": value_line(v.value),
                    "reference": v.reference,
                }
                for v in item.items
            ]
            return {"item": "snapshot", "at": place_line(item.position), "items": values}
        case mxgw_client.SnapshotEnd():
            return {"item": "snapshot_end", "at": place_line(item.position)}
        case mxgw_client.Draining():
            return {"item": "draining", "retry_after_s": item.retry_after_s}
        case mxgw_client.StreamCut():
            return {"item": "cut", "error": error_line(item.error)}
    return {"item": type(item).__name__}


def _event(event: Any, name: str) -> Line:
    return {
        "item": name,
        "sequence": event.sequence,
        "handle": event.item_handle,
        "serial": event.item_serial,
        "reference": event.reference,
    }


class Testee:
    """Carries out commands, one after the other. `reset` closes all that they opened."""

    def __init__(self) -> None:
        self._stack = AsyncExitStack()
        self._gateway: mxgw_client.Gateway | None = None
        self._session: mxgw_client.Session | None = None

    async def run(self, command: Line) -> Line:
        """Return the answer to a command, without its number."""
        method: Callable[[Line], Any] | None = getattr(self, f"do_{command['do']}", None)
        if method is None:
            return {"unsupported": command["do"]}
        try:
            return {"ok": await method(command) or {}}
        except errors.MxgwClientError as error:
            return {"error": error_line(error)}

    async def do_reset(self, _: Line) -> None:
        await self._stack.aclose()
        self._stack, self._gateway, self._session = AsyncExitStack(), None, None

    async def do_connect(self, command: Line) -> None:
        gateway = mxgw_client.connect(command["target"], timeout_s=command.get("timeout_s", 20))
        self._gateway = await self._stack.enter_async_context(gateway)

    async def do_open_session(self, command: Line) -> Line:
        assert self._gateway is not None
        session = self._gateway.open_session(client_name=command.get("client_name", ""))
        self._session = await self._stack.enter_async_context(session)
        return {"session_id": self._session.session_id}

    async def do_attach_session(self, command: Line) -> Line:
        assert self._gateway is not None
        session = self._gateway.attach_session(command["session_id"])
        self._session = await self._stack.enter_async_context(session)
        return {"session_id": self._session.session_id}

    async def do_close_session(self, _: Line) -> None:
        assert self._session is not None
        await self._session.close()

    async def do_add_item(self, command: Line) -> Line:
        assert self._session is not None
        item = await self._session.add_item(command["reference"])
        return {"handle": item.handle, "serial": item.serial}

    async def do_write(self, command: Line) -> Line:
        assert self._session is not None
        result = await self._session.write(command["handle"], _plain(command["value"]), wait=command.get("wait", False))
        return {"write_id": result.write_id}

    async def do_advise(self, command: Line) -> None:
        assert self._session is not None
        await self._session.advise(command["handle"])

    async def do_ping(self, _: Line) -> None:
        assert self._session is not None
        await self._session.ping()

    async def do_stream(self, command: Line) -> None:
        assert self._session is not None
        start = command.get("start", "oldest")
        policy = command.get("resume", {})
        events = self._session.events(
            start=_STARTS[start] if isinstance(start, str) else mxgw_client.after(_position(start["after"])),
            on_gap=mxgw_client.OnGap[_ON_GAP[command.get("on_gap", "")]],
            policy=command.get("policy"),
            resume=None if policy is None else mxgw_client.ResumePolicy(**policy),
        )
        left = command.get("take")
        try:
            async for item in events:
                say({"for": command["id"], **item_line(item), "position": place_line(events.position)})
                left = None if left is None else left - 1
                if left == 0:
                    return
        except errors.MxgwClientError as error:
            end = {"item": "end", "error": error_line(error), "position": place_line(events.position)}
            say({"for": command["id"], **end})
        finally:
            await events.close()


def _plain(tagged: Line) -> Any:
    """Return the value to write."""
    ((kind, value),) = tagged.items()
    return int(value) if kind == "integer" else value


def _position(place: Line) -> mxgw_client.Position:
    return mxgw_client.Position(bytes.fromhex(place["epoch"]), place["sequence"])


async def main() -> None:
    """Carry out commands until stdin ends."""
    testee = Testee()
    say({"testee": "python", "protocol": 1})
    while text := await asyncio.to_thread(sys.stdin.readline):
        command = json.loads(text)
        say({"id": command["id"], **await testee.run(command)})
    await testee.do_reset({})


if __name__ == "__main__":
    asyncio.run(main())
