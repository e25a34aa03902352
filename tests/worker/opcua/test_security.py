"""Security policies, trust, logins, and that no secret reaches a log."""

from __future__ import annotations

import logging
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import pytest

from mxgw.v1.events_pb2 import SOURCE_HEALTH_GOOD, SOURCE_HEALTH_LOST
from mxgw_worker.backends.base import BackendUnavailable
from mxgw_worker.backends.opcua import OpcUaBackend
from mxgw_worker.backends.opcua.certificates import private_key

from .certificates import Identity, local_names, make_identity
from .harness import NS, Sink, demo_process, endpoint_of, port_of, running_backend, running_proxy

PASSWORD = "Geheim-4711"


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pki")
    for name in ("client", "stranger", "person"):
        make_identity(folder, name)
    # This certificate does not name the address at which the tests call the server.
    make_identity(folder, "server", names=local_names("urn:test:server")[:2])
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
    listed = {"server_certificate": "", "trusted_certificates": str(pki / "trusted")}
    for trust in ({}, {**listed, "tolerated_certificate_errors": "host_name"}):
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


@pytest.mark.soak
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.asyncio
async def test_renewed_certificates_of_server_and_client_are_used_at_the_next_connect(
    tmp_path: Path,
) -> None:
    own = [make_identity(tmp_path, name) for name in ("client", "renewed")]
    servers = [make_identity(tmp_path, name, names=local_names("urn:test:line")) for name in ("before", "after")]
    (tmp_path / "trusted").mkdir()
    shutil.copy(servers[0].certificate, tmp_path / "trusted")
    options = secure(
        tmp_path,
        server_certificate="",
        trusted_certificates=str(tmp_path / "trusted"),
        user="",
        password="",
        reconnect_max_delay_s=0.3,
    )

    def running(server: Identity, port: int = 0) -> AbstractContextManager[subprocess.Popen[str]]:
        files = ("--certificate", str(server.certificate), "--private-key", str(server.private_key))
        return demo_process(*files, port=port)

    with ExitStack() as stack:
        old = stack.enter_context(running(servers[0]))
        endpoint = endpoint_of(old)
        async with running_backend(endpoint, options) as (backend, sink):
            old.kill()
            old.wait()
            shutil.copy(own[1].private_key, own[0].private_key)
            shutil.copy(own[1].certificate, own[0].certificate)
            shutil.copy(servers[1].certificate, tmp_path / "trusted")
            stack.enter_context(running(servers[1], port_of(endpoint)))
            await sink.until(lambda: sink.healths()[-1] == SOURCE_HEALTH_GOOD and len(sink.healths()) == 3)
            client = backend._connection._client

            assert client is not None
            assert client.security_policy.host_certificate == own[1].certificate.read_bytes()
            assert client.security_policy.peer_certificate == servers[1].certificate.read_bytes()


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.asyncio
async def test_a_renewed_certificate_of_the_client_is_used_at_the_next_connect(
    pki: Path, tmp_path: Path, secured: str
) -> None:
    own, renewed = make_identity(tmp_path, "client"), make_identity(tmp_path, "renewed")
    files = {"certificate": str(own.certificate), "private_key": str(own.private_key)}
    async with running_proxy(port_of(secured)) as proxy:
        endpoint = f"opc.tcp://127.0.0.1:{proxy.port}/mxgw/demo"
        async with running_backend(endpoint, secure(pki, **files)) as (backend, sink):
            client = backend._connection._client

            assert client is not None
            assert client.security_policy.host_certificate == own.certificate.read_bytes()

            proxy.cut()
            shutil.copy(renewed.private_key, own.private_key)
            shutil.copy(renewed.certificate, own.certificate)
            await sink.until(lambda: SOURCE_HEALTH_LOST in sink.healths())
            proxy.heal()
            await sink.until(lambda: sink.healths()[-1] == SOURCE_HEALTH_GOOD)

            assert client.security_policy.host_certificate == renewed.certificate.read_bytes()
            assert backend._connection.up


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.asyncio
async def test_the_name_in_the_url_must_be_one_of_the_certificate_unless_that_is_tolerated(
    pki: Path, secured: str
) -> None:
    trusting = secure(pki, server_certificate="", trusted_certificates=str(pki / "trusted"))

    assert "is for the host localhost and not for 127.0.0.1" in await refusal(secured, trusting)
    by_name = secured.replace("127.0.0.1", "localhost")
    for endpoint, tolerated in ((by_name, ""), (secured, "host_name")):
        options = {**trusting, "tolerated_certificate_errors": tolerated}
        async with running_backend(endpoint, options) as (backend, _):
            assert await backend.register("named") == 1


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


def test_a_private_key_that_others_may_read_is_refused_unless_they_cannot_enter_its_directory(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    identity = make_identity(tmp_path, "client")
    identity.private_key.chmod(0o644)
    with pytest.raises(
        BackendUnavailable, match=r"private key .* other users may read it \(mode 0644\); run: chmod 600"
    ):
        private_key(identity.private_key)

    tmp_path.chmod(0o700)
    assert private_key(identity.private_key)[1] == "pem"
