"""StatusCodes as quality and statuses."""

from __future__ import annotations

import pytest
from asyncua import ua

from mxgw.convert import is_ok, quality_class
from mxgw.v1 import values_pb2 as v
from mxgw_worker.backends.opcua import status

CODES = ua.StatusCodes


@pytest.mark.parametrize(
    ("code", "quality"),
    [
        (CODES.Good, 192),
        (CODES.GoodClamped, 192),
        (CODES.GoodLocalOverride, 216),
        (CODES.Uncertain, 64),
        (CODES.UncertainLastUsableValue, 68),
        (CODES.UncertainSensorNotAccurate, 80),
        (CODES.UncertainEngineeringUnitsExceeded, 84),
        (CODES.UncertainSubNormal, 88),
        (CODES.Bad, 0),
        (CODES.BadInternalError, 0),
        (CODES.BadConfigurationError, 4),
        (CODES.BadNodeIdUnknown, 4),
        (CODES.BadNotConnected, 8),
        (CODES.BadDeviceFailure, 12),
        (CODES.BadSensorFailure, 16),
        (CODES.BadNoCommunication, 24),
        (CODES.BadOutOfService, 28),
        (CODES.BadWaitingForInitialData, 32),
        (0x0500, 193),  # Good, low limit
        (CODES.UncertainEngineeringUnitsExceeded | 0x0600, 86),  # high limit
        (CODES.BadSensorFailure | 0x0700, 19),  # constant
        (CODES.GoodClamped | 0x0200, 192),  # limit bits without the info type mean nothing
    ],
)
def test_quality_follows_opc_da(code: int, quality: int) -> None:
    assert status.quality_of(code) == quality


def test_every_code_of_the_library_lands_in_its_own_class() -> None:
    classes = {0: v.QUALITY_GOOD, 1: v.QUALITY_UNCERTAIN, 2: v.QUALITY_BAD, 3: v.QUALITY_BAD}
    for name, code in vars(CODES).items():
        if not name.startswith("_"):
            assert quality_class(status.quality_of(code)) == classes[code >> 30], name


def test_the_overflow_bit_counts_only_with_its_info_type() -> None:
    assert status.overflowed(0x0480)
    assert status.overflowed(CODES.UncertainSubNormal | 0x0780)
    assert not status.overflowed(0x0080)
    assert not status.overflowed(0x0400)
    assert not status.overflowed(0x0C80)


def test_a_bad_quality_is_no_failure_but_an_unreadable_item_is() -> None:
    assert is_ok(status.value_statuses(CODES.BadSensorFailure))
    assert not is_ok(status.value_statuses(CODES.BadNotReadable))


def test_the_raw_code_travels_in_a_second_status() -> None:
    mapped, raw = status.failure_statuses(CODES.BadNodeIdUnknown)

    assert (mapped.raw_category, mapped.raw_detail) == (4, 6)
    assert raw.raw_detail % 2**32 == CODES.BadNodeIdUnknown
    assert raw.detail == v.MX_STATUS_DETAIL_UNSPECIFIED
    assert len(status.value_statuses(0)) == 1


@pytest.mark.parametrize(
    ("code", "category", "detail"),
    [
        (CODES.BadUserAccessDenied, 6, 1008),
        (CODES.BadNotWritable, 5, 1007),
        (CODES.BadWriteNotSupported, 5, 1007),
        (CODES.BadTypeMismatch, 5, 1005),
        (CODES.BadOutOfRange, 5, 1004),
        (CODES.BadTimeout, 3, 1),
        (CODES.BadCommunicationError, 3, 2),
        (CODES.BadInternalError, 5, 1009),
    ],
)
def test_refused_writes_name_their_reason(code: int, category: int, detail: int) -> None:
    first = status.result_statuses(code)[0]

    assert (first.success, first.raw_category, first.raw_detail) == (0, category, detail)


def test_a_write_that_completes_later_is_pending() -> None:
    first = status.result_statuses(CODES.GoodCompletesAsynchronously)[0]

    assert (first.success, first.raw_category) == (-1, 1)
