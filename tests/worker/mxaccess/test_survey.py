"""The survey of a machine with MXAccess, on the double in Python: what it finds, and what it leaves alone."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import threading
from collections.abc import Mapping
from typing import Any

import pytest
from support.mxaccess.python_double import PythonDouble, ThreadPump

from mxgw.v1.values_pb2 import MxValue
from mxgw_worker.backends.base import BackendUnavailable
from mxgw_worker.backends.mxaccess.com import Com
from mxgw_worker.backends.mxaccess.survey.client import Client, Request
from mxgw_worker.backends.mxaccess.survey.recording import Recorder, vartype_name
from mxgw_worker.backends.mxaccess.survey.run import Survey
from mxgw_worker.backends.mxaccess.survey.steps import START, STEPS
from mxgw_worker.backends.mxaccess.survey.zones import zone_of

pytestmark = pytest.mark.asyncio

_SIM = {"resolve_delay_s": 0.001, "completion_delay_s": 0.001}
_REQUEST = Request("Bench_001", ["Tank_001.Level"], patience_s=5.0, quiet_s=0.02, call_limit_s=5.0)


class _Double(PythonDouble):
    """Knows what was written: reference and value."""

    def __init__(self, *arguments: Any, **knobs: Any) -> None:
        super().__init__(*arguments, **knobs)
        self.references: dict[tuple[int, int], str] = {}
        self.written: list[str] = []

    def add_item(self, server_handle: int, item_definition: str) -> int:
        handle = super().add_item(server_handle, item_definition)
        self.references[server_handle, handle] = item_definition
        return handle

    def write(self, server_handle: int, item_handle: int, value: MxValue, user_id: int) -> None:
        self.written.append(self.references[server_handle, item_handle])
        super().write(server_handle, item_handle, value, user_id)

    def write2(self, server_handle: int, item_handle: int, value: MxValue, time_ns: int | None, user_id: int) -> None:
        self.written.append(self.references[server_handle, item_handle])
        super().write2(server_handle, item_handle, value, time_ns, user_id)


class Surveyed:
    """What a survey has reported. `ends` has the last report of each step."""

    def __init__(self) -> None:
        self.double: _Double | None = None
        self.plan: list[str] = []
        self.begun: list[str] = []
        self.ends: dict[str, dict[str, Any]] = {}
        self.is_over = False

    def take(self, report: Mapping[str, object]) -> None:
        copied = json.loads(json.dumps(report))  # as it goes to the command
        self.plan = copied.get("plan", self.plan)
        if "begin" in copied:
            assert copied["question"]
            assert copied["limit_s"] > 0
            self.begun.append(copied["begin"])
        if "end" in copied:
            self.ends[copied["end"]] = copied

    def outcomes(self, *, without: str = "answered") -> dict[str, str]:
        return {name: end["answer"] for name, end in self.ends.items() if end["outcome"] != without}


async def survey(request: Request, done: tuple[str, ...] = (), **knobs: Any) -> Surveyed:
    surveyed = Surveyed()
    pump = ThreadPump()

    def connect(recorder: Recorder) -> Com:
        surveyed.double = _Double(recorder, pump, _SIM, **knobs)
        return surveyed.double

    surveyed.is_over = await Survey(request, surveyed.take, connect, pump, done).run()
    return surveyed


@pytest.fixture(scope="module")
def surveyed() -> Surveyed:
    return asyncio.run(survey(dataclasses.replace(_REQUEST, tags=["Tank_001.Level", "Bench_001.Constant"])))


async def test_every_question_is_answered_and_only_the_scratch_object_is_written(surveyed: Surveyed) -> None:
    assert surveyed.is_over
    assert surveyed.outcomes() == {}
    assert [name for name in surveyed.plan if name != "registration"] == surveyed.begun == list(surveyed.ends)
    assert surveyed.double is not None
    assert len(surveyed.double.written) > 40
    assert {reference.partition(".")[0] for reference in surveyed.double.written} == {"Bench_001"}
    assert surveyed.double.calls[-2:] == ["unregister", "release"]


async def test_the_answers_are_those_of_the_double(surveyed: Surveyed) -> None:
    found = surveyed.ends
    facts = {name: end["facts"] for name, end in found.items()}

    assert facts["start"]["object"] == {"version": 5}
    assert facts["wrong names"]["items"][0]["events"][-1]["statuses"][0]["detail"] == 8
    assert found["handles"]["answer"].startswith("handles 1, 2, 3; the one that was removed is given out again")
    assert facts["tags"]["Tank_001.Level"]["events"][0]["statuses"][0]["detail"] == 11
    assert facts["tags"]["Tank_001.Level"]["events_before_it"] == 1
    assert "Counts" in facts["attributes"]["names"]
    assert {name: facts["types"][name]["value_type"] for name in ("Flag", "Count", "Ratio", "Amounts[]")} == {
        "Flag": "VT_BOOL",
        "Count": "VT_I4",
        "Ratio": "VT_R4",
        "Amounts[]": "VT_ARRAY|VT_R8",
    }
    assert [facts["types"][name]["data_type"] for name in ("Flag", "Count", "Ratio", "Text", "Span")] == [1, 2, 3, 5, 7]
    assert "an array without []: success 0, category 4, detected by 5, detail 1003" in found["references"]["answer"]
    assert facts["early write"]["before_advise"]["hresult"] == "E_INVALIDARG, 0x80070057"
    assert [entry["is_reported_as_written"] for entry in facts["writes"]["Text"]] == [True, True]
    assert [entry["is_reported_as_written"] for entry in facts["writes"]["Counts[]"]] == [True]
    assert "2.5 becomes 2;" in found["conversions"]["answer"]
    assert "detail 19" in found["conversions"]["answer"]
    assert facts["completion"]["write_to_completion_ms"]["median"] >= 1.0
    assert found["completion"]["answer"].endswith("two writes in flight: 2 completions")
    assert facts["times"]["zone_of_times"] in ("utc", "undecided: the zone of this machine is UTC")
    assert facts["times"]["write2"]["event"]["times_as_if_utc"] == ["2023-11-14T22:13:20.250"]
    assert [part.rpartition(" ")[2] for part in found["suspend"]["answer"].split("; ")] == ["0", "1", "0"]
    assert found["suspend"]["answer"].startswith("Suspend returns category 1, OperationComplete with ok")
    assert "data type 2, values as VT_ARRAY|VT_I4" in found["buffered"]["answer"]
    assert found["taking down"]["answer"].startswith("events after UnAdvise: 0; a Write then fails with E_INVALIDARG")


async def test_without_a_scratch_object_nothing_is_written_and_without_a_tag_nothing_is_read() -> None:
    surveyed = await survey(dataclasses.replace(_REQUEST, scratch="", tags=()))
    left_out = {name for name, end in surveyed.ends.items() if end["outcome"] == "left out"}

    assert left_out == {step.name for step in STEPS} - {"wrong names", "handles"}
    assert surveyed.ends["writes"]["answer"] == "needs an object to write to: --scratch Object"
    assert surveyed.ends["tags"]["answer"] == "needs a tag to read: --tag Object.Attribute"
    assert surveyed.double is not None
    assert set(surveyed.double.calls) == {
        "register", "unregister", "add_item", "advise", "un_advise", "remove_item", "release",
    }  # fmt: skip
    assert {name.partition(".")[0] for name in surveyed.double.references.values()} == {"MxgwDoctorAsksForNobody"}


async def test_values_are_kept_of_the_scratch_object_and_of_nothing_else(surveyed: Surveyed) -> None:
    kept = {name: json.dumps(end["facts"]) for name, end in surveyed.ends.items()}

    assert surveyed.ends["types"]["facts"]["Count"]["value"] == "0"
    assert surveyed.ends["tags"]["facts"]["Bench_001.Constant"]["events"][-1]["value_type"] == "VT_I4"
    assert [name for name, text in kept.items() if '"value"' in text and name in ("tags", "attributes")] == []


async def test_a_write_to_another_object_is_refused() -> None:
    pump = ThreadPump()
    client = Client(lambda recorder: _Double(recorder, pump, _SIM), pump, _REQUEST)
    await client.start()
    await client.register()
    try:
        for reference in ("Bench_0011.Count", "Tank_001.Level", "Bench_001"):
            _, item = await client.add(reference)
            with pytest.raises(PermissionError, match="is not of the scratch object"):
                await client.write(item, 1)
    finally:
        await client.end()


async def test_a_scratch_object_that_does_not_exist_is_said_at_each_question() -> None:
    surveyed = await survey(dataclasses.replace(_REQUEST, scratch="Nobody"))

    assert surveyed.ends["attributes"]["outcome"] == "not seen"
    assert "Nobody._Attributes fails with" in surveyed.ends["attributes"]["answer"]
    assert "Nobody.Count fails with success 0" in surveyed.ends["completion"]["answer"]
    assert surveyed.double is not None
    assert surveyed.double.written == ["Nobody.Count"] * 2  # the early ones, which MXAccess refuses


async def test_a_missing_licence_is_told_in_the_words_of_the_call() -> None:
    surveyed = await survey(_REQUEST, denied=["MxgwDoctorAsksForNobody.Nothing"])

    assert "AddItem fails with E_ACCESSDENIED, 0x80070005" in surveyed.ends["wrong names"]["answer"]
    assert surveyed.ends["handles"]["outcome"] == "not seen"


async def test_an_object_that_cannot_be_made_is_told_and_the_rest_is_left_out() -> None:
    def connect(_: Recorder) -> Com:
        raise BackendUnavailable("MXAccess is not installed on this machine")

    surveyed = Surveyed()
    await Survey(_REQUEST, surveyed.take, connect, ThreadPump()).run()

    assert surveyed.ends["start"]["outcome"] == "failed"
    assert surveyed.ends["start"]["answer"] == "MXAccess is not installed on this machine"
    assert surveyed.ends["writes"]["answer"] == "there is no object to ask"


async def test_an_older_object_has_no_buffered_items_and_says_so() -> None:
    surveyed = await survey(_REQUEST, version=3)

    assert surveyed.ends["buffered"]["outcome"] == "not seen"
    assert "E_NOTIMPL" in surveyed.ends["buffered"]["answer"]
    assert surveyed.ends["suspend"]["outcome"] == "not seen"
    assert "Write2" not in surveyed.ends["times"]["answer"]


async def test_a_call_that_hangs_is_told_and_the_rest_can_be_asked_in_another_process() -> None:
    released = threading.Event()
    request = dataclasses.replace(_REQUEST, call_limit_s=0.2)
    surveyed = await survey(request, hanging=["remove_item"], released=released)
    released.set()
    hung = list(surveyed.ends)[-1]

    assert not surveyed.is_over
    assert (hung, surveyed.ends[hung]["outcome"]) == ("tags", "hung")
    assert "MXAccess has not returned from RemoveItem for" in surveyed.ends[hung]["answer"]

    later = await survey(_REQUEST, done=("machine", START.name, "tags"))

    assert later.is_over
    assert later.begun == [step.name for step in STEPS if step.name != "tags"]
    assert later.outcomes() == {}


async def test_an_item_that_reports_nothing_is_told() -> None:
    surveyed = await survey(
        dataclasses.replace(_REQUEST, scratch="", tags=["Tank_001.Level"], patience_s=0.05), silent=["Tank_001.Level"]
    )

    assert surveyed.ends["tags"]["answer"] == "Tank_001.Level has reported nothing for 0.05 s"


HOUR_S = 3600


@pytest.mark.parametrize(
    ("time_s", "ahead_s", "zone"),
    [
        (0, 2 * HOUR_S, "utc"),
        (2 * HOUR_S - 1, 2 * HOUR_S, "local"),
        (-5 * HOUR_S, -5 * HOUR_S, "local"),
        (1, 0, "undecided: the zone of this machine is UTC"),
        (900, 2 * HOUR_S, "neither: +900 s from UTC, -6300 s from local time"),
        (None, HOUR_S, "no time"),
    ],
)
async def test_the_zone_of_a_time_is_told_by_the_clock(time_s: int | None, ahead_s: int, zone: str) -> None:
    clock_ns = 1_700_000_000_000_000_000
    time_ns = None if time_s is None else clock_ns + time_s * 10**9

    assert zone_of(time_ns, clock_ns, ahead_s) == zone


@pytest.mark.parametrize(
    ("vt", "name"), [(3, "VT_I4"), (0x2005, "VT_ARRAY|VT_R8"), (0x6024, "VT_BYREF|VT_ARRAY|VT_RECORD"), (99, "0x63")]
)
async def test_types_are_named_as_in_the_documentation_of_com(vt: int, name: str) -> None:
    assert vartype_name(vt) == name
