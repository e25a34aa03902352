"""VARIANTs are read and made as OLE Automation lays them out: every type, both ways."""

from __future__ import annotations

import ctypes
import math
import struct
import sys
import time
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.mxaccess.memory import PlainMemory

from mxgw.convert import timestamp_from_datetime
from mxgw.v1.values_pb2 import (
    BooleanArray,
    DoubleArray,
    FloatArray,
    IntegerArray,
    LongArray,
    MxArray,
    MxValue,
    StringArray,
    TimeArray,
    ValueArray,
)
from mxgw_worker.backends.base import E_INVALIDARG, MxError
from mxgw_worker.backends.mxaccess.dates import Dates
from mxgw_worker.backends.mxaccess.make_variant import VariantMaker
from mxgw_worker.backends.mxaccess.read_variant import VariantReader
from mxgw_worker.backends.mxaccess.variant_layout import (
    ARRAY,
    BYREF,
    MOST_ELEMENTS,
    SIZE,
    Unreadable,
    VarType,
    statuses,
)

UTC_DATES = Dates(local=False)


def _date_of_text(text: str) -> float:
    """Stand in for COM, which converts such texts in the language of the user."""
    return UTC_DATES.date(int(datetime.strptime(text, "%m/%d/%Y %I:%M:%S %p").replace(tzinfo=UTC).timestamp()) * 10**9)


READER = VariantReader(UTC_DATES, _date_of_text)


@pytest.fixture
def memory() -> PlainMemory:
    return PlainMemory()


def _written(memory: PlainMemory, value: MxValue) -> int:
    address = memory.variant()
    VariantMaker(UTC_DATES, memory, lambda: 0).fill(address, value)
    return address


def _ms(ns: int) -> datetime:
    return datetime.fromtimestamp(ns / 1e9, UTC)


@pytest.mark.parametrize(
    ("vt", "value", "expected"),
    [
        (VarType.EMPTY, b"", MxValue()),
        (VarType.NULL, b"", MxValue()),
        (VarType.I2, struct.pack("<h", -2), MxValue(integer=-2)),
        (VarType.I4, struct.pack("<i", -(2**31)), MxValue(integer=-(2**31))),
        (VarType.I1, b"\xff", MxValue(integer=-1)),
        (VarType.UI1, b"\xff", MxValue(integer=255)),
        (VarType.UI2, b"\xff\xff", MxValue(integer=65535)),
        (VarType.INT, struct.pack("<i", 7), MxValue(integer=7)),
        (VarType.ERROR, struct.pack("<i", -2147467259), MxValue(integer=-2147467259)),
        (VarType.UI4, b"\xff" * 4, MxValue(long=2**32 - 1)),
        (VarType.UINT, b"\xff" * 4, MxValue(long=2**32 - 1)),
        (VarType.I8, struct.pack("<q", 1 << 40), MxValue(long=1 << 40)),
        (VarType.UI8, struct.pack("<Q", 2**63 - 1), MxValue(long=2**63 - 1)),
        (VarType.UI8, b"\xff" * 8, MxValue(string="18446744073709551615")),
        (VarType.R4, struct.pack("<f", 1.5), MxValue(float=1.5)),
        (VarType.R8, struct.pack("<d", 2.25), MxValue(double=2.25)),
        (VarType.BOOL, b"\xff\xff", MxValue(boolean=True)),
        (VarType.BOOL, b"\0\0", MxValue(boolean=False)),
        (VarType.BOOL, b"\1\0", MxValue(boolean=True)),
        (VarType.CY, struct.pack("<q", 123456), MxValue(double=12.3456)),
        (VarType.DATE, struct.pack("<d", 25569.5), MxValue(time={"seconds": 43200})),
        (VarType.DATE, struct.pack("<d", -1.25), MxValue(time={"seconds": -2209248000 + 21600})),
        (VarType.DATE, struct.pack("<d", -700000.0), MxValue(double=-700000.0)),
        (VarType.FILETIME, struct.pack("<q", 116444736000000000), MxValue(time={})),
        (VarType.FILETIME, struct.pack("<q", -(2**62)), MxValue(long=-(2**62))),
        (9, b"\0" * 8, MxValue()),  # VT_DISPATCH: an object is no value
        (13, b"\0" * 8, MxValue()),  # VT_UNKNOWN
    ],
)
def test_every_scalar_is_read_also_by_reference(memory: PlainMemory, vt: int, value: bytes, expected: MxValue) -> None:
    expected.variant_type = vt

    assert READER.value(memory.variant(vt, value)) == expected
    if vt not in (VarType.EMPTY, VarType.NULL):
        referred = memory.variant(vt | BYREF, memory.pointer(memory.bytes(value)))
        assert READER.value(referred) == expected


