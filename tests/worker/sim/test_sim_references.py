"""References as text: an object, an attribute, perhaps an index."""

from __future__ import annotations

import pytest

from mxgw_worker.backends.sim.references import parse
from mxgw_worker.backends.sim.status import Detail, Refused


@pytest.mark.parametrize(
    ("text", "index"),
    [("Obj.Arr", None), ("Obj.Arr[]", 0), ("Obj.Arr[ ]", 0), ("Obj.Arr[1]", 1), ("Obj.Arr[ 12 ]", 12)],
)
def test_an_index_is_a_number_with_blanks_around_it_or_nothing(text: str, index: int | None) -> None:
    assert parse(text).index == index


@pytest.mark.parametrize("inside", ["-", "x", "1 2", "1" * 10, "[1]", " " * 1000 + "x" + " " * 1000])
def test_what_is_no_index_is_no_reference(inside: str) -> None:
    with pytest.raises(Refused) as refused:
        parse(f"Obj.Arr[{inside}]")

    assert refused.value.detail == Detail.INVALID_REFERENCE
