"""Certificates as OPC UA applications have them, made when a test needs them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


@dataclass(frozen=True)
class Identity:
    certificate: Path
    private_key: Path
    key: rsa.RSAPrivateKey
    issued: x509.Certificate


def make_identity(
    folder: Path, name: str, *, issuer: Identity | None = None, ca: bool = False, days: int = 30, password: str = ""
) -> Identity:
    """Write `<name>.der` and `<name>.pem` (the key) into `folder`; self-signed without an issuer."""
    key = rsa.generate_private_key(public_exponent=65_537, key_size=2048)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.issued.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=60))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.UniformResourceIdentifier(f"urn:test:{name}"), x509.DNSName("localhost")]
            ),
            critical=False,
        )
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
        )
    )
    certificate = builder.sign(issuer.key if issuer else key, hashes.SHA256())
    certificate_path, key_path = folder / f"{name}.der", folder / f"{name}.pem"
    certificate_path.write_bytes(certificate.public_bytes(Encoding.DER))
    encryption = BestAvailableEncryption(password.encode()) if password else NoEncryption()
    key_path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    key_path.chmod(0o600)
    return Identity(certificate_path, key_path, key, certificate)
