"""What each built-in type of OPC UA becomes. Every value goes through the library's encoding, as one from a server."""

from __future__ import annotations

import json
import math
import struct
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from asyncua import ua
from asyncua.common.utils import Buffer
from asyncua.ua.ua_binary import variant_from_binary, variant_to_binary

from mxgw.convert import from_value
from mxgw.v1.values_pb2 import MxValue
from mxgw_worker.backends.opcua import values
from mxgw_worker.backends.opcua.coerce import NodeType, to_variant

T = ua.VariantType
NAN, INF = math.nan, math.inf
STATUS = 0x80AB1234


def received(variant: ua.Variant) -> MxValue:
    return of_bytes(variant_to_binary(variant))


def of_bytes(data: bytes) -> MxValue:
    message = values.to_mx(variant_from_binary(Buffer(data)))

    assert MxValue.FromString(message.SerializeToString()) == message
    return message


def strict(text: str) -> Any:
    """Read JSON as RFC 8259 defines it: Python's reader would take NaN, too."""

    def refuse(name: str) -> None:
        raise ValueError(name)

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (T.XmlElement, ua.XmlElement("<a>1</a>"), "<a>1</a>"),
        (T.XmlElement, ua.XmlElement(None), ""),
        (T.StatusCode, ua.StatusCode(0x80AB1234), "BadInvalidArgument (0x80AB1234)"),
        (T.StatusCode, ua.StatusCode(0), "Good (0x00000000)"),
        (T.StatusCode, ua.StatusCode(0x9ABC0001), "Bad (0x9ABC0001)"),
        (T.LocalizedText, ua.LocalizedText("Text", "en"), "Text"),
        (T.LocalizedText, ua.LocalizedText(None), ""),
        (T.QualifiedName, ua.QualifiedName("a:b", 2), "2:a:b"),
        (T.QualifiedName, ua.QualifiedName(None, 2), "2:"),
        (T.Guid, uuid.UUID(int=10), "00000000-0000-0000-0000-00000000000a"),
        (T.NodeId, ua.NodeId("a", 2), "ns=2;s=a"),
        (T.NodeId, ua.NodeId(b"\x00\xff", 2), "ns=2;b=AP8="),
        (T.ExpandedNodeId, ua.ExpandedNodeId(7, 3), "ns=3;i=7"),
        (T.ExpandedNodeId, ua.ExpandedNodeId("a;b", 3, NamespaceUri="urn:a;b%"), "nsu=urn:a%3Bb%25;s=a;b"),
        (T.ExpandedNodeId, ua.ExpandedNodeId(7, 3, NamespaceUri="urn:a", ServerIndex=2), "svr=2;nsu=urn:a;i=7"),
        (T.ByteString, b"\x00\xff", b"\x00\xff"),
        (T.ByteString, b"", b""),
        (T.ByteString, None, None),
        (T.String, None, None),
        (T.String, "", ""),
        (T.UInt64, 2**63 - 1, 2**63 - 1),
        (T.UInt64, 2**63, str(2**63)),
        (T.DateTime, datetime(1601, 1, 1, tzinfo=UTC), datetime(1601, 1, 1, tzinfo=UTC)),
        (T.DateTime, datetime(9999, 12, 31, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)),
        (T.Double, INF, INF),
        (T.ExtensionObject, ua.ExtensionObject(), None),
        (T.ExtensionObject, ua.ExtensionObject(ua.NodeId(5, 5), b"ab"), b"ab"),
        (T.ExtensionObject, ua.ExtensionObject(ua.NodeId(5, 5), b""), b""),
    ],
)
def test_a_value_becomes_what_the_page_says(kind: ua.VariantType, value: Any, expected: object) -> None:
    assert from_value(received(ua.Variant(value, kind))) == expected
    if value is not None and value != ua.ExtensionObject():
        array = received(ua.Variant([value, value], kind))

        assert from_value(array) == [expected, expected]


