"""Security policies, trust, logins, and that no secret reaches a log."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from mxgw_worker.backends.base import BackendUnavailable
from mxgw_worker.backends.opcua import OpcUaBackend
from mxgw_worker.backends.opcua.certificates import private_key

from .certificates import make_identity
from .harness import NS, Sink, demo_process, endpoint_of, running_backend

PASSWORD = "Geheim-4711"


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pki")
    for name in ("server", "client", "stranger", "person"):
        make_identity(folder, name)
    make_identity(folder, "locked", password="open-sesame")
    (folder / "password").write_text(PASSWORD + "\n")
    (folder / "trusted").mkdir()
    shutil.copy(folder / "server.der", folder / "trusted")
    return folder


@pytest.fixture
def quiet_library() -> Iterator[None]:
    library = logging.getLogger("asyncua")
    before = library.level
    yield
    library.setLevel(before)


def secure(pki: Path, **changes: object) -> dict[str, object]:
    return {
        "security_policy": "Basic256Sha256",
        "certificate": str(pki / "client.der"),
        "private_key": str(pki / "client.pem"),
        "server_certificate": str(pki / "server.der"),
        "user": "operator",
        "password": PASSWORD,
        **changes,
    }


@pytest.fixture(scope="module")
def secured(pki: Path) -> Iterator[str]:
    """The endpoint of a server that lets in one user and one certificate, encrypted only."""
    with demo_process(
        *("--certificate", str(pki / "server.der"), "--private-key", str(pki / "server.pem")),
        *("--user", "operator", "--password-file", str(pki / "password")),
        *("--user-certificate", str(pki / "person.der"), "--items", "1", "--rate", "20"),
    ) as process:
        yield endpoint_of(process)


async def refusal(endpoint: str, options: dict[str, object]) -> str:
    with pytest.raises(BackendUnavailable) as refused:
        await OpcUaBackend({"url": endpoint, **options}).start(Sink())
    return str(refused.value)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.asyncio
async def test_signed_and_encrypted_with_a_login_values_flow_and_every_mistake_has_its_cure(
    pki: Path, secured: str, caplog: pytest.LogCaptureFixture, quiet_library: None
) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("asyncua").setLevel(logging.DEBUG)
    wrong_password = await refusal(secured, secure(pki, password="falsch"))
    assert "refuses user 'operator'" in wrong_password
    assert "falsch" not in wrong_password

    untrusted = await refusal(
        secured, secure(pki, server_certificate="", trusted_certificates=str(pki / "stranger.der"))
    )
    assert "SHA-256" in untrusted
    assert "stranger.der" in untrusted

    no_offer = await refusal(
        secured,
        secure(pki, server_certificate="", security_policy="Aes256Sha256RsaPss", trust_any_server_certificate=True),
    )
    assert "it offers Basic256Sha256/SignAndEncrypt" in no_offer

    assert "does not offer None/None; set security_policy" in await refusal(secured, {})

    # The channel is renewed every 0.75 s meanwhile.
    for trust in ({}, {"server_certificate": "", "trusted_certificates": str(pki / "trusted")}):
        async with running_backend(secured, secure(pki, channel_lifetime_s=1, **trust)) as (backend, sink):
            connection = backend._connection._client.uaclient.protocol._connection
            token = connection.security_token.TokenId
            handle = await backend.register("secure")
            item = await backend.add_item(handle, NS + "Load.0")
            await backend.advise(handle, item)
            await sink.until(lambda sink=sink, item=item: len(sink.changes(item)) >= 45)
            values = [change.value for change in sink.changes(item)]

            assert isinstance(values[0], int)
            assert values == list(range(values[0], values[0] + len(values)))
            assert sink.gaps() == []
            assert connection.security_token.TokenId > token

    assert PASSWORD not in caplog.text
    assert "falsch" not in caplog.text


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.asyncio
async def test_a_key_that_cannot_be_opened_is_named(pki: Path) -> None:
    text = await refusal(
        "opc.tcp://127.0.0.1:1",
        secure(pki, certificate=str(pki / "locked.der"), private_key=str(pki / "locked.pem")),
    )

    assert "locked.pem" in text
    assert "private_key_password" in text


@pytest.mark.asyncio
async def test_a_password_does_not_cross_an_open_network_unless_that_is_wanted(pki: Path) -> None:
    login = {"user": "operator", "password_file": str(pki / "password")}
    with demo_process("--user", "operator", "--password-file", str(pki / "password")) as process:
        endpoint = endpoint_of(process)
        assert "unencrypted" in await refusal(endpoint, dict(login))
        async with running_backend(endpoint, {**login, "allow_plaintext_password": True}) as (backend, _):
            assert await backend.register("open") == 1


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.asyncio
async def test_a_person_may_log_in_with_a_certificate(pki: Path, secured: str) -> None:
    def as_person(name: str) -> dict[str, object]:
        own = {"user_certificate": str(pki / f"{name}.der"), "user_private_key": str(pki / f"{name}.pem")}
        return secure(pki, user="", password="", **own)

    async with running_backend(secured, as_person("person")) as (backend, _):
        assert await backend.register("person") == 1

    assert "refuses this login" in await refusal(secured, as_person("stranger"))


def test_a_private_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    identity = make_identity(tmp_path, "client")
    identity.private_key.chmod(0o644)
    with pytest.raises(
        BackendUnavailable, match=r"private key .* other users may read it \(mode 0644\); run: chmod 600"
    ):
        private_key(identity.private_key)
