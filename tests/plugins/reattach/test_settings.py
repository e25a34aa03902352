"""`[plugins.reattach]`: ranges, and times that fit each other."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from mxgw_core.api.errors import SettingsError
from mxgw_core.testing import running_gateway
from mxgw_reattach import ReattachSettings


def test_the_defaults_fit_each_other() -> None:
    settings = ReattachSettings()

    assert settings.max_orphan_lifetime_seconds > settings.adopt_within_seconds


def test_workers_must_live_until_they_can_be_adopted() -> None:
    with pytest.raises(ValidationError, match="raise it to 25"):
        ReattachSettings(max_orphan_lifetime_seconds=20.0, adopt_within_seconds=20.0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_orphan_lifetime_seconds": 0},
        {"max_orphan_lifetime_seconds": float("inf")},
        {"adopt_within_seconds": 0},
        {"max_orphan_lifetime": 5},
    ],
)
def test_what_is_out_of_range_or_unknown_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        ReattachSettings(**wrong)  # type: ignore[arg-type]


@pytest.mark.asyncio
async def test_a_gateway_does_not_start_with_times_that_do_not_fit() -> None:
    overrides = {"plugins.enabled": ["reattach"], "plugins.reattach.max_orphan_lifetime_seconds": 2.0}
    with pytest.raises(SettingsError, match=r"plugins\.reattach"):
        async with running_gateway(overrides):
            pass
