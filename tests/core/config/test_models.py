"""The models themselves, for those who build settings in code."""

from __future__ import annotations

import math
from collections.abc import Iterator
from importlib.metadata import entry_points

import pytest
from annotated_types import Le, Lt
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from mxgw_core.config import BackendSettings, GatewaySettings, LimitSettings, PluginsSettings, Settings
from mxgw_core.config.schema import alternatives


@pytest.mark.parametrize("address", ["127.0.0.1:0", "localhost:50051", "[::1]:65535", "[fe80::1%eth0]:1", "unix:/x"])
def test_addresses_are_accepted(address: str) -> None:
    assert GatewaySettings(listen=(address,)).listen == (address,)


@pytest.mark.parametrize(
    "address", ["127.0.0.1", ":1", "::1:1", "host:65536", "host:x", "unix:", "http://x:1", "a b:1"]
)
def test_other_addresses_are_refused(address: str) -> None:
    with pytest.raises(ValidationError, match=r"host:port, \[ipv6\]:port or unix:/path"):
        GatewaySettings(listen=(address,))


def numbers(model: type[BaseModel], path: str) -> Iterator[tuple[str, FieldInfo]]:
    """Yield the numbers that a model and those in it declare, each with its place."""
    for name, field in model.model_fields.items():
        kinds = alternatives(field.annotation)
        if int in kinds or float in kinds:
            yield f"{path}.{name}", field
        for kind in kinds:
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from numbers(kind, f"{path}.{name}")


def test_every_number_has_bounds_that_neither_infinity_nor_what_is_no_number_passes() -> None:
    plugins = [entry.load()().mxgw_settings() for entry in entry_points(group="mxgw.plugins")]
    models = {"settings": Settings, **{section.name: section.model for section in plugins if section is not None}}
    found = {path: field for name, model in models.items() for path, field in numbers(model, name)}
    # This one is checked by a rule of its own, because it may also be a word.
    found.pop("replay.detach_grace_seconds")

    assert len(found) > 60
    assert [path for path, field in found.items() if not any(isinstance(m, Le | Lt) for m in field.metadata)] == []
    for model in [*models.values(), *(kind for outer in models.values() for kind in inner_models(outer))]:
        assert model.model_config.get("allow_inf_nan") is False, model


def inner_models(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for field in model.model_fields.values():
        for kind in alternatives(field.annotation):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield kind
                yield from inner_models(kind)


@pytest.mark.parametrize("lease_s", [1e300, math.inf, math.nan, -1])
def test_a_lease_is_a_time(lease_s: float) -> None:
    with pytest.raises(ValidationError, match="maximum_lease_s"):
        LimitSettings(maximum_lease_s=lease_s)


@pytest.mark.parametrize("path", ["", "  "])
def test_an_empty_path_is_not_the_working_directory(path: str) -> None:
    with pytest.raises(ValidationError, match="is empty: name a path"):
        GatewaySettings.model_validate({"data_dir": path})


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
