"""Values that arrive as text: the environment, and the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .conftest import Site


@pytest.mark.parametrize(
    ("name", "text", "key", "value"),
    [
        ("LIMITS__SESSIONS", "10", "limits.sessions", 10),
        ("LIMITS__LEASE_S", "5", "limits.lease_s", 5.0),
        ("GATEWAY__REFLECTION", "true", "gateway.reflection", True),
        ("GATEWAY__REFLECTION", "True", "gateway.reflection", True),
        ("GATEWAY__LISTEN", "127.0.0.1:1, unix:/x", "gateway.listen", ("127.0.0.1:1", "unix:/x")),
        ("GATEWAY__LISTEN", '["127.0.0.1:1"]', "gateway.listen", ("127.0.0.1:1",)),
        ("GATEWAY__DATA_DIR", "12", "gateway.data_dir", Path("12")),
        ("GATEWAY__LOG_LEVEL", "DEBUG", "gateway.log_level", "DEBUG"),
        ("PLUGINS__ENABLED", "", "plugins.enabled", ()),
    ],
)
def test_text_means_what_the_key_wants(site: Site, name: str, text: str, key: str, value: object) -> None:
    section, field = key.split(".")

    from_environment = site.load(environ={f"MXGW_{name}": text})
    from_command_line = site.load(overrides={key: text})

    assert getattr(getattr(from_environment.settings, section), field) == value
    assert getattr(getattr(from_command_line.settings, section), field) == value
    assert from_environment.origins[key] == f"environment MXGW_{name}"
    assert from_command_line.origins[key] == "command line"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        ("opc.tcp://x:4840", "opc.tcp://x:4840"),
        ('"5"', "5"),
        ("[1, 2]", [1, 2]),
        ("2024-01-02", "2024-01-02"),
        ("1\nsecond = 2", "1\nsecond = 2"),
    ],
)
def test_options_are_toml_or_else_text(site: Site, text: str, value: object) -> None:
    settings = site.load(environ={"MXGW_BACKENDS__SIM__OPTION": text}).settings

    assert settings.backends["sim"].options() == {"option": value}


def test_a_password_of_digits_stays_text(site: Site) -> None:
    settings = site.load(environ={"MXGW_BACKENDS__SIM__PASSWORD": "0123", "MXGW_BACKENDS__SIM__TOKEN": "99"}).settings

    assert settings.backends["sim"].options() == {"password": "0123", "token": "99"}


def test_an_empty_variable_unsets_what_may_be_unset(site: Site) -> None:
    site.write("[tls]\ncertificate = 'a'\nprivate_key = 'b'\nclient_ca = 'c'")

    assert site.load(environ={"MXGW_TLS__CLIENT_CA": ""}).settings.tls.client_ca is None


def test_names_with_dashes_and_capitals_can_be_reached(site: Site) -> None:
    site.write(
        "[plugins]\nenabled = ['my-plugin']\n"
        "[backends]\ndefault = 'Line-4'\n"
        "[backends.Line-4]\nkind = 'opcua'\nnodeId = 'x'"
    )
    environ = {"MXGW_PLUGINS__MY_PLUGIN__SIZE": "5", "MXGW_BACKENDS__LINE_4__NODEID": "y"}

    settings = site.load(environ=environ).settings

    assert settings.plugin_sections == {"my-plugin": {"size": 5}}
    assert settings.backends["Line-4"].options() == {"nodeId": "y"}


def test_variables_of_the_client_and_of_others_are_left_alone(site: Site) -> None:
    assert site.load(environ={"MXGW_CLIENT_API_KEY": "x", "MXGWX": "1", "PATH": "/bin", "mxgw_limits": "1"})


def test_the_process_environment_is_the_default(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    from mxgw_core.config import load_settings

    monkeypatch.setenv("MXGW_LIMITS__SESSIONS", "9")

    assert load_settings(directory=site.directory).settings.limits.sessions == 9


def test_command_line_values_keep_their_type_and_none_means_not_given(site: Site) -> None:
    site.write("[limits]\nsessions = 7")

    overrides: dict[str, Any] = {
        "gateway.listen": ("127.0.0.1:9",),
        "gateway.data_dir": Path("x"),
        "limits.sessions": None,
        "backends.sim": {"profile": "load"},
    }
    settings = site.load(overrides=overrides).settings

    assert settings.gateway.listen == ("127.0.0.1:9",)
    assert settings.gateway.data_dir == Path("x")
    assert settings.limits.sessions == 7
    assert settings.backends["sim"].options() == {"profile": "load"}


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("LIMITS__SESIONS", "1", "limits.sesions: unknown key; did you mean 'sessions'?"),
        ("LIMIT__SESSIONS", "1", "limit: unknown key; did you mean 'limits'?"),
        ("", "1", ": unknown key; valid are: backends, "),
        ("LIMITS__SESSIONS", "many", 'limits.sessions: must be a valid integer (is "many")'),
        ("GATEWAY__REFLECTION", "yes", 'gateway.reflection: must be a valid boolean (is "yes")'),
        ("LIMITS", "5", "limits: must be a table"),
    ],
)
def test_a_bad_variable_is_named(problems: Callable[..., list[str]], name: str, text: str, line: str) -> None:
    (problem,) = problems(environ={f"MXGW_{name}": text})

    assert problem.startswith(f"environment MXGW_{name}: ")
    assert line in problem