def test_a_date_that_is_not_a_number_is_the_double_that_it_is(memory: PlainMemory) -> None:
    value = READER.value(memory.variant(VarType.DATE, struct.pack("<d", math.nan)))

    assert math.isnan(value.double)


def test_a_decimal_is_read_over_the_whole_variant(memory: PlainMemory) -> None:
    scaled = struct.pack("<HBBIQ", VarType.DECIMAL, 3, 0x80, 1, 5)
    address = memory.bytes(scaled.ljust(SIZE, b"\0"))

    assert READER.value(address) == MxValue(double=-(2**64 + 5) / 1000, variant_type=VarType.DECIMAL)


@pytest.mark.parametrize("text", ["", "plain", "grüß Ж", "a\0b", "\N{GRINNING FACE}"])
def test_texts_are_read_whole(memory: PlainMemory, text: str) -> None:
    value = memory.variant(VarType.BSTR, memory.pointer(memory.text(text)))

    assert READER.value(value) == MxValue(string=text, variant_type=VarType.BSTR)


def test_no_text_is_an_empty_text_and_half_a_pair_is_replaced(memory: PlainMemory) -> None:
    assert READER.value(memory.variant(VarType.BSTR)).string == ""
    assert READER.value(memory.variant(VarType.BSTR, memory.pointer(memory.text("a\ud800b")))).string == "a\ufffdb"


NOON = timestamp_from_datetime(datetime(2023, 3, 15, 12, tzinfo=UTC))


@pytest.mark.parametrize(
    ("vt", "elements", "expected"),
    [
        (VarType.I4, struct.pack("<3i", 1, 2, -3), MxArray(integers=IntegerArray(elements=[1, 2, -3]))),
        (VarType.I2, struct.pack("<2h", 1, -2), MxArray(integers=IntegerArray(elements=[1, -2]))),
        (VarType.UI1, b"\x01\xff", MxArray(integers=IntegerArray(elements=[1, 255]))),
        (VarType.UI4, b"\xff" * 4, MxArray(longs=LongArray(elements=[2**32 - 1]))),
        (VarType.ERROR, struct.pack("<i", -1), MxArray(integers=IntegerArray(elements=[-1]))),
        (VarType.R4, struct.pack("<2f", 0.5, 1), MxArray(floats=FloatArray(elements=[0.5, 1]))),
        (VarType.R8, struct.pack("<2d", 0.5, 1.5), MxArray(doubles=DoubleArray(elements=[0.5, 1.5]))),
        (VarType.CY, struct.pack("<q", 15000), MxArray(doubles=DoubleArray(elements=[1.5]))),
        (VarType.BOOL, b"\xff\xff\0\0", MxArray(booleans=BooleanArray(elements=[True, False]))),
        (VarType.DATE, struct.pack("<d", 45000.5), MxArray(times=TimeArray(elements=[NOON]))),
        (
            VarType.DATE,
            struct.pack("<2d", 45000.5, 1e9),
            MxArray(
                values=ValueArray(
                    elements=[MxValue(time=NOON, variant_type=7), MxValue(double=1e9, variant_type=7)],
                )
            ),
        ),
        (
            VarType.UI8,
            struct.pack("<2Q", 1, 2**64 - 1),
            MxArray(
                values=ValueArray(
                    elements=[
                        MxValue(long=1, variant_type=21),
                        MxValue(string="18446744073709551615", variant_type=21),
                    ],
                )
            ),
        ),
    ],
)
def test_arrays_of_every_type_are_read_also_by_reference(
    memory: PlainMemory, vt: VarType, elements: bytes, expected: MxArray
) -> None:
    (field,) = (field for field, _ in expected.ListFields())
    count = len(getattr(expected, field.name).elements)
    for by_reference in (False, True):
        address = memory.array_variant(vt, elements, count, by_reference=by_reference)

        assert READER.value(address) == MxValue(array=expected, variant_type=ARRAY | vt)


