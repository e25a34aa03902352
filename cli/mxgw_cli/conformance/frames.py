"""Makes the frames of a stream from their short form in a scenario."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import grpc
from google.protobuf import json_format

from mxgw import convert
from mxgw.v1 import event_service_pb2, events_pb2
from mxgw_cli.conformance import scripted
from mxgw_cli.conformance.scenario import EPOCH, OTHER_EPOCH, ScenarioError

Frame = event_service_pb2.StreamEventsResponse
# A field that no release has: what a later gateway may send.
_UNKNOWN_FRAME = b"\xa2\x3f\x04\x08\x01\x10\x02"


def frame_of(step: Mapping[str, Any]) -> Frame | bytes | None:
    """Return the frame that a step sends; None when the step is something else.

    Raises:
        ScenarioError: the step names no frame.
    """
    ((kind, value),) = step.items()
    match kind:
        case "opened":
            return _opened(value)
        case "changes":
            return scripted.changes(*value)
        case "events":
            return scripted.batch(*(_event(event) for event in value))
        case "gap":
            return _gap(value)
        case "heartbeat":
            beat = scripted.heartbeat(_sequence(value))
            beat.heartbeat.position.CopyFrom(_position(value))
            if isinstance(value, Mapping) and "source" in value:
                beat.heartbeat.source_health = events_pb2.SourceHealth.Value(f"SOURCE_HEALTH_{value['source']}")
            return beat
        case "progress":
            return Frame(progress=events_pb2.Progress(position=_position(value)))
        case "snapshot":
            items = [
                events_pb2.SnapshotItem(
                    server_handle=1,
                    item_handle=item.get("item", 1),
                    item_serial=item.get("item", 1),
                    sequence=item["sequence"],
                    value=scripted.change(item["sequence"]).data_change,
                )
                for item in value.get("items", ())
            ]
            return Frame(snapshot=events_pb2.Snapshot(position=_position(value), items=items))
        case "snapshot_end":
            return Frame(snapshot_end=events_pb2.SnapshotEnd(position=_position(value)))
        case "draining":
            return Frame(draining=events_pb2.Draining(retry_after=convert.duration_from_seconds(value)))
        case "unknown_frame":
            return _UNKNOWN_FRAME
        case "empty_batch":
            return Frame(events=events_pb2.EventBatch())
        case "garbage":
            return b"\xff\xff\xff"
        case "wait_s" | "seen" | "cut" | "end":
            return None
    raise ScenarioError(f"no frame and no act of the gateway: {kind}")


def refusal_of(value: Mapping[str, Any]) -> scripted.Refusal:
    """Return the status that a scenario describes."""
    return scripted.Refusal(
        grpc.StatusCode[value["code"]],
        value.get("reason", ""),
        value.get("text", "as the scenario says"),
        metadata=dict(value.get("metadata", {})),
        retry_after_s=value.get("retry_after_s"),
        domain=value.get("domain", "mxgw"),
        raw_details=bytes.fromhex(value["raw_details"]) if "raw_details" in value else None,
    )


def _epoch(value: Any) -> bytes:
    named = value.get("epoch", EPOCH.hex()) if isinstance(value, Mapping) else EPOCH.hex()
    return {"OTHER": OTHER_EPOCH, "EPOCH": EPOCH}.get(named) or bytes.fromhex(named)


def _sequence(value: Any) -> int:
    return int(value["at"] if isinstance(value, Mapping) else value)


def _position(value: Any) -> events_pb2.Position:
    return events_pb2.Position(epoch=_epoch(value), sequence=_sequence(value))


def _opened(value: Mapping[str, Any]) -> Frame:
    start = value.get("from", 0)
    frame = scripted.opened(
        start,
        heartbeat_s=value.get("heartbeat_s", 30.0),
        resuming="recovered" in value,
        recovered=value.get("recovered", False),
    )
    frame.opened.epoch = _epoch(value)
    frame.opened.head_sequence = value.get("head", start)
    frame.opened.oldest_sequence = value.get("oldest", 1)
    frame.opened.policy = value.get("policy", "disconnect")
    return frame


def _gap(value: Mapping[str, Any]) -> Frame:
    named = value["reason"]
    # A number is a reason that a later contract may have.
    reason = named if isinstance(named, int) else events_pb2.GapReason.Value(f"GAP_REASON_{named}")
    frame = scripted.gap(value.get("first", 0), value.get("last", 0), count=value.get("count", 0), reason=reason)
    frame.gap.epoch = _epoch(value)
    frame.gap.runs.extend(value.get("runs", ()))
    return frame


def _event(value: Mapping[str, Any]) -> events_pb2.Event:
    """Return an event: a data change of the item 1, unless `as` has another as JSON of the message Event."""
    event = scripted.change(value["sequence"], item=value.get("item", 1), ok=value.get("ok", True))
    if "serial" in value:
        event.item_serial = value["serial"]
    if "kind" in value:
        event.kind = events_pb2.EventKind.ValueType(value["kind"])
    if "as" in value:
        event.ClearField("data_change")
        json_format.ParseDict(value["as"], event)
    if "value" in value:
        # JSON of MxValue; {} is a change without a value.
        event.data_change.value.Clear()
        json_format.ParseDict(value["value"], event.data_change.value)
    if "bytes" in value:
        event.data_change.value.opaque = base64.b16decode(value["bytes"], casefold=True)
    return event
