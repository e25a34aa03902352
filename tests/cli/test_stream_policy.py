"""The options of `mxgw stream` that choose an overflow policy."""

from __future__ import annotations

import click
import pytest

from mxgw_cli.stream.run import policy_of
from mxgw_client import Policy


@pytest.mark.parametrize(
    ("name", "parameters", "policy"),
    [
        ("", (), None),
        ("conflate", (), Policy("conflate")),
        (
            "acme",
            ("items=3,17", "formula=a=b", "empty="),
            Policy("acme", {"items": "3,17", "formula": "a=b", "empty": ""}),
        ),
    ],
)
def test_parameters_are_read_up_to_the_first_equals_sign(
    name: str, parameters: tuple[str, ...], policy: Policy | None
) -> None:
    assert policy_of(name, parameters) == policy


@pytest.mark.parametrize(
    ("name", "parameters", "says"),
    [
        ("", ("items=3",), "for the policy of --policy, which is missing"),
        ("acme", ("items",), "KEY=VALUE, not 'items'"),
        ("acme", ("=3",), "KEY=VALUE, not '=3'"),
        ("acme", ("items=3", "items=4"), "items is given twice"),
    ],
)
def test_parameters_in_a_wrong_form_are_wrong_usage(name: str, parameters: tuple[str, ...], says: str) -> None:
    with pytest.raises(click.UsageError, match=says):
        policy_of(name, parameters)
