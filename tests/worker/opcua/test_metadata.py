"""What a server says about its variables."""

from __future__ import annotations

import math

import pytest
from asyncua import ua

from mxgw.v1 import commands_pb2 as c
from mxgw.v1 import values_pb2 as v
from mxgw_worker.backends import E_INVALIDARG, Describable, MxError
from mxgw_worker.backends.opcua import metadata

from .harness import NS, running_backend

CELSIUS = 4408652  # the number of this unit in the list of UN/CEFACT, as OPC 10000-8 has it


async def described(endpoint: str, *definitions: str) -> list[c.ItemMetadata | MxError]:
    async with running_backend(endpoint) as (backend, _):
        assert isinstance(backend, Describable)
        items = [c.ItemReference(item_definition=definition) for definition in definitions]
        answers = list(await backend.describe_items(items))

        assert len(answers) == len(items)
        return answers


@pytest.mark.asyncio
async def test_a_measurement_has_its_unit_its_ranges_and_its_description(demo: str) -> None:
    (told,) = await described(demo, f"{NS}Writable.Analog")

    assert isinstance(told, c.ItemMetadata)
    assert (told.data_type, told.source_data_type) == (v.MX_DATA_TYPE_DOUBLE, "Double")
    assert (told.is_array, told.readable, told.writeable) == (False, True, True)
    assert told.description == "Temperature of the furnace"
    assert told.engineering_units.symbol == "\u00b0C"
    assert told.engineering_units.unit_id == CELSIUS
    assert (told.range.low, told.range.high) == (-10.0, 50.0)
    assert (told.instrument_range.low, told.instrument_range.high) == (-40.0, 120.0)


@pytest.mark.asyncio
async def test_what_a_server_does_not_say_is_absent(demo: str) -> None:
    (told,) = await described(demo, "/Objects/Writable/Double")

    assert isinstance(told, c.ItemMetadata)
    assert told.display_name == "Double"
    for name in ("engineering_units", "range", "instrument_range"):
        assert not told.HasField(name)
    assert list(told.enumeration) == []
    assert told.security_classification == v.MX_SECURITY_CLASSIFICATION_UNSPECIFIED


@pytest.mark.asyncio
async def test_types_shapes_access_and_names_of_values_are_told(demo: str) -> None:
    names = ("UInt16", "UInt64", "DoubleArray", "Matrix", "ReadOnly", "Mode", "Guid")
    told = dict(zip(names, await described(demo, *(f"{NS}Writable.{name}" for name in names)), strict=True))
    assert all(isinstance(answer, c.ItemMetadata) for answer in told.values())
    of = {name: answer for name, answer in told.items() if isinstance(answer, c.ItemMetadata)}

    assert (of["UInt16"].source_data_type, of["UInt16"].data_type) == ("UInt16", v.MX_DATA_TYPE_INTEGER)
    assert (of["UInt64"].source_data_type, of["UInt64"].data_type) == ("UInt64", v.MX_DATA_TYPE_UNSPECIFIED)
    # A server may leave the number of dimensions open.
    assert (of["DoubleArray"].is_array, list(of["DoubleArray"].array_dimensions)) in ((True, [0]), (True, []))
    assert (of["Matrix"].is_array, list(of["Matrix"].array_dimensions)) in ((True, [0, 0]), (True, [2, 3]))
    assert (of["ReadOnly"].readable, of["ReadOnly"].writeable) == (True, False)
    assert (of["Mode"].source_data_type, of["Mode"].data_type) == ("Mode", v.MX_DATA_TYPE_INTEGER)
    assert [(entry.value, entry.name) for entry in of["Mode"].enumeration] == [(0, "Zero"), (1, "One"), (2, "Two")]
    assert of["Guid"].source_data_type == "Guid"


@pytest.mark.asyncio
async def test_what_is_no_variable_fails_alone_and_says_why(demo: str) -> None:
    good, nowhere, folder, again, malformed = await described(
        demo, f"{NS}Writable.Double", f"{NS}Nowhere", f"{NS}Writable", f"{NS}Writable.Double", "ns=2;i=x"
    )

    assert isinstance(good, c.ItemMetadata)
    assert good == again
    for answer, text in ((nowhere, "BadNodeIdUnknown"), (folder, "no variable"), (malformed, "BadNodeIdInvalid")):
        assert isinstance(answer, MxError)
        assert answer.hresult == E_INVALIDARG
        assert text in answer.message


def described_by(rank: object, **properties: object) -> c.ItemMetadata:
    row = [ua.DataValue(ua.Variant(rank, ua.VariantType.Int32) if rank is not None else None) for _ in range(8)]
    return metadata._metadata(row, 0, None, properties, {})


def test_what_makes_no_sense_is_left_out() -> None:
    assert not described_by(-1, EURange=ua.Range(math.nan, 1.0)).HasField("range")
    assert not described_by(-1, EURange="0 to 1").HasField("range")
    assert not described_by(-1, EngineeringUnits=ua.EUInformation()).HasField("engineering_units")
    assert list(described_by(2**31 - 1).array_dimensions) == []
    assert described_by(2**31 - 1).is_array
    assert not described_by(-2).HasField("is_array")
    assert not described_by(None).HasField("readable")
    assert not described_by(-1).HasField("minimum_sampling_interval")


def test_what_is_taken_over_is_bounded() -> None:
    units = ua.EUInformation("u" * 5000, 7, ua.LocalizedText("\udcff" * 5000), ua.LocalizedText(None))
    told = described_by(-1, EngineeringUnits=units, EnumStrings=[ua.LocalizedText("x")] * 5000)

    assert (len(told.engineering_units.namespace_uri), told.engineering_units.symbol) == (1024, "\ufffd" * 1024)
    assert len(told.enumeration) == 1000


def test_states_of_a_truth_value_and_values_of_an_enumeration_have_names() -> None:
    two = described_by(-1, TrueState=ua.LocalizedText("Open"), FalseState=ua.LocalizedText("Closed"))
    several = described_by(-1, EnumValues=[ua.EnumValueType(5, ua.LocalizedText("Five"))])

    assert [(entry.value, entry.name) for entry in two.enumeration] == [(0, "Closed"), (1, "Open")]
    assert [(entry.value, entry.name) for entry in several.enumeration] == [(5, "Five")]
