"""Certificates as OPC UA applications have them, made when a test needs them."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


def local_names(uri: str) -> list[x509.GeneralName]:
    """Return the names of an application on this machine."""
    return [
        x509.UniformResourceIdentifier(uri),
        x509.DNSName("localhost"),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
    ]


@dataclass(frozen=True)
class Identity:
    certificate: Path
    private_key: Path
    key: rsa.RSAPrivateKey
    issued: x509.Certificate


def make_identity(
    folder: Path,
    name: str,
    *,
    issuer: Identity | None = None,
    ca: bool = False,
    days: int = 30,
    password: str = "",
    names: Sequence[x509.GeneralName] | None = None,
    usage: x509.KeyUsage | None = None,
    purposes: Sequence[x509.ObjectIdentifier] = (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH),
    starts_in_days: int = -60,
    key_bits: int = 2048,
    path_length: int | None = None,
) -> Identity:
    """Write `<name>.der` and `<name>.pem` (the key) into `folder`; self-signed without an issuer. `names` are those of
    the application; without them it is `urn:test:<name>` on this machine.
    """
    key = rsa.generate_private_key(public_exponent=65_537, key_size=key_bits)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.issued.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=starts_in_days))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=path_length), critical=True)
        .add_extension(
            x509.SubjectAlternativeName(local_names(f"urn:test:{name}") if names is None else names),
            critical=False,
        )
        .add_extension(x509.ExtendedKeyUsage(list(purposes)), critical=False)
    )
    if usage is not None:
        builder = builder.add_extension(usage, critical=True)
    certificate = builder.sign(issuer.key if issuer else key, hashes.SHA256())
    certificate_path, key_path = folder / f"{name}.der", folder / f"{name}.pem"
    certificate_path.write_bytes(certificate.public_bytes(Encoding.DER))
    encryption = BestAvailableEncryption(password.encode()) if password else NoEncryption()
    key_path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    key_path.chmod(0o600)
    return Identity(certificate_path, key_path, key, certificate)


def make_revocation_list(
    folder: Path, authority: Identity, *revoked: Identity, age_days: int = 1, days: int = 30
) -> Path:
    """Write the revocation list of a CA into `folder`. It is `age_days` old, and current for `days` more."""
    now = datetime.now(UTC)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.issued.subject)
        .last_update(now - timedelta(days=age_days))
        .next_update(now + timedelta(days=days))
    )
    for identity in revoked:
        builder = builder.add_revoked_certificate(
            x509.RevokedCertificateBuilder()
            .serial_number(identity.issued.serial_number)
            .revocation_date(now - timedelta(days=age_days))
            .build()
        )
    path = folder / f"{authority.certificate.stem}-{age_days}.crl"
    path.write_bytes(builder.sign(authority.key, hashes.SHA256()).public_bytes(Encoding.DER))
    return path
