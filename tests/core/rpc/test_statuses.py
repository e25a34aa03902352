"""From the gateway's errors to gRPC statuses."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from mxgw_core.api import errors as e
from mxgw_core.api.types import CloseReason
from mxgw_core.rpc import statuses as mapping
from mxgw_core.rpc.statuses import DOMAIN, status_code, status_details
from mxgw_core.sessions.session import _IN_WORDS


def _subclasses(kind: type[e.GatewayError]) -> Iterator[type[e.GatewayError]]:
    for subclass in kind.__subclasses__():
        if subclass.__module__ == e.__name__:
            yield subclass
            yield from _subclasses(subclass)


ALL = sorted(set(_subclasses(e.GatewayError)), key=lambda kind: kind.__name__)


def _made(kind: type[e.GatewayError]) -> e.GatewayError:
    return kind("what happened", close_reason="CLIENT") if kind is e.SessionEnded else kind("what happened")


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_every_error_has_a_code_of_its_own_and_a_reason(kind: type[e.GatewayError]) -> None:
    assert kind in mapping._CODES
    assert kind.reason.isupper()
    assert kind.__doc__


def test_every_error_is_in_the_tree_at_the_top_of_its_module() -> None:
    assert e.__doc__ is not None
    for kind in ALL:
        assert kind.__name__ in e.__doc__


def test_no_two_errors_share_a_reason() -> None:
    reasons = [kind.reason for kind in ALL]

    assert len(set(reasons)) == len(reasons)


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_the_details_say_reason_domain_metadata_and_text(kind: type[e.GatewayError]) -> None:
    error = _made(kind)
    error.metadata["limit"] = "7"
    status = Status.FromString(status_details(error))
    info = ErrorInfo()

    assert status.code == status_code(error).value[0]
    assert status.message == "what happened"
    assert len(status.details) == 1
    assert status.details[0].Unpack(info)
    assert (info.reason, info.domain, dict(info.metadata)) == (error.reason, DOMAIN, error.metadata)


def test_when_to_come_back_travels_as_retry_info() -> None:
    status = Status.FromString(status_details(e.GatewayDraining("later", retry_after_s=2.5)))
    retry = RetryInfo()

    assert status.details[1].Unpack(retry)
    assert (retry.retry_delay.seconds, retry.retry_delay.nanos) == (2, 500_000_000)


@pytest.mark.parametrize("reason", CloseReason, ids=lambda reason: reason.name)
def test_the_end_of_a_session_carries_its_close_reason(reason: CloseReason) -> None:
    error = e.SessionEnded("ended", close_reason=reason.name)
    status = Status.FromString(status_details(error))
    info = ErrorInfo()
    status.details[0].Unpack(info)

    assert info.reason == ("SESSION_CLOSED" if reason is CloseReason.CLIENT else reason.name)
    assert info.metadata["close_reason"] == reason.name
    assert reason in _IN_WORDS


def test_an_error_of_a_plugin_has_the_code_of_its_nearest_base() -> None:
    class QuotaReached(e.SessionLimitReached):
        reason = "QUOTA_REACHED"

    class Odd(e.GatewayError):
        reason = "ODD"

    assert status_code(QuotaReached("x")) is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert status_code(Odd("x")) is grpc.StatusCode.INTERNAL
