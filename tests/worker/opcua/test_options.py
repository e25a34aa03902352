"""Options: what is refused, and that the text says what would help."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from mxgw_worker.backends.base import BackendUnavailable
from mxgw_worker.backends.opcua import OpcUaBackend
from mxgw_worker.backends.opcua.options import OpcUaOptions

URL = "opc.tcp://127.0.0.1:4840"


def refusal(**options: object) -> str:
    with pytest.raises(BackendUnavailable) as caught:
        OpcUaOptions.parse({"url": URL, **options})
    return str(caught.value)


def test_an_unknown_option_is_refused_with_the_nearest_name() -> None:
    text = refusal(publishing_interval=100)

    assert "'publishing_interval'" in text
    assert "'publishing_interval_ms'" in text


@pytest.mark.parametrize(
    "url", ["", "http://127.0.0.1:4840", "opc.tcp://127.0.0.1", "opc.tcp://:4840", "opc.tcp://host:port", "opc.tcp://["]
)
def test_a_url_of_another_form_is_refused(url: str) -> None:
    assert "opc.tcp://" in refusal(url=url)


def test_a_login_in_the_url_is_refused_without_repeating_it() -> None:
    text = refusal(url="opc.tcp://me:geheim@127.0.0.1:4840")

    assert "'user'" in text
    assert "geheim" not in text


def test_numbers_outside_their_range_are_refused_naming_it() -> None:
    assert "queue_size must lie between 1 and" in refusal(queue_size=0)
    assert "connect_timeout_s must be a number" not in refusal(connect_timeout_s=0)


@pytest.mark.parametrize("value", ["many", True, 1.5, None, [1], "nan", "inf"])
def test_a_value_of_the_wrong_type_is_refused(value: object) -> None:
    assert "'queue_size' must be a whole number" in refusal(queue_size=value)


def test_texts_from_the_environment_count_as_numbers_and_truth_values() -> None:
    options = OpcUaOptions.parse({"url": URL, "queue_size": "50", "trust_any_server_certificate": "true"})

    assert options.queue_size == 50
    assert options.trust_any_server_certificate is True


def test_a_security_policy_needs_certificate_key_and_a_word_on_trust(tmp_path: Path) -> None:
    file = tmp_path / "file.der"
    file.touch()
    own = {"certificate": str(file), "private_key": str(file)}

    assert "'certificate' and 'private_key'" in refusal(security_policy="Basic256Sha256")
    assert "which server certificate to trust" in refusal(security_policy="Basic256Sha256", **own)
    assert "does not go with" in refusal(security_policy="None", security_mode="Sign")
    assert "is not one of" in refusal(security_policy="Basic128")
    assert "not a file" in refusal(
        security_policy="Basic256Sha256", **{**own, "certificate": "/nowhere"}, trust_any_server_certificate=True
    )


def test_errors_of_certificates_are_tolerated_by_their_names() -> None:
    options = OpcUaOptions.parse({"url": URL, "tolerated_certificate_errors": "host_name, validity"})

    assert options.tolerated == {"host_name", "validity"}
    assert "'hostname' is not one of host_name, application_uri" in refusal(tolerated_certificate_errors="hostname")
    assert "'trust' is not one of" in refusal(tolerated_certificate_errors="trust validity")


def test_logins_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    assert "'user' is not" in refusal(password="geheim")
    assert "not both" in refusal(user="me", password="geheim", password_file="/tmp/x")
    assert "go together" in refusal(user_certificate="/tmp/x")
    assert "geheim" not in refusal(password="geheim")


def test_a_lifetime_shorter_than_three_keep_alives_is_refused() -> None:
    assert "three times" in refusal(keep_alive_s=10, subscription_lifetime_s=20)


def test_secrets_are_in_no_representation() -> None:
    options = OpcUaOptions.parse({"url": URL, "user": "me", "password": "geheim"})

    assert "geheim" not in repr(options)
    assert "geheim" not in repr(OpcUaBackend({"url": URL, "user": "me", "password": "geheim"}).info())


def test_the_password_may_stand_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("geheim\n")

    assert OpcUaOptions.parse({"url": URL, "user": "me", "password_file": str(file)}).login_password() == "geheim"
    with pytest.raises(BackendUnavailable, match="cannot read password_file"):
        OpcUaOptions.parse({"url": URL, "user": "me", "password_file": "/nowhere/x"}).login_password()


def test_the_page_lists_every_option_with_its_default() -> None:
    page = Path(__file__).parents[3] / "docs" / "backends" / "opcua.md"
    rows = page.read_text("utf-8").partition("## Options")[2].splitlines()
    for entry in dataclasses.fields(OpcUaOptions):
        row = next((row for row in rows if row.startswith("|") and f"`{entry.name}`" in row.split("|")[1]), None)

        assert row is not None, f"{entry.name} is not on the page"
        if entry.default not in ("", dataclasses.MISSING):
            default = entry.default
            shown = f"{default:g}" if isinstance(default, int | float) and not isinstance(default, bool) else default
            assert str(shown).lower() in row.split("|")[2].lower(), entry.name
