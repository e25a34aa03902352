"""The doctor's checks, each against the real thing: sockets, directories, certificates."""

from __future__ import annotations

import datetime
import ipaddress
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from support.access import let_others_read

from mxgw_cli.children import temporary_directory
from mxgw_cli.doctor.directories import check_data_directory
from mxgw_cli.doctor.listening import check_exposure, check_listen
from mxgw_cli.doctor.machine import (
    check_clock,
    check_memory,
    check_open_files,
    check_versions,
    memory_bytes,
    newest_file_time,
)
from mxgw_cli.doctor.report import Check, Outcome, is_healthy
from mxgw_cli.doctor.tls import check_tls
from mxgw_core.config.models import MIB, GatewaySettings, LimitSettings, Settings, TlsSettings
from mxgw_worker.platform import make_private, privacy_command


@contextmanager
def listener() -> Iterator[int]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening.getsockname()[1]


def outcome(checks: list[Check]) -> Outcome:
    """Return the worst outcome of several checks."""
    order = [Outcome.SKIPPED, Outcome.OK, Outcome.WARNING, Outcome.FAILED]
    return max((check.outcome for check in checks), key=order.index)


def assert_cured(check: Check) -> None:
    assert check.cure, check


# listening


def test_a_free_port_is_free() -> None:
    assert check_listen("127.0.0.1:0").outcome is Outcome.OK


def test_a_taken_port_fails_and_the_cure_finds_out_by_whom() -> None:
    with listener() as port:
        check = check_listen(f"127.0.0.1:{port}")

    assert check.outcome is Outcome.FAILED
    assert "in use" in check.detail
    assert f":{port}" in check.cure


@pytest.mark.parametrize("address", ["203.0.113.7:50051", "no.such.host.invalid:1", "127.0.0.1", "::1:50051"])
def test_an_address_that_cannot_be_fails_with_a_cure(address: str) -> None:
    check = check_listen(address)

    assert check.outcome is Outcome.FAILED
    assert_cured(check)


def test_a_unix_socket_is_tried_and_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("/tmp") / f"mxgw-doctor-test-{os.getpid()}.sock"
    check = check_listen(f"unix:{path}")

    assert check.outcome is Outcome.OK
    assert not path.exists()


def test_a_served_unix_socket_fails_a_dead_one_warns_and_a_file_fails() -> None:
    path = Path("/tmp") / f"mxgw-doctor-test-{os.getpid()}.sock"
    try:
        with socket.socket(socket.AF_UNIX) as serving:
            serving.bind(str(path))
            serving.listen()
            served = check_listen(f"unix:{path}")
        dead = check_listen(f"unix:{path}")
        path.unlink()
        path.write_text("a file")
        taken = check_listen(f"unix:{path}")
    finally:
        path.unlink(missing_ok=True)

    assert [check.outcome for check in (served, dead, taken)] == [Outcome.FAILED, Outcome.WARNING, Outcome.FAILED]
    assert all(check.cure for check in (served, dead, taken))


def test_a_socket_path_that_is_too_long_or_nowhere_fails() -> None:
    assert "longer than" in check_listen("unix:/tmp/" + "x" * 200).detail
    assert "mkdir" in check_listen("unix:/nonexistent/place/gateway.sock").cure


def test_serving_strangers_unprotected_is_found_before_the_gateway_refuses_it() -> None:
    exposed = Settings(gateway=GatewaySettings(listen=("0.0.0.0:50051",)))
    check = check_exposure(exposed, authenticated=False)

    assert check is not None
    assert check.outcome is Outcome.FAILED
    assert "acl" in check.cure
    assert check_exposure(Settings(), authenticated=False) is None


# directories


def test_a_private_directory_is_fine_and_the_probe_is_gone() -> None:
    with temporary_directory("mxgw-test-") as directory:
        checks = check_data_directory(directory)

        assert outcome(checks) is Outcome.OK
        assert list(directory.iterdir()) == []


def test_a_directory_that_others_may_enter_fails(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    directory.mkdir()
    let_others_read(directory)
    check = check_data_directory(directory)[0]

    assert (check.outcome, privacy_command(directory, is_directory=True) in check.cure) == (Outcome.FAILED, True)


def test_a_file_in_the_place_of_the_directory_fails(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("x")

    assert check_data_directory(tmp_path / "data")[0].outcome is Outcome.FAILED


def test_a_directory_whose_path_is_too_long_for_sockets_fails() -> None:
    assert any("too long" in check.detail for check in check_data_directory(Path("/tmp/" + "x" * 90)))


def test_a_directory_that_can_be_made_is_fine_and_is_not_made() -> None:
    # In a short place: below pytest's own directories the path can be too long for sockets.
    with tempfile.TemporaryDirectory(prefix="mxgw-") as place:
        new = Path(place) / "new"
        check = check_data_directory(new / "data")[0]

        assert check.outcome is Outcome.OK
        assert not new.exists()


# TLS


def certificate(
    directory: Path, name: str = "server", *, days: tuple[int, int] = (-1, 365), names: bool = True, ca: bool = False
) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + datetime.timedelta(days=days[0] - 1))
        .not_valid_after(now + datetime.timedelta(days=days[1]))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if names:
        loopback = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("plant.example"), loopback]), False)
    made = builder.sign(key, hashes.SHA256())
    certificate_file, key_file = directory / f"{name}.pem", directory / f"{name}.key"
    certificate_file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    make_private(key_file)
    return certificate_file, key_file