@pytest.mark.parametrize("kind", [T.XmlElement, T.StatusCode, T.NodeId, T.QualifiedName, T.Guid])
def test_what_is_read_as_text_can_be_written_as_it_was_read(kind: ua.VariantType) -> None:
    value = {
        T.XmlElement: ua.XmlElement("<a>1</a>"),
        T.StatusCode: ua.StatusCode(0x80AB1234),
        T.NodeId: ua.NodeId("a", 2),
        T.QualifiedName: ua.QualifiedName("a:b", 2),
        T.Guid: uuid.UUID(int=10),
    }[kind]

    assert to_variant(received(ua.Variant(value, kind)), NodeType(kind, -1)) == ua.Variant(value, kind)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (ua.Range(NAN, 1.0), {"Low": "NaN", "High": 1.0}),
        (ua.Range(-INF, INF), {"Low": "-Infinity", "High": "Infinity"}),
        (
            ua.EUInformation("urn:units", -1, ua.LocalizedText("\u00b0C"), ua.LocalizedText("degree")),
            {"NamespaceUri": "urn:units", "UnitId": -1, "DisplayName": "\u00b0C", "Description": "degree"},
        ),
        (
            ua.Argument("x", ua.NodeId(11), -1, [], ua.LocalizedText("")),
            {"Name": "x", "DataType": "i=11", "ValueRank": -1, "ArrayDimensions": [], "Description": ""},
        ),
        (ua.EnumValueType(2**63 - 1), {"Value": str(2**63 - 1), "DisplayName": "", "Description": ""}),
        (ua.StatusResult(ua.StatusCode(STATUS)), {"StatusCode": "BadInvalidArgument (0x80AB1234)"}),
    ],
)
def test_a_structure_is_json_that_a_strict_reader_takes(value: Any, expected: object) -> None:
    message = received(ua.Variant(value, T.ExtensionObject))

    assert {key: strict(message.string)[key] for key in expected} == expected  # type: ignore[attr-defined]
    array = received(ua.Variant([value], T.ExtensionObject))
    assert from_value(array) == [message.string]


def test_every_kind_of_field_is_json() -> None:
    @dataclass
    class Union:
        Encoding: int = field(default=0, init=True)
        Value: object = None

    @dataclass
    class Everything:
        Encoding: int = field(default=0, repr=False, init=False, compare=False)
        TypeId: object = None
        Fields: object = None

    fields = [
        ua.Variant([NAN, 2.0], T.Double),
        ua.DataValue(ua.Variant(1.5, T.Double), ua.StatusCode(STATUS), datetime(2018, 1, 15, tzinfo=UTC)),
        ua.ExtensionObject(ua.NodeId(5, 5), b"ab"),
        ua.ServerState.Running,
        uuid.UUID(int=1),
        b"\x00\xff",
        "\udcff",
        2**53,
        -(2**53) + 1,
        True,
        Union(2, "x"),
    ]
    message = values.to_mx(ua.Variant(Everything(ua.NodeId(1), fields), T.ExtensionObject))
    told = strict(message.string)

    assert list(told) == ["TypeId", "Fields"]
    assert told["TypeId"] == "i=1"
    assert told["Fields"][0] == ["NaN", 2.0]
    assert told["Fields"][1]["StatusCode"] == "BadInvalidArgument (0x80AB1234)"
    assert told["Fields"][1]["SourceTimestamp"] == "2018-01-15T00:00:00+00:00"
    assert told["Fields"][2:] == [
        {"TypeId": "ns=5;i=5", "Body": "6162"},
        0,
        "00000000-0000-0000-0000-000000000001",
        "00ff",
        "\ufffd",
        str(2**53),
        -(2**53) + 1,
        True,
        {"Encoding": 2, "Value": "x"},
    ]


def test_a_datavalue_keeps_its_status() -> None:
    value = ua.DataValue(ua.Variant(NAN, T.Double), ua.StatusCode(STATUS))
    told = strict(received(ua.Variant(value, T.DataValue)).string)

    assert (told["Value"], told["StatusCode"]) == ("NaN", "BadInvalidArgument (0x80AB1234)")
    assert strict(received(ua.Variant([value], T.DataValue)).array.strings.elements[0]) == told


def test_diagnostics_are_json() -> None:
    told = strict(received(ua.Variant(ua.DiagnosticInfo(AdditionalInfo="x"), T.DiagnosticInfo)).string)

    assert told["AdditionalInfo"] == "x"


