"""What `mxgw browse --metadata` shows, and the options of items of `mxgw stream`."""

from __future__ import annotations

import click
import pytest

from mxgw_cli.browse.run import metadata_document, metadata_text
from mxgw_cli.stream.run import item_options_of
from mxgw_client import DataType, EngineeringUnits, ItemMetadata, ItemOptions, ValueRange

NOTHING = ItemMetadata(
    *(None, "", None, (), None, None, "", "", ""), *(None, None, None), enumeration={}, minimum_sampling_interval_s=None
)
FULL = ItemMetadata(
    *(DataType.DOUBLE, "Double", True, (3, 0), True, False, "OPERATE", "Name", "Text"),
    engineering_units=EngineeringUnits("\u00b0C", "degree", "urn:units", 7),
    range=ValueRange(-10.0, 50.0),
    instrument_range=None,
    enumeration={},
    minimum_sampling_interval_s=0.0,
)


def test_a_line_shows_range_unit_and_shape_and_nothing_that_is_unknown() -> None:
    assert metadata_text(NOTHING) == ""
    assert metadata_text(FULL) == "  -10 … 50  \u00b0C  3 x any"


def test_a_long_enumeration_is_cut() -> None:
    names = {number: f"n{number}" for number in range(20)}
    text = metadata_text(
        ItemMetadata(
            *(None, "Mode", None, (), None, None, "", "", ""),
            *(None, None, None),
            names,
            minimum_sampling_interval_s=None,
        )
    )

    assert text.startswith("  0=n0, 1=n1")
    assert text.endswith("7=n7, …  Mode")


def test_the_json_document_leaves_out_what_is_unknown_and_keeps_false_and_zero() -> None:
    assert metadata_document(NOTHING) == {}
    document = metadata_document(FULL)

    assert document["data_type"] == "double"
    assert document["writeable"] is False
    assert document["minimum_sampling_interval_s"] == 0.0
    assert document["range"] == {"low": -10.0, "high": 50.0}
    assert "instrument_range" not in document


@pytest.mark.parametrize(
    ("deadband", "interval_s", "options"),
    [
        ("", None, None),
        ("0.5", None, ItemOptions(absolute_deadband=0.5)),
        ("2.5%", 0.25, ItemOptions(percent_deadband=2.5, sampling_interval_s=0.25)),
        ("", 0.0, ItemOptions(sampling_interval_s=0.0)),
    ],
)
def test_a_deadband_is_a_number_or_a_percentage(
    deadband: str, interval_s: float | None, options: ItemOptions | None
) -> None:
    assert item_options_of(deadband, interval_s) == options


@pytest.mark.parametrize("deadband", ["x", "-1", "101%", "nan", "inf", "1_0", "%", "5 %%"])
def test_any_other_deadband_is_wrong_usage(deadband: str) -> None:
    with pytest.raises(click.UsageError, match="--deadband"):
        item_options_of(deadband, None)
