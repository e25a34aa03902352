"""The settings of replay: what they allow, and what a gateway refuses to start with."""

from __future__ import annotations

import logging
import math
from typing import Any

import pytest
from pydantic import ValidationError

from mxgw_core.api import Retention
from mxgw_core.api.errors import SettingsError
from mxgw_core.config import load_settings
from mxgw_core.plugins import PluginHost
from mxgw_core.testing import running_gateway, session_info
from mxgw_replay import ReplayPlugin, ReplaySettings

MIB = 1024 * 1024


def configured(**settings: Any) -> ReplayPlugin:
    plugin = ReplayPlugin()
    plugin.mxgw_settings().apply(ReplaySettings(**settings))
    return plugin


def test_the_defaults_hold_twice_what_a_subscriber_may_be_behind() -> None:
    settings = ReplaySettings()

    assert settings.events == 2 * 10_000
    assert settings.bytes == 2 * 8 * MIB
    assert (settings.seconds, settings.detach_grace_seconds) == (300.0, 30.0)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("events", 1_023),
        ("bytes", MIB - 1),
        ("seconds", -1),
        ("seconds", 86_401),
        ("seconds", math.nan),
        ("seconds", math.inf),
        ("detach_grace_seconds", -1),
        ("detach_grace_seconds", 86_401),
        ("detach_grace_seconds", math.nan),
        ("detach_grace_seconds", math.inf),
        ("detach_grace_seconds", "never"),
        ("horizon_check_s", 0.09),
        ("horizon_check_s", 3_601),
        ("snapshots", "sometimes"),
        ("evnets", 1),
    ],
)
def test_what_is_out_of_range_or_unknown_is_refused(key: str, value: object) -> None:
    with pytest.raises(ValidationError, match=key):
        ReplaySettings(**{key: value})


@pytest.mark.parametrize("key", ["maximum_detached", "maximum_detached_per_owner"])
def test_keys_of_earlier_releases_are_refused_with_what_replaced_them(key: str) -> None:
    settings = {"plugins.enabled": ["replay"], f"plugins.replay.{key}": 8}
    loaded = load_settings(overrides=settings, environ={})

    with pytest.raises(
        SettingsError, match=rf"plugins\.replay\.{key}: this is no setting any more: .*limits\.sessions_per_owner"
    ):
        PluginHost.load(loaded.settings, origins=loaded.origins)


@pytest.mark.parametrize("grace", [0, 0.5, 86_400, "none"])
def test_a_grace_is_a_time_or_none(grace: float | str) -> None:
    assert ReplaySettings(detach_grace_seconds=grace).detach_grace_seconds == grace


def test_retention_and_grace_are_what_is_set() -> None:
    plugin = configured(events=5_000, bytes=3 * MIB, seconds=7, snapshots=False, detach_grace_seconds=12)

    assert plugin.mxgw_retention(session_info()) == Retention(5_000, 3 * MIB, 7.0, snapshots=False)
    assert plugin.mxgw_detach_grace(session_info()) == 12
    assert configured(detach_grace_seconds="none").mxgw_detach_grace(session_info()) == math.inf


SMALL = {"events.queue_events": 1_000, "events.queue_bytes": MIB}
FANNED_OUT = {
    "plugins.enabled": ["backpressure", "replay"],
    "plugins.backpressure.queue_events": 1_000,
    "plugins.backpressure.queue_bytes": MIB,
}
ALONE = {"plugins.enabled": ["replay"], **SMALL}


@pytest.mark.asyncio
@pytest.mark.parametrize("limits", [ALONE, FANNED_OUT], ids=["core's limits", "backpressure's limits"])
@pytest.mark.parametrize(
    ("key", "too_little", "enough"),
    [("events", 1_999, 2_000), ("bytes", 2 * MIB - 1, 2 * MIB)],
)
async def test_a_log_of_less_than_twice_the_queue_stops_the_start(
    limits: dict[str, object], key: str, too_little: int, enough: int
) -> None:
    with pytest.raises(SettingsError, match=rf"plugins\.replay\.{key} is {too_little}.* raise it to {enough}"):
        async with running_gateway({**limits, f"plugins.replay.{key}": too_little}):
            pass
    async with running_gateway({**limits, f"plugins.replay.{key}": enough}):
        pass


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("settings", "warns"),
    [
        ({"seconds": 10, "detach_grace_seconds": 30}, True),
        ({"seconds": 30, "detach_grace_seconds": 30}, False),
        ({"seconds": 0, "detach_grace_seconds": 30}, False),
        ({"seconds": 10, "detach_grace_seconds": "none"}, False),
    ],
    ids=str,
)
async def test_a_log_that_forgets_sooner_than_the_grace_ends_is_warned_of_at_the_start(
    settings: dict[str, object], warns: bool, caplog: pytest.LogCaptureFixture
) -> None:
    keys = {f"plugins.replay.{key}": value for key, value in settings.items()}
    with caplog.at_level(logging.WARNING, "mxgw_replay"):
        async with running_gateway({"plugins.enabled": ["replay"], **keys}):
            pass

    assert ("plugins.replay.seconds is 10" in caplog.text) == warns
