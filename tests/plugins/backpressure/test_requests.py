"""What a client asks for: names, parameters, and refusals that say what is allowed and which setting decides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from mxgw_backpressure import BackpressurePlugin
from mxgw_backpressure.plugin import POLICIES
from mxgw_core.api import (
    OverflowPolicy,
    PacedPolicy,
    PolicyRequest,
    QueueLimits,
    SessionInfo,
    SessionState,
)
from mxgw_core.api.errors import InvalidRequest

LIMITS = QueueLimits(10_000, 1 << 20, 0.0)
SESSION = SessionInfo(
    session_id="s",
    state=SessionState.READY,
    owner="anonymous",
    client_name="desk",
    tag="",
    backend="sim",
    opened_at=0.0,
    epoch=bytes(16),
    head_sequence=0,
    oldest_sequence=1,
    subscribers=0,
    worker_pid=1,
)


def asked(name: str, parameters: Mapping[str, str] | None = None, **section: Any) -> OverflowPolicy | None:
    plugin = BackpressurePlugin()
    declared = plugin.mxgw_settings()
    declared.apply(declared.model(**section))
    return plugin.mxgw_overflow_policy(PolicyRequest(SESSION, "ab", "desk", name, parameters or {}, LIMITS))


def refused(name: str, parameters: Mapping[str, str] | None = None, **section: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as error:
        asked(name, parameters, **section)
    return error.value


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_can_be_the_default_and_calls_itself_by_its_name(name: str) -> None:
    policy = asked("", policy=name, multiple_subscribers=False)

    assert policy is not None
    assert policy.name == name
    assert isinstance(policy, PacedPolicy) is (name == "sample")


@pytest.mark.parametrize("name", ["disconnect", "drop_oldest", "drop_newest", "conflate", "sample", "resync"])
def test_clients_may_ask_for_what_hurts_nobody_else(name: str) -> None:
    policy = asked(name)

    assert policy is not None
    assert policy.name == name


@pytest.mark.parametrize("name", ["fail_session", "block"])
def test_what_hurts_others_must_be_allowed_first(name: str) -> None:
    error = refused(name)

    assert "plugins.backpressure.client_policies" in error.message
    assert error.metadata == {
        "field": "policy.name",
        "allowed": "disconnect, drop_oldest, drop_newest, conflate, sample, resync",
    }
    assert asked(name, multiple_subscribers=False, client_policies=[name]) is not None


def test_nothing_may_be_asked_for_when_the_list_is_empty() -> None:
    assert "disconnect" in refused("disconnect", client_policies=[]).message
    assert asked("", client_policies=[]) is not None


@pytest.mark.parametrize("name", ["keep_alarms", "DISCONNECT", "drop-oldest", " "])
def test_names_of_others_are_left_to_others(name: str) -> None:
    assert asked(name) is None


def test_sample_takes_its_interval_from_the_client_else_from_the_settings() -> None:
    for policy, interval_s in (
        (asked("sample", {"interval_ms": "250"}), 0.25),
        (asked("sample", {"interval_ms": "1e3"}), 1.0),
        (asked("sample", sample_interval_s=2.5), 2.5),
        (asked("", policy="sample", sample_interval_s=0.5), 0.5),
    ):
        assert isinstance(policy, PacedPolicy)
        assert policy.interval_s == interval_s


@pytest.mark.parametrize("text", ["", "fast", "nan", "inf", "-1", "0", "9.99", "3600001", "1,5", "0x10"])
def test_an_interval_that_is_none_is_refused_with_its_range(text: str) -> None:
    error = refused("sample", {"interval_ms": text})

    assert "from 10 to 3600000" in error.message
    assert error.metadata["field"] == "policy.parameters.interval_ms"


@pytest.mark.parametrize(
    ("name", "parameters", "says"),
    [
        ("drop_oldest", {"interval_ms": "100"}, "'drop_oldest' has no parameter 'interval_ms'"),
        ("sample", {"intervall": "100"}, "'sample' has no parameter 'intervall'; it has interval_ms"),
    ],
)
def test_an_unknown_parameter_is_refused(name: str, parameters: Mapping[str, str], says: str) -> None:
    assert says in refused(name, parameters).message


@pytest.mark.parametrize("name", ["sample", "conflate"])
def test_grace_goes_around_every_policy_and_leaves_its_name_and_pace(name: str) -> None:
    policy = asked(name, grace={"seconds": 5})

    assert policy is not None
    assert policy.name == name
    assert isinstance(policy, PacedPolicy) is (name == "sample")
