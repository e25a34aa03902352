"""Makes a certificate authority (CA) in a directory, and certificates that it signs.

Only this module imports `cryptography`.
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mxgw_acl.files import write_private
from mxgw_core.api.files import make_directory, read_private

_CA_DAYS = 3650
# Certificates are valid from one hour before they are made, because the clock of a client can be slow.
_BACKDATED = datetime.timedelta(hours=1)


def init_tls(directory: Path, hosts: Sequence[str], clients: Sequence[str], days: int) -> Mapping[str, Path]:
    """Make new certificates for the gateway and the clients; make a CA first if the directory has none.

    Return the paths of the files. Key: the purpose of a file. Value: its path.

    Raises:
        OSError: a file cannot be read or written, or other users may read the CA's key.
        ValueError: the CA in the directory cannot be used, or a name is not allowed in a certificate.
    """
    make_directory(directory, parents=True, exist_ok=True)
    ca_path, ca_key_path = directory / "ca.pem", directory / "ca.key"
    if not ca_path.exists() or not ca_key_path.exists():
        _make_ca(ca_path, ca_key_path)
    ca = x509.load_pem_x509_certificate(ca_path.read_bytes())
    ca_key = serialization.load_pem_private_key(read_private(ca_key_path), None)
    if not isinstance(ca_key, ec.EllipticCurvePrivateKey) or ca_key.public_key() != ca.public_key():
        raise ValueError("ca.pem and ca.key do not belong together")
    made = {"ca": ca_path, "certificate": directory / "server.pem", "private_key": directory / "server.key"}
    names = list(dict.fromkeys([*hosts, "localhost", "127.0.0.1", "::1", socket.gethostname()]))
    _issue(ca, ca_key, made["certificate"], made["private_key"], names, days, ExtendedKeyUsageOID.SERVER_AUTH)
    for client in clients:
        if not client or "/" in client or client.startswith("."):
            raise ValueError(f"{client!r} cannot be the name of a client")
        certificate, key = directory / f"client-{client}.pem", directory / f"client-{client}.key"
        _issue(ca, ca_key, certificate, key, [client], days, ExtendedKeyUsageOID.CLIENT_AUTH)
        made |= {f"client {client}": certificate, f"client key {client}": key}
    return made


def _make_ca(path: Path, key_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mxgw development CA")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + datetime.timedelta(days=_CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    _replace(key_path, _pem(key))
    _replace(path, certificate.public_bytes(serialization.Encoding.PEM))


def _issue(
    ca: x509.Certificate,
    ca_key: ec.EllipticCurvePrivateKey,
    path: Path,
    key_path: Path,
    names: Sequence[str],
    days: int,
    purpose: x509.ObjectIdentifier,
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])]))
        .issuer_name(ca.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    # The private key is replaced first. A gateway that reads both files before the certificate is replaced finds that
    # the new key does not belong to the old certificate, and keeps its present key and certificate.
    _replace(key_path, _pem(key))
    _replace(path, certificate.public_bytes(serialization.Encoding.PEM))


def _general_name(name: str) -> x509.GeneralName:
    with contextlib.suppress(ValueError):
        return x509.IPAddress(ipaddress.ip_address(name))
    return x509.DNSName(name)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _replace(path: Path, content: bytes) -> None:
    """Replace a file in one step, so that no reader finds an incomplete file."""
    fresh = path.with_name(f".{path.name}.new")
    write_private(fresh, content, replace=True)
    os.replace(fresh, path)  # noqa: PTH105  replaces on every platform