def test_structures_and_arrays_of_any_depth_are_values_that_a_client_can_read() -> None:
    info = ua.DiagnosticInfo(AdditionalInfo="x")
    for _ in range(300):
        info = ua.DiagnosticInfo(InnerDiagnosticInfo=info)
    assert "(nested too deeply)" in values.to_mx(ua.Variant(info, T.DiagnosticInfo)).string
    variant = ua.Variant([ua.Variant(7, T.Int32)], T.Variant)
    for _ in range(60):
        variant = ua.Variant([variant], T.Variant)
    message = received(variant)

    value = from_value(message)
    depth = 0
    while isinstance(value, list):
        (value,) = value
        depth += 1
    assert depth == 8
    assert isinstance(value, str)
    assert strict(value.replace("[", "").replace("]", "")) == 7


@pytest.mark.parametrize("kind", [T.String, T.XmlElement, T.LocalizedText, T.QualifiedName, T.NodeId])
def test_bytes_that_are_no_utf_8_are_replaced_in_every_text(kind: ua.VariantType) -> None:
    bad = "\udcffa"
    value = {
        T.String: bad,
        T.XmlElement: ua.XmlElement(bad),
        T.LocalizedText: ua.LocalizedText(bad),
        T.QualifiedName: ua.QualifiedName(bad, 0),
        T.NodeId: ua.NodeId(bad, 0),
    }[kind]

    assert received(ua.Variant(value, kind)).string.endswith("\ufffda")
    assert received(ua.Variant([value], kind)).array.strings.elements[0].endswith("\ufffda")


def test_a_null_text_among_texts_is_an_element_without_a_value() -> None:
    assert from_value(received(ua.Variant(["a", None], T.String))) == ["a", None]
    assert from_value(received(ua.Variant([b"a", None], T.ByteString))) == [b"a", None]


def test_variants_in_an_array_keep_their_types() -> None:
    variants = [ua.Variant(1, T.Int32), ua.Variant("a", T.String), ua.Variant(None), ua.Variant([0.5], T.Double)]
    message = received(ua.Variant(variants, T.Variant))

    assert from_value(message) == [1, "a", None, [0.5]]
    assert [element.raw_data_type for element in message.array.values.elements] == [2, 5, 0, 4]


def array_of_int32(elements: list[int], dimensions: list[int]) -> bytes:
    return b"\xc6" + b"".join(struct.pack(f"<i{len(x)}i", len(x), *x) for x in (elements, dimensions))


@pytest.mark.parametrize(
    ("elements", "dimensions", "told_elements", "told_dimensions"),
    [
        ([1, 2, 3, 4], [2, 2], [1, 2, 3, 4], [2, 2]),
        ([], [2, 0], [], [2, 0]),
        ([1, 2], [2], [1, 2], []),
        ([1, 2], [3], [1, 2], []),
        ([1, 2, 3], [2, 2], [1, 2, 3], []),
        ([1, 2, 3, 4, 5], [2, 2], [1, 2, 3, 4, 5], []),
        ([1, 2], [-1, -1], None, []),
    ],
)
def test_dimensions_that_do_not_fit_are_left_out(
    elements: list[int], dimensions: list[int], told_elements: list[int] | None, told_dimensions: list[int]
) -> None:
    message = of_bytes(array_of_int32(elements, dimensions))

    assert told_elements is None or from_value(message) == told_elements
    assert list(message.array.dimensions) == told_dimensions


@pytest.mark.parametrize("kind", list(T))
def test_no_type_raises_as_an_empty_array_or_a_buffered_one(kind: ua.VariantType) -> None:
    variant = variant_from_binary(Buffer(bytes([0x80 | kind]) + b"\0\0\0\0"))

    assert from_value(values.to_mx(variant)) == []
    assert from_value(values.to_mx_array([variant, None])[0]) == [[], None]


def test_buffered_statuscodes_are_texts() -> None:
    array, data_type = values.to_mx_array([ua.Variant(ua.StatusCode(STATUS), T.StatusCode)] * 2)

    assert (from_value(array), data_type) == (["BadInvalidArgument (0x80AB1234)"] * 2, 0)
