"""The makers of values for tests of plugins: sensible defaults, any field replaced, and unknown fields refused."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import pytest
from support.events import EPOCH
from support.repository import ROOT

import mxgw_core.testing
from mxgw_core.api import Identity, ItemRecord, Lag, PolicyRequest, QueueLimits, SessionInfo, SessionState
from mxgw_core.testing import SlowReader, identity, item_record, lag, policy_request, queue_limits, session_info
from mxgw_core.testing.checker import Opened, Promise, Seen


def test_what_is_not_said_is_filled_in() -> None:
    assert session_info().state is SessionState.READY
    assert identity() == Identity("key", "key")
    assert item_record("Tank_007.Level", 7) == ItemRecord(7, 1, 7, "Tank_007.Level")
    assert lag(12).limits == queue_limits() == QueueLimits(10, 0, 0.0)
    assert policy_request("mine", {"n": "3"}).session == session_info()


MAKERS: list[tuple[Callable[..., Any], type, dict[str, Any]]] = [
    (session_info, SessionInfo, {"owner": "anna", "session_id": "s7", "detached_s": 3.0}),
    (identity, Identity, {"kind": "operator", "roles": ("viewer",)}),
    (item_record, ItemRecord, {"item_handle": 3, "item_context": "Area", "buffered": True}),
    (queue_limits, QueueLimits, {"bytes": 5, "seconds": 1.0, "section": "plugins.mine"}),
    (lag, Lag, {"events": 3, "over_limit_s": 2.0, "subscriber_id": "r"}),
    (policy_request, PolicyRequest, {"client_name": "desk", "subscriber_id": "r", "parameters": {"a": "b"}}),
]


@pytest.mark.parametrize(("make", "kind", "fields"), MAKERS)
def test_every_field_can_be_given_and_no_other(make: Callable[..., Any], kind: type, fields: dict[str, Any]) -> None:
    made = make(**fields)

    assert isinstance(made, kind)
    assert {name: getattr(made, name) for name in fields} == fields

    with pytest.raises(TypeError, match="no_such_field"):
        make(no_such_field=1)


PAGE = (ROOT / "docs" / "plugins" / "testing.md").read_text()


def test_all_that_is_exported_is_documented() -> None:
    for name in mxgw_core.testing.__all__:
        assert getattr(mxgw_core.testing, name).__doc__, name
        assert name in PAGE


def test_the_page_calls_what_there_is() -> None:
    makers = dict(re.findall(r"^\| `(\w+)\(([\w, *]*)\)` \| `(?:\w+)`", PAGE, re.MULTILINE))
    methods = dict(re.findall(r"^\| `(\w+)\(([\w, ]*)\)` \| (?!`)", PAGE, re.MULTILINE))

    assert makers == {make.__name__: parameters_of(make) for make, _, _ in MAKERS}
    assert {"read", "read_until", "until", "check"} < methods.keys()
    for name, parameters in methods.items():
        assert parameters_of(getattr(SlowReader, name)).startswith(parameters), name


def parameters_of(function: Callable[..., Any]) -> str:
    parameters = [p for p in inspect.signature(function).parameters.values() if p.name != "self"]
    return ", ".join(f"**{p.name}" if p.kind is p.VAR_KEYWORD else p.name for p in parameters)


def test_a_slow_reader_knows_what_a_limited_key_may_see() -> None:
    reader = SlowReader(
        "localhost:1", "s", visible=lambda item: item in {(1, 1), (1, 3)}, permitted=lambda item: item == (1, 1)
    )
    checker = reader.checker
    checker.attach()
    for observation in (Opened(EPOCH, 0, 0, 1), Seen(1, (1, 1)), Seen(3, (1, 1))):
        checker.observe(observation)

    assert not checker.violations
    assert checker.unjudged == 1

    checker.observe(Seen(4, (1, 3)))
    checker.observe(Seen(5, (1, 2)))

    assert checker.counts == {Promise.PERMITTED: 2, Promise.FILTERED: 1}
