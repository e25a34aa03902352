"""The models themselves, for those who build settings in code."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from mxgw_core.config import BackendSettings, GatewaySettings, LimitSettings, PluginsSettings, Settings


@pytest.mark.parametrize("address", ["127.0.0.1:0", "localhost:50051", "[::1]:65535", "[fe80::1%eth0]:1", "unix:/x"])
def test_addresses_are_accepted(address: str) -> None:
    assert GatewaySettings(listen=(address,)).listen == (address,)


@pytest.mark.parametrize(
    "address", ["127.0.0.1", ":1", "::1:1", "host:65536", "host:x", "unix:", "http://x:1", "a b:1"]
)
def test_other_addresses_are_refused(address: str) -> None:
    with pytest.raises(ValidationError, match=r"host:port, \[ipv6\]:port or unix:/path"):
        GatewaySettings(listen=(address,))


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().limits.sessions = 5  # type: ignore[misc]  # the type checker knows it too


def test_options_are_a_copy() -> None:
    backend = BackendSettings.model_validate({"kind": "sim", "deep": {"a": [1]}})
    backend.options()["deep"]["a"].append(2)

    assert backend.options() == {"deep": {"a": [1]}}


def test_a_backend_s_kind_is_its_name_unless_it_says_otherwise() -> None:
    backends = {"sim": BackendSettings(), "opcua": BackendSettings(kind="other")}

    settings = Settings(backends=backends)

    assert {name: backend.kind for name, backend in settings.backends.items()} == {"sim": "sim", "opcua": "other"}


def test_the_default_backend_must_exist() -> None:
    with pytest.raises(ValidationError, match=r"'sim' is not configured: add \[backends.sim\], or name one of: opcua"):
        Settings(backends={"opcua": BackendSettings()})


def test_a_plugin_is_enabled_once() -> None:
    with pytest.raises(ValidationError, match="plugin 'a' is enabled twice"):
        PluginsSettings(enabled=("a", "b", "a"))


def test_limits_are_finite() -> None:
    with pytest.raises(ValidationError, match="finite"):
        LimitSettings(lease_s=float("inf"))


@pytest.mark.parametrize("key", ["workers.frame_bytes", "events.batch_bytes"])
def test_what_a_message_carries_fits_into_a_message(key: str) -> None:
    section, name = key.split(".")
    with pytest.raises(ValidationError, match=rf"message_bytes is 262144 and {key} is 524288.*lower {key}, or raise"):
        Settings.model_validate(
            {
                "limits": {"message_bytes": 262144},
                "workers": {"frame_bytes": 262144},
                "events": {"batch_bytes": 262144},
                section: {name: 524288},
            }
        )


def test_a_small_gateway_need_not_say_how_many_sessions_an_owner_may_have() -> None:
    assert LimitSettings(sessions=2).sessions == 2
