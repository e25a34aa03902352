"""Decides which server certificates are trusted, and reads the client's own certificate.

A server certificate is trusted when it is one of the trusted certificates, or when a trusted certificate that is a CA
has issued it directly. Revocation lists are not read: remove a revoked certificate from the directory of trusted
certificates.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from mxgw_worker.backends.base import BackendUnavailable
from mxgw_worker.platform.private_files import read_private

_SUFFIXES = frozenset({".der", ".crt", ".cer", ".pem"})


def load(path: Path) -> x509.Certificate:
    """Return the first certificate in a PEM or DER file.

    Raises:
        BackendUnavailable: the file has no certificate that can be read.
    """
    try:
        content = path.read_bytes()
        pem = content.lstrip().startswith(b"-----BEGIN")
        return x509.load_pem_x509_certificate(content) if pem else x509.load_der_x509_certificate(content)
    except (OSError, ValueError) as error:
        raise BackendUnavailable(f"opcua: {path} holds no certificate that can be read: {error}") from error


def der(path: Path) -> bytes:
    """Return the certificate of a PEM or DER file in DER form. It is read here, because the library would read the file
    in a thread that never ends.

    Raises:
        BackendUnavailable: the file has no certificate that can be read.
    """
    return load(path).public_bytes(Encoding.DER)


def private_key(path: Path) -> tuple[bytes, str]:
    """Return the content of a key file, and its form: `pem` or `der`.

    Raises:
        BackendUnavailable: the file cannot be read, or other users have access to it.
    """
    try:
        content = read_private(path)
    except OSError as error:
        raise BackendUnavailable(f"opcua: the private key {path} cannot be read: {error.strerror or error}") from error
    return content, "pem" if content.lstrip().startswith(b"-----BEGIN") else "der"


def application_uri(certificate: x509.Certificate) -> str:
    """Return the application URI in an OPC UA certificate; "" when there is none."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ""
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    return uris[0] if uris else ""


def check_trusted(server_der: bytes, trusted: Path) -> None:
    """Check that the server's certificate is trusted and valid today.

    `trusted` is a directory of certificates, or one file.

    Raises:
        BackendUnavailable: the certificate is not trusted or not valid; the text has its fingerprint, so that it can be
            compared and the certificate added.
    """
    certificate = x509.load_der_x509_certificate(server_der)
    print_ = certificate.fingerprint(hashes.SHA256()).hex()
    now = datetime.now(UTC)
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        raise BackendUnavailable(
            f"opcua: the server's certificate (SHA-256 {print_}) is not valid today; renew it on the server"
        )
    files = sorted(p for p in trusted.iterdir() if p.suffix.lower() in _SUFFIXES) if trusted.is_dir() else [trusted]
    if not any(_vouches(load(path), certificate) for path in files):
        raise BackendUnavailable(
            f"opcua: the server's certificate (SHA-256 {print_}) is not among those in {trusted}; "
            "compare the fingerprint with the server's, then put the certificate there"
        )


def _vouches(trusted: x509.Certificate, certificate: x509.Certificate) -> bool:
    if trusted.public_bytes(Encoding.DER) == certificate.public_bytes(Encoding.DER):
        return True
    try:
        if not trusted.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            return False
        certificate.verify_directly_issued_by(trusted)
    except (x509.ExtensionNotFound, InvalidSignature, ValueError, TypeError):
        return False
    now = datetime.now(UTC)
    return trusted.not_valid_before_utc <= now <= trusted.not_valid_after_utc
