"""Positions as text, enums, values and statuses; what the package imports, and that all of it has docstrings."""

from __future__ import annotations

import subprocess
import sys

import pytest

import mxgw_client
from mxgw import convert
from mxgw.v1 import commands_pb2, event_service_pb2, events_pb2, session_service_pb2, values_pb2
from mxgw_client import Position, enums
from mxgw_client.values import status_from_message, value_of


def test_a_position_survives_text() -> None:
    position = Position(bytes(range(16)), 2**63)

    assert Position.from_text(position.to_text()) == position
    assert position.to_text() == "mxgw1.000102030405060708090a0b0c0d0e0f.9223372036854775808"
    assert Position.from_text(f"  {position.to_text()}\n") == position


@pytest.mark.parametrize(
    "text", ["", "mxgw1", "mxgw1..5", "mxgw2.00.5", "mxgw1.zz.5", "mxgw1.00.", "mxgw1.00.-5", "mxgw1.00.5x", "5"]
)
def test_what_is_no_position_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a position"):
        Position.from_text(text)


@pytest.mark.parametrize(
    ("ours", "contract"),
    [
        (enums.Quality, values_pb2.Quality),
        (enums.StatusCategory, values_pb2.MxStatusCategory),
        (enums.GapReason, events_pb2.GapReason),
        (enums.SourceHealth, events_pb2.SourceHealth),
        (enums.WorkerState, events_pb2.WorkerState),
        (enums.SessionState, session_service_pb2.SessionState),
        (enums.CloseReason, session_service_pb2.CloseReason),
        (enums.AdviseKind, session_service_pb2.AdviseKind),
        (enums.OnGap, event_service_pb2.OnGap),
        (enums.BrowseNodeKind, commands_pb2.BrowseNodeKind),
    ],
)
def test_the_enums_equal_the_contract(ours: type[enums._OpenEnum], contract: object) -> None:
    theirs = dict(contract.items())
    prefix = next(name for name, number in theirs.items() if number == 0).removesuffix("UNSPECIFIED")

    assert {prefix + member.name: member.value for member in ours} == theirs
    assert ours(9999) is ours(0)


def test_data_types_are_the_contracts_native_numbers() -> None:
    theirs = {
        name.removeprefix("MX_DATA_TYPE_"): number - 2 for name, number in values_pb2.MxDataType.items() if number
    }

    assert {member.name: member.value for member in enums.DataType} == theirs


@pytest.mark.parametrize("value", [True, 5, 2**40, 1.5, "x", b"\x00", None, [1.0, 2.0], ["a"], []])
def test_values_are_the_same_by_the_short_way(value: convert.PyValue) -> None:
    assert value_of(convert.to_value(value)) == value


def test_a_status_of_an_unknown_detail_keeps_its_number() -> None:
    status = status_from_message(convert.status(0, 4, 1, 4711))

    assert (status.detail, status.detail_name, status.ok) == (4711, "", False)
    assert str(status) == "failed, CONFIGURATION_ERROR, detail 4711"


def test_the_client_needs_neither_gateway_nor_worker_nor_what_they_are_made_of() -> None:
    code = "import sys, mxgw_client.sync, mxgw_client.errors; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    names = set(done.stdout.split())
    others = {"mxgw_core", "mxgw_worker", "asyncua", "click", "dynaconf", "pluggy", "pydantic", "rich", "uvloop"}

    assert {"mxgw", "mxgw_client", "grpc", "google"} <= names
    assert names & others == set()


def test_everything_public_has_a_docstring() -> None:
    for name in mxgw_client.__all__:
        assert getattr(mxgw_client, name).__doc__, name
