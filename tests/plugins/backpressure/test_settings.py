"""`[plugins.backpressure]`: every rule, each refusal naming its key, and settings that do what they say."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from mxgw_backpressure import BackpressureSettings
from mxgw_core.api.errors import SettingsError
from mxgw_core.config import PluginsSettings, Settings, load_settings
from mxgw_core.plugins import PluginHost, PluginState

MIB = 1024 * 1024


def host(**section: Any) -> PluginHost:
    return PluginHost.load(
        Settings(plugins=PluginsSettings(enabled=("backpressure",)), plugin_sections={"backpressure": section})
    )


def test_the_installed_plugin_loads_with_its_defaults() -> None:
    (record,) = [r for r in host().records if r.name == "backpressure"]

    assert (record.state, record.distribution) == (PluginState.LOADED, "mxgw")


def test_the_defaults_are_those_of_the_issue() -> None:
    settings = BackpressureSettings()

    assert (settings.multiple_subscribers, settings.maximum_subscribers, settings.policy) == (True, 8, "disconnect")
    assert (settings.queue_events, settings.queue_bytes, settings.queue_seconds) == (10_000, 8 * MIB, 0.0)
    assert {"fail_session", "block"}.isdisjoint(settings.client_policies)


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ({"maximum_subscribers": 0}, "plugins.backpressure.maximum_subscribers: must be greater than or equal to 1"),
        ({"maximum_subscribers": 10_001}, "plugins.backpressure.maximum_subscribers"),
        ({"queue_events": -1}, "plugins.backpressure.queue_events"),
        ({"queue_bytes": 0}, "plugins.backpressure.queue_bytes: must be greater than 0"),
        ({"queue_seconds": -0.1}, "plugins.backpressure.queue_seconds"),
        ({"policy": "drop"}, "plugins.backpressure.policy"),
        ({"client_policies": ["disconnect", "dropp_oldest"]}, "plugins.backpressure.client_policies"),
        ({"low_water_percent": 100}, "plugins.backpressure.low_water_percent"),
        ({"low_water_percent": -1}, "plugins.backpressure.low_water_percent"),
        ({"sample_interval_s": 0.001}, "plugins.backpressure.sample_interval_s"),
        ({"sample_interval_s": 3601}, "plugins.backpressure.sample_interval_s"),
        ({"block_timeout_s": 0}, "plugins.backpressure.block_timeout_s"),
        ({"block_timeout_s": 31}, "plugins.backpressure.block_timeout_s"),
        ({"grace": {"seconds": -1}}, "plugins.backpressure.grace.seconds"),
        ({"grace": {"hard_bytes": 0}}, "plugins.backpressure.grace.hard_bytes"),
        ({"grace": {"secondz": 1}}, "plugins.backpressure.grace.secondz: unknown key; did you mean 'seconds'?"),
        ({"queue_event": 5}, "plugins.backpressure.queue_event: unknown key; did you mean 'queue_events'?"),
        ({"policy": "fail_session"}, "it needs multiple_subscribers = false"),
        ({"client_policies": ["fail_session"]}, "it needs multiple_subscribers = false"),
        ({"policy": "block"}, "block_with_many = true"),
        ({"client_policies": ["block"]}, "block_with_many = true"),
        ({"grace": {"seconds": 5, "hard_events": 10_000}}, "grace.hard_events must be larger than queue_events"),
        ({"grace": {"seconds": 5, "hard_bytes": 8 * MIB}}, "grace.hard_bytes must be larger than queue_bytes"),
        ({"queue_events": 30_000, "grace": {"seconds": 5}}, "grace.hard_events must be larger than queue_events"),
    ],
)
def test_what_is_wrong_stops_the_start_and_says_what_and_why(section: dict[str, Any], says: str) -> None:
    with pytest.raises(SettingsError) as refused:
        host(**section)

    assert says in str(refused.value)


@pytest.mark.parametrize(
    "section",
    [
        {"multiple_subscribers": False, "policy": "fail_session"},
        {"maximum_subscribers": 1, "policy": "fail_session"},
        {"multiple_subscribers": False, "policy": "block"},
        {"policy": "block", "block_with_many": True},
        {"queue_events": 0},
        {"grace": {"seconds": 0, "hard_events": 1}},
        {"grace": {"seconds": 5, "hard_events": 0}},
        {"client_policies": []},
    ],
)
def test_what_is_legal_in_its_mode_starts(section: dict[str, Any]) -> None:
    host(**section)


def test_the_limits_of_a_session_are_those_of_the_settings_and_name_where_they_come_from() -> None:
    (answer,) = host(queue_events=5, queue_bytes=6, queue_seconds=7.0, maximum_subscribers=3).ask(
        "mxgw_subscriber_limits", session=None
    )
    limits = answer.value

    assert (limits.maximum, limits.setting) == (3, "plugins.backpressure.maximum_subscribers")
    assert (limits.queue.events, limits.queue.bytes, limits.queue.seconds) == (5, 6, 7.0)
    assert limits.queue.section == "plugins.backpressure"


def test_single_subscriber_mode_is_one_subscriber_whatever_the_maximum() -> None:
    (answer,) = host(multiple_subscribers=False, maximum_subscribers=5).ask("mxgw_subscriber_limits", session=None)

    assert (answer.value.maximum, answer.value.setting) == (1, "plugins.backpressure.multiple_subscribers")


def test_settings_come_from_a_file_and_mistakes_name_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "settings.toml").write_text(
        '[plugins]\nenabled = ["backpressure"]\n[plugins.backpressure]\nmaximum_subscribers = 0\n'
    )
    loaded = load_settings(environ={})
    with pytest.raises(SettingsError) as refused:
        PluginHost.load(loaded.settings, origins=loaded.origins)

    assert str(refused.value).startswith("settings.toml:")
    assert "plugins.backpressure.maximum_subscribers" in str(refused.value)


def test_a_policy_that_clients_may_not_ask_for_may_still_be_the_default(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        host(policy="conflate", client_policies=["disconnect"])

    assert not caplog.records
