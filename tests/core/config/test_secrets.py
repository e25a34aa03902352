"""Secrets are in the settings and nowhere else: no repr, no listing, no error text."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pydantic import SecretStr

from mxgw_core.config import effective_settings
from mxgw_core.config.models import SettingsModel
from mxgw_core.config.secrets import is_secret_key

from .conftest import Site

CANARY = "canary-7f3a"


@pytest.mark.parametrize(
    "key",
    ["password", "bind_password", "bindPassword", "PASSWD", "client_secret", "token", "api_key", "api-keys", "pepper",
     "private_key", "plugins.x.token", "credentials", "passphrase"],
)  # fmt: skip
def test_keys_that_name_a_secret_are_recognised(key: str) -> None:
    assert is_secret_key(key)


@pytest.mark.parametrize("key", ["password_file", "token_lifetime_s", "user", "secret.name", "keys", "certificate"])
def test_other_keys_are_not_secrets(key: str) -> None:
    assert not is_secret_key(key)


def test_secrets_show_in_no_repr_and_no_listing(site: Site) -> None:
    site.write(
        f"""
        [backends.sim]
        password = "{CANARY}"
        url = "opc.tcp://anna:{CANARY}@host:4840"
        pem = '''-----BEGIN EC PRIVATE KEY-----
        {CANARY}
        -----END EC PRIVATE KEY-----'''
        nested = {{list = [{{token = "{CANARY}"}}], secret = ["{CANARY}"]}}
        user = "anna"
        [plugins.x]
        api_key = "{CANARY}"
        """
    )

    loaded = site.load()
    shown = {row.key: row.value for row in effective_settings(loaded.settings, loaded.origins)}

    assert loaded.settings.backends["sim"].options()["password"] == CANARY
    assert shown["backends.sim.password"] == "***"
    assert shown["backends.sim.url"] == "opc.tcp://anna:***@host:4840"
    assert shown["backends.sim.user"] == "anna"
    assert shown["plugins.x.api_key"] == "***"
    for text in (repr(loaded), str(loaded.settings), repr(loaded.settings.backends), repr(shown)):
        assert CANARY not in text
    assert "anna" in repr(loaded)


def test_a_declared_file_name_is_no_secret_whatever_its_key(site: Site) -> None:
    site.write("[tls]\ncertificate = 'a.pem'\nprivate_key = 'a.key'")

    loaded = site.load()
    shown = {row.key: row.value for row in effective_settings(loaded.settings, loaded.origins)}

    assert shown["tls.private_key"] == "a.key"


def test_no_error_repeats_a_secret(site: Site, problems: Callable[..., list[str]]) -> None:
    text = f"[backends.sim.kind]\npassword = '{CANARY}'\n[plugins]\ntoken = '{CANARY}'\n[gateway]\nsecret = '{CANARY}'"

    lines = problems(text)

    assert len(lines) == 3
    assert CANARY not in "\n".join(lines)


def test_a_model_s_own_error_repeats_no_value() -> None:
    class Section(SettingsModel):
        password: SecretStr

    with pytest.raises(ValueError, match="password") as caught:
        Section.model_validate({"password": {"value": CANARY}, "other": CANARY})

    assert CANARY not in str(caught.value)


def test_every_setting_is_listed_once_with_its_origin(site: Site) -> None:
    site.write("[limits]\nsessions = 3\n[plugins.x]\na = {b = 1}")

    loaded = site.load(environ={"MXGW_PLUGINS__ENABLED": "x"})
    rows = effective_settings(loaded.settings, loaded.origins)
    origins = {row.key: row.origin for row in rows}

    assert len(origins) == len(rows)
    assert origins["limits.sessions"] == "settings.toml"
    assert origins["limits.lease_s"] == "default"
    assert origins["plugins.enabled"] == "environment MXGW_PLUGINS__ENABLED"
    assert origins["plugins.x.a.b"] == "settings.toml"
    assert origins["backends.sim.kind"] == "default"
