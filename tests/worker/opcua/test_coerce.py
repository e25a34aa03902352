"""Conversions of written values."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import pytest
from asyncua import ua

from mxgw.convert import PyValue, to_value
from mxgw.v1 import values_pb2 as v
from mxgw_worker.backends.opcua.coerce import NodeType, NotWritable, to_variant

T = ua.VariantType


def written(value: PyValue, kind: ua.VariantType | None, rank: int = -1) -> object:
    variant = to_variant(to_value(value), NodeType(kind, rank))

    assert kind is None or variant.VariantType == kind
    return variant.Value


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        (3, T.Double, 3.0),
        (3.5, T.Int32, 4),
        (2.5, T.Int32, 2),
        ("12.5", T.Double, 12.5),
        ("12", T.UInt64, 12),
        (str(2**64 - 1), T.UInt64, 2**64 - 1),
        (True, T.Int16, -1),
        (7, T.Boolean, True),
        ("false", T.Boolean, False),
        (True, T.String, "True"),
        (1.5, T.String, "1.5"),
        (5, T.LocalizedText, ua.LocalizedText("5")),
        ("2018-01-15T10:00:00+00:00", T.DateTime, datetime(2018, 1, 15, 10, tzinfo=UTC)),
        (timedelta(seconds=1.5), T.Double, 1500.0),
        ("text", T.ByteString, b"text"),
        ("ns=2;s=a", T.NodeId, ua.NodeId("a", 2)),
        ("s=a;b=c", T.NodeId, ua.NodeId("a;b=c", 0)),
        ("ns=65535;i=4294967295", T.NodeId, ua.NodeId(2**32 - 1, 2**16 - 1)),
        ("g=00000000-0000-0000-0000-000000000001", T.NodeId, ua.NodeId(uuid.UUID(int=1), 0)),
        ("b=AP8=", T.NodeId, ua.NodeId(b"\x00\xff", 0)),
        ("{00000000-0000-0000-0000-00000000000A}", T.Guid, uuid.UUID(int=10)),
        ("2:urn:name", T.QualifiedName, ua.QualifiedName("urn:name", 2)),
        ("name", T.QualifiedName, ua.QualifiedName("name", 0)),
        ("<a>1</a>", T.XmlElement, ua.XmlElement("<a>1</a>")),
    ],
)
def test_values_take_the_form_of_the_node(value: PyValue, kind: ua.VariantType, expected: object) -> None:
    assert written(value, kind) == expected


@pytest.mark.parametrize(
    ("value", "kind", "detail"),
    [
        (256, T.Byte, 1004),
        (-1, T.UInt32, 1004),
        (2**31, T.Int32, 1004),
        (float("inf"), T.Int32, 1004),
        (float("nan"), T.Int32, 1004),
        (1e39, T.Float, 1004),
        ("abc", T.Double, 19),
        ("maybe", T.Boolean, 19),
        ("yesterday", T.DateTime, 19),
        ("nothing", T.Guid, 19),
        ("00000000_0000_0000_0000_000000000001", T.Guid, 19),
        ("0" * 32, T.Guid, 19),
        ("ns=70000;i=1", T.NodeId, 1004),
        ("i=4294967296", T.NodeId, 1004),
        ("i=-1", T.NodeId, 19),
        ("i=1_0", T.NodeId, 19),
        ("i=\u0661", T.NodeId, 19),
        ("ns=2", T.NodeId, 19),
        ("g=1", T.NodeId, 19),
        ("b=not base64", T.NodeId, 19),
        ("nsu=urn:plant;i=1", T.NodeId, 19),
        ("70000:name", T.QualifiedName, 1004),
        ("1_0:name", T.QualifiedName, 19),
        (1, T.NodeId, 18),
        (datetime(1600, 12, 31, tzinfo=UTC), T.DateTime, 1004),
        ("0001-01-01", T.DateTime, 1004),
        ("i=85", T.ExpandedNodeId, 18),
        (-1, T.StatusCode, 1004),
        ("Bad", T.StatusCode, 19),
        (b"\x00", T.Double, 18),
        (datetime(2018, 1, 1, tzinfo=UTC), T.Int32, 18),
        (1, T.ExtensionObject, 18),
        (None, T.Double, 13),
    ],
)
def test_what_does_not_fit_is_refused_with_its_detail(value: PyValue, kind: ua.VariantType, detail: int) -> None:
    with pytest.raises(NotWritable) as refused:
        written(value, kind)

    assert refused.value.detail == detail


def test_arrays_convert_element_by_element_and_keep_their_dimensions() -> None:
    assert written([1, 2], T.Double, rank=1) == [1.0, 2.0]
    assert written([], T.Int32, rank=1) == []
    matrix = to_value([1, 2, 3, 4, 5, 6])
    matrix.array.dimensions.extend([2, 3])
    variant = to_variant(matrix, NodeType(T.Double, 2))
    assert variant.Value == [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
    assert variant.Dimensions == [2, 3]


@pytest.mark.parametrize(("value", "rank"), [([1], -1), (1, 1), (1, 0), ([1, 2], 2)])
def test_the_wrong_number_of_dimensions_is_refused(value: PyValue, rank: int) -> None:
    with pytest.raises(NotWritable) as refused:
        written(value, T.Int32, rank)

    assert refused.value.detail == 14


def test_a_matrix_does_not_fit_a_node_of_a_scalar_or_one_dimension() -> None:
    value = to_value([1, 2, 3, 4])
    value.array.dimensions.extend([2, 2])

    assert to_variant(value, NodeType(T.Int32, -2)).Dimensions == [2, 2]
    with pytest.raises(NotWritable) as refused:
        to_variant(value, NodeType(T.Int32, -3))
    assert refused.value.detail == 14


def test_dimensions_that_do_not_multiply_to_the_elements_are_refused() -> None:
    value = to_value([1, 2, 3])
    value.array.dimensions.extend([2, 2])

    with pytest.raises(NotWritable):
        to_variant(value, NodeType(T.Int32, 2))


def test_a_node_of_any_type_takes_the_values_own() -> None:
    assert to_variant(to_value(1), NodeType(None, -2)).VariantType == T.Int32
    assert to_variant(to_value(2**40), NodeType(None, -2)).VariantType == T.Int64
    assert to_variant(to_value("a"), NodeType(None, -2)).VariantType == T.String
    assert to_variant(to_value([0.5]), NodeType(None, -2)).VariantType == T.Double
    assert to_variant(v.MxValue(array=v.MxArray(times=v.TimeArray())), NodeType(None, -2)).VariantType == T.DateTime


def test_elements_of_several_types_keep_theirs_in_a_node_of_any_type() -> None:
    for kind in (None, T.Variant):
        variant = to_variant(to_value([1, 2.5, "a"]), NodeType(kind, 1))

        assert variant.VariantType == T.Variant
        assert [(x.VariantType, x.Value) for x in variant.Value] == [(T.Int32, 1), (T.Double, 2.5), (T.String, "a")]


def test_a_single_value_for_a_node_of_variants_is_the_value_itself() -> None:
    assert to_variant(to_value(2.5), NodeType(T.Variant, -2)) == ua.Variant(2.5, T.Double)