def test_arrays_of_texts_and_variants_are_read(memory: PlainMemory) -> None:
    texts = b"".join(memory.pointer(memory.text(text)) for text in ("a", "ü"))
    assert list(READER.value(memory.array_variant(VarType.BSTR, texts, 2)).array.strings.elements) == ["a", "ü"]

    raw = b"".join(
        (struct.pack("<H6x", vt) + value).ljust(SIZE, b"\0")
        for vt, value in ((VarType.I4, struct.pack("<i", 7)), (VarType.BSTR, memory.pointer(memory.text("x"))))
    )
    assert list(READER.value(memory.array_variant(VarType.VARIANT, raw, 2)).array.values.elements) == [
        MxValue(integer=7, variant_type=VarType.I4),
        MxValue(string="x", variant_type=VarType.BSTR),
    ]


def test_an_array_without_elements_keeps_its_kind(memory: PlainMemory) -> None:
    for address in (memory.array_variant(VarType.I4, b"", 0), memory.variant(ARRAY | VarType.I4)):
        value = READER.value(address)

        assert value.array.WhichOneof("elements") == "integers"
        assert not value.array.integers.elements


def test_an_array_of_two_dimensions_is_turned_into_rows(memory: PlainMemory) -> None:
    # Element [i][j] is 10 i + j. In memory the first index varies fastest.
    stored = struct.pack("<6i", 0, 10, 1, 11, 2, 12)
    value = READER.value(memory.array_variant(VarType.I4, stored, 2, 3))

    assert list(value.array.dimensions) == [2, 3]
    assert list(value.array.integers.elements) == [0, 1, 2, 10, 11, 12]


def _itself(memory: PlainMemory) -> int:
    """Return the address of a VARIANT that refers to itself."""
    address = memory.variant(BYREF | VarType.VARIANT)
    ctypes.memmove(address + 8, memory.pointer(address), ctypes.sizeof(ctypes.c_void_p))
    return address


@pytest.mark.parametrize(
    "address",
    [
        lambda memory: memory.variant(BYREF | VarType.I4),
        lambda memory: memory.array_variant(VarType.I4, b"", MOST_ELEMENTS + 1),
        lambda memory: memory.array_variant(VarType.I4, b"", 1, element_size=2),
        lambda memory: memory.array_variant(VarType.VARIANT, b"", *[1] * 65),
        _itself,
        lambda memory: memory.bytes(struct.pack("<HBBIQ", VarType.DECIMAL, 29, 0, 0, 1).ljust(SIZE, b"\0")),
    ],
)
def test_memory_that_is_no_value_is_refused_in_words(memory: PlainMemory, address: object) -> None:
    assert callable(address)
    with pytest.raises(Unreadable, match=r"\w+ \w+"):
        READER.value(address(memory))


def test_statuses_keep_all_four_fields(memory: PlainMemory) -> None:
    given = ((-1, 0, 1, 0), (0, 4, -1, 1003))

    for by_reference in (True, False):
        assert statuses(memory.statuses(*given, by_reference=by_reference)) == given
    with pytest.raises(Unreadable, match="0x3"):
        statuses(memory.variant(VarType.I4))


def test_times_are_read_from_dates_texts_and_filetimes(memory: PlainMemory) -> None:
    def text(text: str) -> int:
        return memory.variant(VarType.BSTR, memory.pointer(memory.text(text)))

    assert READER.time(memory.variant(VarType.DATE, struct.pack("<d", 25569.5))) == (43_200 * 10**9, "")
    assert READER.time(text("1/1/1970 12:00:01.456 AM")) == (1_456_000_000, "1/1/1970 12:00:01.456 AM")
    assert READER.time(text("1/1/1970 12:00:01 AM")) == (10**9, "1/1/1970 12:00:01 AM")
    assert READER.time(text("yesterday")) == (None, "yesterday")
    for vt in (VarType.FILETIME, VarType.I8, VarType.UI8):
        assert READER.time(memory.variant(vt, struct.pack("<q", 116444736000000010))) == (1_000, "")
    assert READER.time(memory.variant(VarType.DATE, struct.pack("<d", 1e9))) == (None, "1000000000.0")
    assert READER.time(memory.variant()) == (None, "")
    assert READER.time(memory.variant(VarType.I4, b"\1")) == (None, "VARTYPE 0x3")