def test_a_good_certificate_says_until_when_and_for_whom(tmp_path: Path) -> None:
    pem, key = certificate(tmp_path)
    checks = check_tls(TlsSettings(certificate=pem, private_key=key))

    assert outcome(checks) is Outcome.OK
    assert "valid until" in checks[0].detail
    assert "plant.example, 127.0.0.1" in checks[0].detail


def test_an_expired_certificate_fails_and_one_that_soon_will_be_warns(tmp_path: Path) -> None:
    old, old_key = certificate(tmp_path, "old", days=(-20, -10))
    soon, soon_key = certificate(tmp_path, "soon", days=(-20, 10))
    expired = check_tls(TlsSettings(certificate=old, private_key=old_key))

    assert outcome(expired) is Outcome.FAILED
    assert "expired" in expired[0].detail
    assert outcome(check_tls(TlsSettings(certificate=soon, private_key=soon_key))) is Outcome.WARNING


def test_a_key_of_another_certificate_fails(tmp_path: Path) -> None:
    pem, _ = certificate(tmp_path, "one")
    _, other = certificate(tmp_path, "two")
    checks = check_tls(TlsSettings(certificate=pem, private_key=other))

    assert outcome(checks) is Outcome.FAILED
    assert_cured(checks[0])


def test_a_certificate_without_names_an_open_key_and_missing_files_are_told(tmp_path: Path) -> None:
    pem, key = certificate(tmp_path, names=False)
    let_others_read(key)
    checks = check_tls(TlsSettings(certificate=pem, private_key=key))
    missing = check_tls(TlsSettings(certificate=tmp_path / "none.pem", private_key=key))

    assert "subjectAltName" in checks[0].cure
    assert [check.outcome for check in checks if privacy_command(key) in check.cure] == [Outcome.FAILED]
    assert any("other users may read it (" in check.detail for check in checks)
    assert "No such file" in missing[0].detail


def test_a_client_ca_must_be_a_ca_that_is_valid(tmp_path: Path) -> None:
    pem, key = certificate(tmp_path)
    ca, _ = certificate(tmp_path, "ca", ca=True)
    old, _ = certificate(tmp_path, "oldca", ca=True, days=(-20, -10))

    def with_ca(path: Path) -> Check:
        return check_tls(TlsSettings(certificate=pem, private_key=key, client_ca=path))[-1]

    assert with_ca(ca).outcome is Outcome.OK
    assert with_ca(old).outcome is Outcome.FAILED
    assert with_ca(key).outcome is Outcome.FAILED


# machine


def test_a_clock_before_the_installation_fails_and_an_unkept_one_warns() -> None:
    assert check_clock(now=newest_file_time() - 10 * 86_400).outcome is Outcome.FAILED
    assert check_clock(now=time.time(), is_synchronised=False).outcome is Outcome.WARNING
    assert check_clock(now=time.time(), is_synchronised=True).outcome is Outcome.OK


def test_the_open_file_limit_is_held_against_the_configured_sessions() -> None:
    limits = LimitSettings(sessions=64, concurrent_calls=1000)
    checks = [check_open_files(limits, soft_limit=soft) for soft in (256, 1024, 4096)]

    assert [check.outcome for check in checks] == [Outcome.FAILED, Outcome.WARNING, Outcome.OK]
    assert "ulimit -n" in checks[0].cure


def test_versions_name_what_support_asks_for() -> None:
    detail = check_versions([])[0].detail

    assert all(name in detail for name in ("Python", "mxgw", "grpcio", "protobuf"))
    assert check_versions(["opcua"])[1].outcome is Outcome.OK


def test_only_failures_make_it_unhealthy() -> None:
    def found(kind: Outcome) -> Check:
        return Check("a", "t", kind, "d", "c")

    assert is_healthy([found(Outcome.OK), found(Outcome.WARNING), found(Outcome.SKIPPED)])
    assert not is_healthy([found(Outcome.FAILED)])


@pytest.mark.parametrize(
    ("present", "outcome"),
    [
        (8192 * MIB, Outcome.OK),
        (2500 * MIB, Outcome.WARNING),  # with 64 workers
        (1024 * MIB, Outcome.WARNING),
        (0, Outcome.SKIPPED),
    ],
)
def test_the_memory_for_events_is_compared_with_what_there_is(present: int, outcome: Outcome) -> None:
    check = check_memory(LimitSettings(), present_bytes=present)

    assert check.outcome is outcome
    assert (check.cure != "") == (outcome is Outcome.WARNING)


def test_a_control_group_s_limit_counts_as_the_machine_s_memory(tmp_path: Path) -> None:
    def write(name: str, text: str) -> None:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="ascii")

    assert memory_bytes(tmp_path) == 0

    write("proc/meminfo", "MemTotal:       8000000 kB\nMemFree:         100 kB\n")

    assert memory_bytes(tmp_path) == 8_000_000 * 1024

    write("proc/self/cgroup", "0::/system.slice/mxgw.service\n")
    write("sys/fs/cgroup/system.slice/mxgw.service/memory.max", "max\n")

    assert memory_bytes(tmp_path) == 8_000_000 * 1024

    write("sys/fs/cgroup/system.slice/memory.max", "1073741824\n")

    assert memory_bytes(tmp_path) == 1 << 30
