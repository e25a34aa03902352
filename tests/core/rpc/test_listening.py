"""Where the gateway may listen."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from mxgw_core.api.errors import SettingsError
from mxgw_core.config.models import GatewaySettings, Settings, TlsSettings
from mxgw_core.rpc.access import is_loopback, parse_peer
from mxgw_core.rpc.listening import addresses_of, check_free, parse_address

NEEDS_UNIX_SOCKETS = pytest.mark.skipif(sys.platform == "win32", reason="the gateway has no Unix sockets on Windows")


@pytest.mark.parametrize(
    ("peer", "address", "is_local"),
    [
        ("ipv4:127.0.0.1:50000", "127.0.0.1:50000", True),
        ("ipv4:127.9.9.9:1", "127.9.9.9:1", True),
        ("ipv4:192.168.1.7:50000", "192.168.1.7:50000", False),
        ("ipv6:%5B::1%5D:50000", "[::1]:50000", True),
        ("ipv6:[::1]:50000", "[::1]:50000", True),
        ("ipv6:%5B::ffff:127.0.0.1%5D:50000", "[::ffff:127.0.0.1]:50000", True),
        ("ipv6:%5B::ffff:10.0.0.1%5D:50000", "[::ffff:10.0.0.1]:50000", False),
        ("ipv6:%5Bfe80::1%25eth0%5D:50000", "[fe80::1%eth0]:50000", False),
        ("ipv6:%5B2001:db8::1%5D:1", "[2001:db8::1]:1", False),
        ("unix:", "unix", True),
        ("unix:/run/mxgw.sock", "unix", True),
        ("unix-abstract:x", "x", False),
        ("", "", False),
        ("nonsense", "nonsense", False),
        ("ipv4:127.0.0.1", "127.0.0.1", False),
    ],
)
def test_a_peer_is_local_only_when_it_surely_is(peer: str, address: str, is_local: bool) -> None:
    parsed = parse_peer(peer)

    assert (parsed.address, parsed.is_local) == (address, is_local)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.255.0.1", "::1", "::ffff:127.0.0.1", "localhost", "::1%lo"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "10.0.0.1", "::ffff:0.0.0.0", "localhost.example.org", "", "127.0.0.1.example.org", "0"]
)
def test_not_loopback(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("text", "target", "is_local"),
    [
        ("127.0.0.1:50051", "127.0.0.1:50051", True),
        ("0.0.0.0:0", "0.0.0.0:0", False),
        ("[::1]:50051", "[::1]:50051", True),
        ("[::]:50051", "[::]:50051", False),
        ("gateway.example.org:443", "gateway.example.org:443", False),
        pytest.param("unix:/run/mxgw/gateway.sock", "unix:/run/mxgw/gateway.sock", True, marks=NEEDS_UNIX_SOCKETS),
    ],
)
def test_addresses_are_understood(text: str, target: str, is_local: bool) -> None:
    address = parse_address(text)

    assert (address.target, address.is_local) == (target, is_local)


@pytest.mark.parametrize(
    "text",
    ["", ":", "50051", "host", "host:", ":50051", "host:65536", "host:-1", "host:x", "::1:50051", "[::1]", "host:²",
     "host:٣", "unix:", "unix:relative/path", "[::1:50051"],
)  # fmt: skip
def test_what_is_no_address_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(SettingsError, match=r"gateway\.listen"):
        parse_address(text)


@pytest.mark.skipif(sys.platform != "win32", reason="only Windows has none")
def test_a_unix_socket_is_refused_on_windows_with_what_to_do_instead() -> None:
    with pytest.raises(SettingsError, match=r"no Unix sockets on Windows: use a port of this machine"):
        parse_address("unix:C:/mxgw/gateway.sock")


# who may listen where


def _settings(listen: str, *, tls: bool = False, insecure: bool = False) -> Settings:
    return Settings(
        gateway=GatewaySettings(listen=(listen,), allow_insecure=insecure),
        tls=TlsSettings(certificate=Path("c"), private_key=Path("k")) if tls else TlsSettings(),
    )


@pytest.mark.parametrize("listen", ["0.0.0.0:50051", "[::]:50051", "192.168.1.1:1", "gateway.example.org:443"])
@pytest.mark.parametrize("tls", [False, True])
def test_beyond_this_machine_nobody_is_served_without_authentication(listen: str, tls: bool) -> None:
    with pytest.raises(SettingsError, match="no enabled plugin authenticates"):
        addresses_of(_settings(listen, tls=tls, insecure=True), authenticated=False)


def test_beyond_this_machine_nobody_is_served_without_tls_unless_the_settings_insist() -> None:
    with pytest.raises(SettingsError, match="TLS is off"):
        addresses_of(_settings("0.0.0.0:50051"), authenticated=True)

    assert addresses_of(_settings("0.0.0.0:50051", tls=True), authenticated=True)
    assert addresses_of(_settings("0.0.0.0:50051", insecure=True), authenticated=True)


def test_one_open_address_among_local_ones_is_enough_to_refuse() -> None:
    settings = Settings(gateway=GatewaySettings(listen=("127.0.0.1:1", "[::1]:1", "0.0.0.0:1")))
    with pytest.raises(SettingsError, match=r"0\.0\.0\.0:1"):
        addresses_of(settings, authenticated=False)


@pytest.mark.parametrize(
    "listen",
    ["127.0.0.1:50051", "[::1]:0", "localhost:1", pytest.param("unix:/run/mxgw.sock", marks=NEEDS_UNIX_SOCKETS)],
)
def test_this_machine_needs_neither(listen: str) -> None:
    assert addresses_of(_settings(listen), authenticated=False)


# taken addresses


def test_a_port_in_use_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(SettingsError, match="in use"):
            check_free(parse_address(f"127.0.0.1:{port}"))
    check_free(parse_address(f"127.0.0.1:{port}"))


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(SettingsError, match="no such address"):
        check_free(parse_address("192.0.2.1:50051"))


def test_a_host_that_does_not_exist_is_refused() -> None:
    with pytest.raises(SettingsError, match="cannot be used"):
        check_free(parse_address("no-such-host.invalid:50051"))


def test_a_live_unix_socket_is_not_stolen(tmp_path: Path) -> None:
    path = tmp_path / "g.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        with pytest.raises(SettingsError, match="in use by another process"):
            check_free(parse_address(f"unix:{path}"))

        assert path.exists()


def test_a_dead_unix_socket_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "g.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
    check_free(parse_address(f"unix:{path}"))

    assert not path.exists()


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "g.sock"
    path.write_text("something of somebody")
    with pytest.raises(SettingsError, match="no socket"):
        check_free(parse_address(f"unix:{path}"))

    assert path.read_text() == "something of somebody"


def test_a_link_to_a_socket_is_no_socket(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "real.sock"))
    (tmp_path / "g.sock").symlink_to(tmp_path / "real.sock")
    with pytest.raises(SettingsError, match="no socket"):
        check_free(parse_address(f"unix:{tmp_path / 'g.sock'}"))


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="does not exist"):
        check_free(parse_address(f"unix:{tmp_path}/none/g.sock"))