def test_lists_of_qualities_and_times_are_read(memory: PlainMemory) -> None:
    assert READER.numbers(memory.array_variant(VarType.I4, struct.pack("<2i", 192, 0), 2)) == [192, 0]
    assert READER.numbers(memory.variant(VarType.I2, struct.pack("<h", 192))) == [192]
    assert READER.times(memory.array_variant(VarType.DATE, struct.pack("<2d", 25569, 25570), 2)) == [0, 86_400 * 10**9]
    with pytest.raises(Unreadable, match="0x8"):
        READER.numbers(memory.variant(VarType.BSTR))
    with pytest.raises(Unreadable, match="is no time"):
        READER.times(memory.array_variant(VarType.DATE, struct.pack("<2d", 1, 1e9), 2))


# Writing.

SCALARS = st.one_of(
    st.builds(lambda n: MxValue(boolean=n, variant_type=VarType.BOOL), st.booleans()),
    st.builds(lambda n: MxValue(integer=n, variant_type=VarType.I4), st.integers(-(2**31), 2**31 - 1)),
    st.builds(lambda n: MxValue(integer=n, variant_type=VarType.I2), st.integers(-(2**15), 2**15 - 1)),
    st.builds(lambda n: MxValue(integer=n, variant_type=VarType.UI2), st.integers(0, 2**16 - 1)),
    st.builds(lambda n: MxValue(integer=n, variant_type=VarType.ERROR), st.integers(-(2**31), -1)),
    st.builds(lambda n: MxValue(long=n, variant_type=VarType.I8), st.integers(-(2**63), 2**63 - 1)),
    st.builds(lambda n: MxValue(long=n, variant_type=VarType.UI4), st.integers(0, 2**32 - 1)),
    st.builds(lambda n: MxValue(long=n, variant_type=VarType.UI8), st.integers(0, 2**63 - 1)),
    st.builds(lambda n: MxValue(string=str(n), variant_type=VarType.UI8), st.integers(2**63, 2**64 - 1)),
    st.builds(lambda n: MxValue(float=n, variant_type=VarType.R4), st.floats(width=32, allow_nan=False)),
    st.builds(lambda n: MxValue(double=n, variant_type=VarType.R8), st.floats(allow_nan=False)),
    st.builds(lambda n: MxValue(double=n / 10_000, variant_type=VarType.CY), st.integers(-(10**14), 10**14)),
    st.builds(lambda n: MxValue(double=n / 1_000, variant_type=VarType.DECIMAL), st.integers(-(10**14), 10**14)),
    st.builds(lambda text: MxValue(string=text, variant_type=VarType.BSTR), st.text()),
    st.builds(
        lambda us: MxValue(time={"seconds": us // 10**6, "nanos": us % 10**6 * 1000}, variant_type=VarType.DATE),
        st.integers(0, 2 * 10**15),  # 1970 to 2033, where a date is exact to the microsecond
    ),
    st.builds(
        lambda ticks: MxValue(time={"seconds": ticks // 10**7, "nanos": ticks % 10**7 * 100}, variant_type=64),
        st.integers(-62_135_596_800 * 10**7, 253_402_300_799 * 10**7),
    ),
    st.sampled_from([MxValue(), MxValue(variant_type=VarType.NULL)]),
)


@settings(deadline=None)
@given(SCALARS)
def test_whatever_is_read_can_be_written_back(value: MxValue) -> None:
    assert READER.value(_written(PlainMemory(), value)) == value


@pytest.mark.parametrize(
    "array",
    [
        MxArray(booleans=BooleanArray(elements=[True, False])),
        MxArray(integers=IntegerArray(elements=[1, -2])),
        MxArray(integers=IntegerArray()),
        MxArray(integers=IntegerArray(elements=range(6)), dimensions=[2, 3]),
        MxArray(longs=LongArray(elements=[1 << 40])),
        MxArray(floats=FloatArray(elements=[0.5])),
        MxArray(doubles=DoubleArray(elements=[0.5, 1e300])),
        MxArray(strings=StringArray(elements=["", "ü"])),
        MxArray(strings=StringArray(elements=["a", "b", "c", "d"]), dimensions=[2, 2]),
        MxArray(times=TimeArray(elements=[NOON])),
        MxArray(
            values=ValueArray(
                elements=[
                    MxValue(integer=1, variant_type=3),
                    MxValue(array=MxArray(strings=StringArray(elements=["x"])), variant_type=ARRAY | 8),
                ]
            )
        ),
    ],
)
def test_arrays_are_written_as_they_are_read(memory: PlainMemory, array: MxArray) -> None:
    assert READER.value(_written(memory, MxValue(array=array))).array == array


def test_an_array_can_have_another_type_of_elements(memory: PlainMemory) -> None:
    value = MxValue(array=MxArray(integers=IntegerArray(elements=[1, 2])), variant_type=ARRAY | VarType.I2)

    assert READER.value(_written(memory, value)) == value


def test_a_value_without_a_type_gets_the_usual_one(memory: PlainMemory) -> None:
    usual = {
        VarType.BOOL: MxValue(boolean=True),
        VarType.I4: MxValue(integer=1),
        VarType.I8: MxValue(long=1),
        VarType.R4: MxValue(float=1),
        VarType.R8: MxValue(double=1),
        VarType.BSTR: MxValue(string="x"),
        VarType.DATE: MxValue(time=NOON),
        VarType.EMPTY: MxValue(),
        ARRAY | VarType.I4: MxValue(array=MxArray(integers=IntegerArray(elements=[1]))),
    }

    assert {vt: READER.value(_written(memory, value)).variant_type for vt, value in usual.items()} == {
        vt: vt for vt in usual
    }


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (MxValue(integer=40_000, variant_type=VarType.I2), "40000 does not fit VT_I2"),
        (MxValue(integer=-1, variant_type=VarType.UI4), "-1 does not fit VT_UI4"),
        (MxValue(long=2**31, variant_type=VarType.I4), "does not fit VT_I4"),
        (MxValue(double=1e39, variant_type=VarType.R4), "does not fit VT_R4"),
        (MxValue(double=math.inf, variant_type=VarType.CY), "does not fit VT_CY"),
        (MxValue(double=1e15, variant_type=VarType.CY), "does not fit VT_CY"),
        (MxValue(double=1e29, variant_type=VarType.DECIMAL), "does not fit VT_DECIMAL"),
        (MxValue(double=math.nan, variant_type=VarType.DECIMAL), "does not fit VT_DECIMAL"),
        (MxValue(string="1_0", variant_type=VarType.UI8), "only digits"),
        (MxValue(string="x", variant_type=VarType.I4), "'string' cannot be written as VARTYPE 0x3"),
        (MxValue(boolean=True, variant_type=VarType.I4), "'boolean' cannot be written"),
        (MxValue(variant_type=VarType.I4), "without a value"),
        (MxValue(integer=1, variant_type=9), "VARTYPE 0x9"),
        (MxValue(integer=1, variant_type=ARRAY | VarType.I4), "VARTYPE 0x2003"),
        (MxValue(array=MxArray(integers=IntegerArray(elements=[1])), variant_type=VarType.I4), "'array'"),
        (MxValue(array=MxArray(integers=IntegerArray(elements=[1])), variant_type=ARRAY | 8), "array of integer"),
        (MxValue(array=MxArray()), "without elements"),
        (MxValue(array=MxArray(integers=IntegerArray(elements=[1]), dimensions=[2])), "the dimensions 2"),
        (MxValue(opaque=b"x"), "plain bytes"),
        (MxValue(elapsed_time={"seconds": 1}), "elapsed time"),
        (MxValue(time={"seconds": 10**12}), "years 1 to 9999"),
        (MxValue(array=MxArray(values=ValueArray(elements=[MxValue(opaque=b"x")]))), "plain bytes"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(memory: PlainMemory, value: MxValue, told: str) -> None:
    with pytest.raises(MxError, match=told) as refused:
        _written(memory, value)

    assert refused.value.hresult == E_INVALIDARG


def test_values_that_contain_each_other_too_deep_are_refused(memory: PlainMemory) -> None:
    value = MxValue(integer=1)
    for _ in range(10):
        value = MxValue(array=MxArray(values=ValueArray(elements=[value])))

    with pytest.raises(MxError, match="arrays within arrays"):
        _written(memory, value)


def test_a_moment_is_a_date_and_none_is_now(memory: PlainMemory) -> None:
    maker = VariantMaker(UTC_DATES, memory, lambda: 86_400 * 10**9)
    for ns, expected in ((43_200 * 10**9, 43_200), (None, 86_400)):
        address = memory.variant()
        maker.fill_time(address, ns)

        assert READER.value(address).time.seconds == expected


# What programs in a plant send that no manual shows.


def test_the_first_index_and_locks_of_an_array_do_not_matter(memory: PlainMemory) -> None:
    elements = struct.pack("<6i", 0, 10, 1, 11, 2, 12)
    plain = READER.value(memory.array_variant(VarType.I4, elements, 2, 3))

    assert READER.value(memory.array_variant(VarType.I4, elements, 2, 3, first=1, locks=2)) == plain
    assert READER.value(memory.array_variant(VarType.I4, elements, 2, 3, first=-5)) == plain


def test_references_and_arrays_within_an_array_are_followed(memory: PlainMemory) -> None:
    inner = memory.variant(VarType.R8, struct.pack("<d", 2.5))
    texts = memory.array_variant(VarType.BSTR, memory.pointer(memory.text("x")), 1)
    raw = ctypes.string_at(memory.variant(BYREF | VarType.VARIANT, memory.pointer(inner)), SIZE)
    raw += ctypes.string_at(texts, SIZE)

    elements = READER.value(memory.array_variant(VarType.VARIANT, raw, 2)).array.values.elements

    assert elements[0] == MxValue(double=2.5, variant_type=VarType.R8)
    assert elements[1].array == MxArray(strings=StringArray(elements=["x"]))


def test_an_array_of_objects_or_records_has_no_value_as_one_alone_has_none(memory: PlainMemory) -> None:
    for vt in (9, 13, VarType.RECORD):
        value = READER.value(memory.array_variant(vt, b"\0" * 16, 1))

        assert value == MxValue(variant_type=ARRAY | vt)


def test_a_text_of_ten_megabytes_passes_both_ways(memory: PlainMemory) -> None:
    text = "ü" * 5_000_000
    value = MxValue(string=text, variant_type=VarType.BSTR)

    assert READER.value(_written(memory, value)) == value


@pytest.mark.parametrize(
    ("date", "moment"),
    [
        (-693593.0, datetime(1, 1, 1, tzinfo=UTC)),
        (-657434.0, datetime(100, 1, 1, tzinfo=UTC)),  # the first date of COM
        (-0.5, datetime(1899, 12, 30, 12, tzinfo=UTC)),
        (2958465.999988426, datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),  # the last one
    ],
)
def test_the_ends_of_the_calendar_are_times(memory: PlainMemory, date: float, moment: datetime) -> None:
    value = READER.value(memory.variant(VarType.DATE, struct.pack("<d", date)))

    assert abs((value.time.ToDatetime(UTC) - moment).total_seconds()) < 0.001
    assert _written(memory, value)


@pytest.mark.parametrize("date", [-693594.0, 2958466.0, 1e300, -1e300, math.inf])
def test_beyond_the_calendar_a_date_stays_a_number(memory: PlainMemory, date: float) -> None:
    value = READER.value(memory.variant(VarType.DATE, struct.pack("<d", date)))

    assert value.double == date
    assert READER.value(_written(memory, value)) == value


def test_the_extremes_of_a_decimal(memory: PlainMemory) -> None:
    def read(scale: int, sign: int, high: int, low: int) -> float:
        packed = struct.pack("<HBBIQ", VarType.DECIMAL, scale, sign, high, low)
        return READER.value(memory.bytes(packed.ljust(SIZE, b"\0"))).double

    assert read(0, 0, 2**32 - 1, 2**64 - 1) == 79228162514264337593543950335.0
    assert read(28, 0x80, 0, 1) == -1e-28
    assert read(28, 0x80, 0, 0) == 0
    for number in (79228162514264e15, -1e-28, 4e-29, 1e-300, 5e-324, 123456789012345e-28):
        value = MxValue(double=number, variant_type=VarType.DECIMAL)
        back = READER.value(_written(memory, value)).double
        assert back == pytest.approx(number, rel=1e-14, abs=1e-28)


def test_numbers_may_have_any_width(memory: PlainMemory) -> None:
    for vt, layout in ((VarType.I2, "<h"), (VarType.I8, "<q"), (VarType.UI1, "<B"), (VarType.UI4, "<I")):
        assert READER.numbers(memory.variant(vt, struct.pack(layout, 192))) == [192]
        referred = memory.pointer(memory.bytes(struct.pack(layout, 192)))
        assert READER.numbers(memory.variant(BYREF | vt, referred)) == [192]
        assert READER.number(memory.variant(BYREF | vt, referred)) == 192
    assert READER.number(memory.variant(VarType.I4, struct.pack("<i", -5))) == -5
    with pytest.raises(Unreadable, match="2 numbers instead of one"):
        READER.number(memory.array_variant(VarType.I4, struct.pack("<2i", 1, 2), 2))
    with pytest.raises(Unreadable, match="0x8"):
        READER.number(memory.variant(VarType.BSTR))


def test_a_list_of_statuses_may_be_empty_or_long(memory: PlainMemory) -> None:
    three = ((-1, 0, 1, 0), (0, 4, -1, 1003), (1, 8, 5, 8000))

    assert statuses(memory.statuses(*three)) == three
    assert statuses(memory.statuses()) == ()
    assert statuses(memory.variant(ARRAY | VarType.RECORD)) == ()
    assert statuses(memory.variant(ARRAY | BYREF | VarType.RECORD, memory.pointer(memory.bytes(b"\0" * 8)))) == ()


def test_times_within_variants_are_read(memory: PlainMemory) -> None:
    raw = b"".join(
        (struct.pack("<H6x", vt) + value).ljust(SIZE, b"\0")
        for vt, value in (
            (VarType.DATE, struct.pack("<d", 25569.5)),
            (VarType.BSTR, memory.pointer(memory.text("1/1/1970 12:00:01 AM"))),
            (VarType.UI8, struct.pack("<Q", 116444736000000010)),
        )
    )

    assert READER.times(memory.array_variant(VarType.VARIANT, raw, 3)) == [43_200 * 10**9, 10**9, 1_000]
    for alone in (memory.variant(VarType.I8, struct.pack("<q", 116444736000000010)),):
        assert READER.times(alone) == [1_000]
    with pytest.raises(Unreadable, match="'VARTYPE 0x3' is no time"):
        READER.times(memory.variant(VarType.I4))


def test_a_value_for_which_there_is_no_memory_is_refused_in_words() -> None:
    class Full(PlainMemory):
        def text(self, text: str) -> int:
            raise MemoryError

    with pytest.raises(MxError, match="no memory left") as refused:
        _written(Full(), MxValue(string="x"))
    assert refused.value.hresult & 0xFFFFFFFF == 0x8007000E


@pytest.mark.skipif(sys.platform == "win32", reason="the zone of a process is that of the machine there")
def test_local_dates_follow_the_zone_and_its_summer_time(monkeypatch: pytest.MonkeyPatch) -> None:
    dates = Dates(local=True)
    noon = 45_000.5  # 2023-03-15 12:00, and 120 days later in summer
    with monkeypatch.context() as patched:
        try:
            for zone, winter_h, summer_h in (("Europe/Berlin", 1, 2), ("America/New_York", -4, -4), ("UTC", 0, 0)):
                patched.setenv("TZ", zone)
                time.tzset()
                for date, offset_h in ((noon, winter_h), (noon + 120, summer_h)):
                    ns = UTC_DATES.ns(date) - offset_h * 3600 * 10**9
                    assert dates.ns(date) == ns
                    assert dates.date(ns) == date
            patched.setenv("TZ", "Europe/Berlin")
            time.tzset()
            # 02:30 comes twice on 2023-10-29, and is the first of them; on 2023-03-26 it does not come at all.
            assert dates.ns(45_228 + 2.5 / 24) == UTC_DATES.ns(45_228 + 0.5 / 24)
            assert dates.date(UTC_DATES.ns(45_228 + 1.5 / 24)) == pytest.approx(45_228 + 2.5 / 24)
            assert dates.ns(45_011 + 2.5 / 24) == UTC_DATES.ns(45_011 + 1.5 / 24)
            # A time at either end of the calendar can lie outside of it in the other zone.
            for zone, date in (("Asia/Tokyo", -693593.0), ("America/New_York", 2958465.99)):
                patched.setenv("TZ", zone)
                time.tzset()
                with pytest.raises(OverflowError):
                    dates.ns(date)
        finally:
            patched.undo()
            time.tzset()
