"""Plays the gateway of one scenario, notes every call, and says which calls were not as expected."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from google.protobuf import json_format

from mxgw.v1 import commands_pb2, event_service_pb2
from mxgw_cli.conformance.frames import frame_of, refusal_of
from mxgw_cli.conformance.matching import differences
from mxgw_cli.conformance.relay import FaultProxy, fault_proxy
from mxgw_cli.conformance.scenario import Scenario, ScenarioError, with_epochs
from mxgw_cli.conformance.scripted import Frames, Scripted, scripted_gateway

_TOO_MANY = {"code": "NOT_FOUND", "reason": "SESSION_GONE", "text": "the scenario expects no further stream"}
# How long a stream waits for what the client has not been seen to hand out, before it goes on all the same.
_SEEN_S = 10.0
# Where nobody reports what a client hands out, it gets this time instead.
_BLIND_S = 0.5
_SECRET_LENGTHS = range(16, 65)


class Stage:
    """The gateway of one scenario.

    Attributes:
        problems: sentences about calls that were not as the scenario expects.
        streams: the requests of all StreamEvents calls.
        opened: the requests of those that got a StreamOpened, in order.
        sent: every event that was sent, by epoch and sequence.
    """

    def __init__(self, scenario: Scenario, gateway: Scripted, relay: FaultProxy, *, is_watched: bool) -> None:
        self._scenario = scenario
        self._script = gateway.script
        self._relay = relay
        self._is_watched = is_watched
        self._seen_sequence = 0
        self._epoch = b""
        self._saw = asyncio.Event()
        self._answers = {name: list(answers) for name, answers in scenario.calls.items()}
        self.problems: list[str] = []
        self.streams: list[event_service_pb2.StreamEventsRequest] = []
        self.opened: list[event_service_pb2.StreamEventsRequest] = []
        self.sent: dict[tuple[bytes, int], bytes] = {}
        self.target = relay.target
        script = gateway.script
        script.contract = scenario.contract
        script.before = self._answer
        script.stream = self._stream
        for name, reply in scenario.replies.items():
            message = json_format.ParseDict(dict(reply), commands_pb2.MxReply())
            script.replies[name] = lambda _, message=message: message  # type: ignore[misc]

    def saw(self, line: Mapping[str, Any]) -> None:
        """Take note of what the client handed out, for steps that wait for it."""
        place = line.get("position", {}).get("sequence", 0)
        self._seen_sequence = max(self._seen_sequence, place, line.get("sequence", 0))
        self._saw.set()

    async def _answer(self, name: str, request: object) -> None:
        del request
        if not self._answers.get(name):
            return
        answer = self._answers[name].pop(0)
        if "refuse" in answer:
            raise refusal_of(answer["refuse"])
        if answer.get("hang"):
            await asyncio.Event().wait()
        if answer.get("cut"):
            self._relay.reset()
            await asyncio.Event().wait()

    async def _stream(self, request: event_service_pb2.StreamEventsRequest, context: object) -> Frames:
        del context
        number = len(self.streams)
        self.streams.append(request)
        if number >= len(self._scenario.streams):
            self.problems.append(f"the client opened stream {number + 1}; the scenario has {number}")
            raise refusal_of(_TOO_MANY)
        plan = self._scenario.streams[number]
        found = differences(with_epochs(plan.get("expect", {})), request_line(request))
        self.problems += [f"request of stream {number + 1}: {difference}" for difference in found]
        for step in plan["send"]:
            if step == {"end": "ok"}:
                return
            frame = frame_of(step)
            if frame is None:
                await self._act(step)
                continue
            if isinstance(frame, event_service_pb2.StreamEventsResponse):
                self._note_sent(frame, request)
            yield frame
        await asyncio.Event().wait()

    def _note_sent(
        self, frame: event_service_pb2.StreamEventsResponse, request: event_service_pb2.StreamEventsRequest
    ) -> None:
        if frame.HasField("opened"):
            self._epoch = frame.opened.epoch
            self.opened.append(request)
        for event in frame.events.events:
            self.sent[self._epoch, event.sequence] = event.SerializeToString()

    async def _act(self, step: Mapping[str, Any]) -> None:
        ((kind, value),) = step.items()
        match kind:
            case "wait_s":
                await asyncio.sleep(value)
            case "seen":
                await self._until_seen(value)
            case "end":
                raise refusal_of(value)
            case "cut" if value == "reset":
                self._relay.reset()
            case "cut" if value == "half_open":
                self._relay.half_open()
            case "cut" if value == "mid_message":
                self._relay.cut_inside_a_message(40)
            case _:
                raise ScenarioError(f"no such cut: {value}")

    async def _until_seen(self, sequence: int) -> None:
        if not self._is_watched:
            await asyncio.sleep(_BLIND_S)
            return
        try:
            async with asyncio.timeout(_SEEN_S):
                while self._seen_sequence < sequence:
                    self._saw.clear()
                    await self._saw.wait()
        except TimeoutError:
            self.problems.append(f"the client did not hand out event {sequence} within {_SEEN_S:g} s")

    def finish(self) -> list[str]:
        """Return all problems with the calls, now that no more come."""
        problems = list(self.problems)
        if len(self.streams) < len(self._scenario.streams):
            problems.append(f"the client opened {len(self.streams)} streams of {len(self._scenario.streams)}")
        for rule in self._scenario.requests:
            problems += self._broken(rule)
        return problems

    def _broken(self, rule: Mapping[str, Any]) -> list[str]:
        name = rule["call"]
        requests: list[Any] = self._script.called(name)
        problems = []
        if "times" in rule and len(requests) != rule["times"]:
            problems.append(f"{name} was called {len(requests)} times, not {rule['times']}")
        if "at_least" in rule and len(requests) < rule["at_least"]:
            problems.append(f"{name} was called {len(requests)} times, not {rule['at_least']} or more")
        ids = [request.request_id for request in requests if hasattr(request, "request_id")]
        if rule.get("same_request_id") and (len(set(ids)) != 1 or len(ids[0]) not in _SECRET_LENGTHS):
            problems.append(
                f"{name} must repeat one request id of 16 to 64 bytes; the ids were {[i.hex() for i in ids]}"
            )
        if rule.get("other_request_ids") and len(set(ids)) != len(ids):
            problems.append(f"{name} must have another request id each time")
        if (
            rule.get("same_request")
            and len({request.SerializeToString(deterministic=True) for request in requests}) > 1
        ):
            # A timeout says how much is left, so it may differ.
            stripped = {_without_timeout(request) for request in requests}
            if len(stripped) > 1:
                problems.append(f"{name} was not repeated as it was")
        for number, expected in enumerate(rule.get("fields", ())):
            if number >= len(requests):
                problems.append(f"{name} was not called {number + 1} times")
                continue
            fields = json_format.MessageToDict(requests[number], preserving_proto_field_name=True)
            problems += [f"{name} {number + 1}: {found}" for found in differences(with_epochs(expected), fields)]
        return problems


def _without_timeout(request: Any) -> bytes:
    copy = type(request)()
    copy.CopyFrom(request)
    if "timeout" in copy.DESCRIPTOR.fields_by_name:
        copy.ClearField("timeout")
    encoded: bytes = copy.SerializeToString(deterministic=True)
    return encoded


def request_line(request: event_service_pb2.StreamEventsRequest) -> dict[str, Any]:
    """Return a request for a stream in the words of scenarios."""
    start: Any = request.start.WhichOneof("start") or "oldest_retained"
    if start == "after":
        start = {"after": request.start.after.sequence, "epoch": request.start.after.epoch.hex()}
    return {
        "session_id": request.session_id,
        "start": start,
        "on_gap": event_service_pb2.OnGap.Name(request.on_gap).removeprefix("ON_GAP_").lower(),
        "policy": request.policy.name,
        "with_snapshot": request.with_snapshot,
        "heartbeat_s": request.heartbeat_interval.ToNanoseconds() / 1e9,
    }


@asynccontextmanager
async def staged(scenario: Scenario, *, is_watched: bool = True) -> AsyncIterator[Stage]:
    """Run the gateway of a scenario. With `is_watched` the caller reports what the client hands out (`Stage.saw`)."""
    async with scripted_gateway() as gateway, fault_proxy(gateway.target) as relay:
        yield Stage(scenario, gateway, relay, is_watched=is_watched)
