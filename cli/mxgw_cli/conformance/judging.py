"""Judges what a testee answered: against the scenario, and against what every subscriber is promised.

The promises are checked by the checker of the gateway's own tests (`mxgw_core.testing.checker`): a client must neither
lose nor repeat nor invent an event on its way from the stream to the application.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mxgw.v1 import event_service_pb2, events_pb2
from mxgw_cli.conformance.matching import differences, unmatched
from mxgw_cli.conformance.scenario import with_epochs
from mxgw_core.api.types import Position
from mxgw_core.testing.checker import (
    Hole,
    Lost,
    Observation,
    Opened,
    Passed,
    Seen,
    SnapshotDone,
    SnapshotPart,
    StreamChecker,
)

Line = Mapping[str, Any]
Sent = Mapping[tuple[bytes, int], bytes]
_EVENTS = {"change", "write_complete", "operation_complete", "buffered_change", "unknown_event"}


def problems_of(step: Line, answer: Line, lines: Sequence[Line]) -> list[str]:
    """Return what is wrong with the answer to one command, and with the lines that came before it."""
    name = step["do"]
    if "unsupported" in answer:
        return [f"the testee does not know {name}"]
    if "error" in step:
        if "error" not in answer:
            return [f"{name} succeeded, expected the error {step['error']}"]
        return [f"{name}: {found}" for found in differences(with_epochs(step["error"]), answer["error"], "error")]
    if "error" in answer and step.get("may_fail"):
        return []
    if "error" in answer:
        return [f"{name} failed: {answer['error']}"]
    found = differences(with_epochs(step.get("ok", {})), answer.get("ok"), "ok")
    problems = [f"{name}: {one}" for one in found]
    if "lines" in step:
        problems += [f"{name}: {one}" for one in unmatched(with_epochs(step["lines"]), lines)]
    return problems


class _Script:
    """An oracle that knows what the scripted gateway sent."""

    def __init__(self, sent: Sent) -> None:
        self._sent = sent

    def produced(self, epoch: bytes, sequence: int) -> Seen | Hole | None:
        encoded = self._sent.get((epoch, sequence))
        if encoded is None:
            return None
        event = events_pb2.Event.FromString(encoded)
        return Seen(sequence, event.item_serial)


def broken_promises(
    lines: Sequence[Line], opened: Sequence[event_service_pb2.StreamEventsRequest], sent: Sent
) -> list[str]:
    """Return which promises the lines of a stream break. `opened` are the requests of the streams that were opened."""
    checker = StreamChecker(_Script(sent))
    requests = iter(opened)
    is_running = False
    for line in lines:
        if line["item"] in ("cut", "end"):
            if is_running:
                checker.end(line["error"]["reason"] or line["error"]["kind"])
            is_running = False
            continue
        if line["item"] == "opened":
            if (request := next(requests, None)) is None:
                return ["the testee reported more openings than there were streams"]
            start = request.start.after if request.start.HasField("after") else None
            checker.attach(Position(start.epoch, start.sequence) if start is not None else None)
            is_running = True
        if is_running:
            for observation in _observed(line):
                checker.observe(observation)
        if (found := _ahead(line, checker)) is not None:
            return [found]
    if is_running:
        checker.end("CLOSED")
    return [str(violation) for violation in checker.violations]


def _ahead(line: Line, checker: StreamChecker) -> str | None:
    """Return why the position that the client names lies ahead of what it has handed out; None when it does not."""
    at, named = checker.position, line.get("position") or {}
    if at is None or not named or named["epoch"] != at.epoch.hex() or named["sequence"] <= at.sequence:
        return None
    return f"after {line['item']} the position is {named['sequence']}, but only {at.sequence} was handed out"


def _place(at: Line) -> tuple[bytes, int]:
    return bytes.fromhex(at["epoch"]), at["sequence"]


def _observed(line: Line) -> Sequence[Observation]:
    match line["item"]:
        case "opened":
            epoch, sequence = _place(line["at"])
            return [Opened(epoch, sequence, line["head"], line["oldest"], line["resuming"], line["recovered"])]
        case "gap":
            epoch, runs = bytes.fromhex(line["epoch"]), tuple(line["runs"])
            return [Lost(epoch, line["first"], line["last"], line["reason"], line["count"], runs)]
        case "heartbeat" | "progress":
            return [Passed(*_place(line["at"]))]
        case "snapshot":
            values = tuple(Seen(item["sequence"], item["serial"]) for item in line["items"])
            return [SnapshotPart(*_place(line["at"]), values)]
        case "snapshot_end":
            return [SnapshotDone(*_place(line["at"]))]
        case name if name in _EVENTS:
            return [Seen(line["sequence"], line["serial"])]
    return []
