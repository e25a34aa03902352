"""Targets, TLS, API keys and flow control: what connect() accepts, and what is sent then."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
from pathlib import Path

import grpc
import pytest
from client.scripted import Scripted, changes, opened, scripted_gateway
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from support.access import let_others_read

from mxgw_client import ApiKey, Flow, Tls, connect, errors, options
from mxgw_client.options import HAS_UNIX_SOCKETS, ConnectOptions, Target
from mxgw_worker.platform import make_private

KEY = "mxgw_test_k1_0123456789"


@pytest.mark.parametrize(
    ("text", "is_local"),
    [
        ("127.0.0.1:50051", True),
        ("localhost:1", True),
        ("[::1]:50051", True),
        *([("unix:/run/mxgw.sock", True), ("unix:///run/mxgw.sock", True)] if HAS_UNIX_SOCKETS else []),
        ("10.1.2.3:50051", False),
        ("gateway.plant:50051", False),
        ("127.0.0.1.evil.example:1", False),
    ],
)
def test_a_target_knows_whether_it_stays_on_the_machine(text: str, is_local: bool) -> None:
    assert Target.parse(text).is_local is is_local


@pytest.mark.parametrize("text", ["", "gateway", "gateway:", ":50051", "h:0", "h:99999", "h:x", "http://h:1", "unix:a"])
def test_what_is_no_target_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        connect(text)


def test_a_unix_socket_is_refused_in_words_where_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "HAS_UNIX_SOCKETS", False)
    with pytest.raises(ValueError, match=r"no Unix sockets on Windows; give host:port"):
        connect("unix:/run/mxgw/gateway.sock")


def test_an_ipv6_address_needs_brackets() -> None:
    with pytest.raises(ValueError, match="brackets"):
        connect("::1:50051")


def test_an_api_key_does_not_leave_the_machine_in_plain_text() -> None:
    with pytest.raises(errors.ConnectionOptionError, match="plain text") as raised:
        connect("gateway.plant:50051", api_key=KEY)

    assert KEY not in str(raised.value)
    for allowed in (
        connect("gateway.plant:50051", api_key=KEY, tls=True),
        connect("gateway.plant:50051", api_key=KEY, insecure_api_key=True),
        connect("127.0.0.1:50051", api_key=KEY),
        *([connect("unix:/run/mxgw.sock", api_key=KEY)] if HAS_UNIX_SOCKETS else []),
    ):
        assert KEY not in repr(allowed)


def test_an_api_key_is_never_shown() -> None:
    key = ApiKey(KEY)
    options = ConnectOptions(Target.parse("127.0.0.1:1"), api_key=key)

    for text in (repr(key), str(key), f"{key}", repr(options), f"{options}"):
        assert KEY not in text


@pytest.mark.parametrize("text", ["", "two words", "line\n", "clé"])
def test_what_cannot_be_an_api_key_is_refused_before_it_is_sent(text: str) -> None:
    with pytest.raises(errors.ConnectionOptionError):
        ApiKey(text)


@pytest.mark.asyncio
async def test_the_api_key_goes_out_with_every_call(scripted: Scripted) -> None:
    async def stream(request, context):
        yield opened()

    scripted.script.stream = stream
    async with connect(scripted.target, api_key=KEY) as gateway, gateway.open_session() as session:
        await session.add_item("A")
        async with session.events():
            pass

    assert len(scripted.script.metadata) == len(scripted.script.calls) >= 6
    assert {entry.get("authorization") for entry in scripted.script.metadata} == {f"Bearer {KEY}"}


@pytest.mark.asyncio
async def test_no_key_means_no_authorization(scripted: Scripted) -> None:
    async with connect(scripted.target):
        pass

    assert all("authorization" not in entry for entry in scripted.script.metadata)


def test_the_keepalive_options_that_find_a_dead_peer_are_set() -> None:
    options = dict(ConnectOptions(Target.parse("127.0.0.1:1")).channel_options())

    assert options["grpc.keepalive_time_ms"] == 10_000
    assert options["grpc.keepalive_timeout_ms"] == 5_000
    assert options["grpc.http2.ping_timeout_ms"] == 5_000
    assert options["grpc.enable_retries"] == 0


def test_a_proxy_is_for_remote_targets_only() -> None:
    local = dict(ConnectOptions(Target.parse("127.0.0.1:1")).channel_options())
    remote = dict(ConnectOptions(Target.parse("gateway.plant:1")).channel_options())

    assert local["grpc.enable_http_proxy"] == 0
    assert "grpc.enable_http_proxy" not in remote


async def _bytes_taken_by_a_stalled_reader(flow: Flow) -> int:
    """Return how many bytes of events a gateway could send to a client that reads none of them."""
    taken = 0
    frame = changes(1, 100)

    async with scripted_gateway() as scripted:

        async def stream(request, context):
            nonlocal taken
            yield opened()
            for _ in range(2_000):
                yield frame
                taken += frame.ByteSize()

        scripted.script.stream = stream
        async with connect(scripted.target, flow=flow) as gateway, gateway.open_session() as session:
            events = session.events()
            await anext(events)
            before, quiet = -1, 0
            while quiet < 5:  # no event says that no more is accepted
                quiet = quiet + 1 if taken == before else 0
                before = taken
                await asyncio.sleep(0.15)
            await events.close()
    return taken


@pytest.mark.asyncio
async def test_bounded_flow_shows_the_lag_and_fast_flow_hides_megabytes() -> None:
    bounded = await _bytes_taken_by_a_stalled_reader(Flow.BOUNDED)
    fast = await _bytes_taken_by_a_stalled_reader(Flow.FAST)

    assert bounded < 400_000
    assert fast > 2 * bounded


# TLS


class Certificates:
    """A CA, a server certificate for `gateway.test`, and a client certificate, as PEM files."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        ca_key, self._ca = self._make("ca", None, None)
        self._make("server", self._ca, ca_key)
        self._make("client", self._ca, ca_key)

    def _make(self, name: str, issuer: x509.Certificate | None, issuer_key: ec.EllipticCurvePrivateKey | None):
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = dt.datetime.now(dt.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer.subject if issuer else subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
            .add_extension(
                x509.SubjectAlternativeName(
                    [x509.DNSName("gateway.test")]
                    + ([] if name == "server" else [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
                ),
                critical=False,
            )
            .sign(issuer_key or key, hashes.SHA256())
        )
        (self.directory / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        (self.directory / f"{name}.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        make_private(self.directory / f"{name}.key")
        return key, certificate

    def read(self, name: str) -> bytes:
        return (self.directory / name).read_bytes()


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


@pytest.mark.asyncio
async def test_mutual_tls_with_a_server_name_override(certificates: Certificates) -> None:
    directory = certificates.directory
    credentials = grpc.ssl_server_credentials(
        [(certificates.read("server.key"), certificates.read("server.pem"))],
        root_certificates=certificates.read("ca.pem"),
        require_client_auth=True,
    )
    async with scripted_gateway(credentials=credentials) as scripted:
        tls = Tls(directory / "ca.pem", directory / "client.pem", directory / "client.key", server_name="gateway.test")
        async with connect(scripted.target, tls=tls, api_key=KEY) as gateway:
            assert (await gateway.info()).version == "0.1.0"

        wrong_name = Tls(directory / "ca.pem", directory / "client.pem", directory / "client.key")
        no_certificate = Tls(directory / "ca.pem", server_name="gateway.test")
        for refused in (wrong_name, no_certificate):
            with pytest.raises(errors.GatewayUnreachable, match="agree about TLS"):
                async with connect(scripted.target, tls=refused):
                    pass


def test_a_tls_file_that_cannot_be_read_is_named() -> None:
    with pytest.raises(errors.ConnectionOptionError, match=r"Tls\.ca_file: cannot read /nowhere/ca\.pem"):
        Tls("/nowhere/ca.pem").credentials()
    with pytest.raises(errors.ConnectionOptionError, match="belong together"):
        Tls(certificate_file="/x.pem").credentials()


def test_a_key_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    certificate, key = tmp_path / "client.pem", tmp_path / "client.key"
    certificate.write_text("public")
    key.write_text("secret")
    let_others_read(key)
    with pytest.raises(
        errors.ConnectionOptionError, match=r"Tls\.key_file: .*other users may read it .*(chmod|icacls)"
    ):
        Tls(certificate_file=certificate, key_file=key).credentials()
