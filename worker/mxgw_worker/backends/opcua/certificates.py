"""Reads certificates, revocation lists and private keys from files, and the certificates that a server sends.

Source: OPC 10000-6, 6.2 (Certificates).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_private_key,
    load_pem_private_key,
)

from mxgw_worker.backends.base import BackendUnavailable
from mxgw_worker.platform import exposure
from mxgw_worker.platform.private_files import read_private

# The most certificates between a server's own and a trusted one, both included.
MAX_CHAIN = 8


def load(path: Path) -> x509.Certificate:
    """Return the first certificate in a PEM or DER file.

    Raises:
        BackendUnavailable: the file has no certificate that can be read.
    """
    try:
        content = path.read_bytes()
        return x509.load_pem_x509_certificate(content) if _is_pem(content) else x509.load_der_x509_certificate(content)
    except (OSError, ValueError) as error:
        raise BackendUnavailable(f"opcua: {path} holds no certificate that can be read: {error}") from error


def load_list(path: Path) -> x509.CertificateRevocationList:
    """Return the revocation list in a PEM or DER file.

    Raises:
        BackendUnavailable: the file has no revocation list that can be read.
    """
    try:
        content = path.read_bytes()
        return x509.load_pem_x509_crl(content) if _is_pem(content) else x509.load_der_x509_crl(content)
    except (OSError, ValueError) as error:
        raise BackendUnavailable(f"opcua: {path} holds no revocation list that can be read: {error}") from error


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
        BackendUnavailable: the file cannot be read, or other users have access to it and to its directory.
    """
    try:
        # Programs that make keys for OPC UA leave their mode to the directory: nobody else can enter a private one.
        content = read_private(path) if exposure(path.parent) else path.read_bytes()
    except OSError as error:
        raise BackendUnavailable(f"opcua: the private key {path} cannot be read: {error.strerror or error}") from error
    return content, "pem" if _is_pem(content) else "der"


def check_pair(certificate: Path, key: Path, password: str, option: str) -> None:
    """Check that a private key belongs to a certificate. `option` is the option that names the key.

    Raises:
        BackendUnavailable: a file cannot be read, or the two do not belong together.
    """
    content, form = private_key(key)
    try:
        load_key = load_pem_private_key if form == "pem" else load_der_private_key
        found = load_key(content, password.encode() or None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise BackendUnavailable(
            f"opcua: {option} {key} cannot be used; is '{option}_password' right? ({type(error).__name__})"
        ) from error
    public = load(certificate).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if found.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) != public:
        raise BackendUnavailable(
            f"opcua: the private key {key} does not belong to the certificate {certificate}; "
            "when one of the two was renewed, put the other beside it"
        )


def chain_of(content: bytes) -> list[x509.Certificate]:
    """Return the certificates that a server sends: its own, and perhaps those of its CAs after it.

    Raises:
        BackendUnavailable: these bytes are no certificate.
    """
    try:
        chain = [x509.load_der_x509_certificate(part) for part in _elements(content)]
    except ValueError as error:
        raise BackendUnavailable(
            "opcua: the server sends a certificate that cannot be read; renew the certificate on the server"
        ) from error
    if not chain:
        raise BackendUnavailable("opcua: the server sends no certificate; give it one, or use security_policy None")
    return chain


def application_uri(certificate: x509.Certificate) -> str:
    """Return the application URI in an OPC UA certificate; "" when there is none."""
    uris = names_of(certificate, x509.UniformResourceIdentifier)
    return uris[0] if uris else ""


def names_of(certificate: x509.Certificate, kind: type[x509.GeneralName]) -> list[str]:
    """Return the names of one kind for which a certificate was issued (its subject alternative names)."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    return [str(name) for name in names.get_values_for_type(kind)]  # type: ignore[arg-type]  # each has a text form


def validity(certificate: x509.Certificate) -> str:
    """Return since when a certificate is not valid any more, or from when on it is; "" when it is valid now."""
    now = datetime.now(UTC)
    if now > certificate.not_valid_after_utc:
        return f"is not valid today: it ended on {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
    if now < certificate.not_valid_before_utc:
        return f"is not valid today: it begins on {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
    return ""


def printable(text: str) -> str:
    """Return a text from the server as it may stand in a message: printable and short."""
    return "".join(c if c.isprintable() else "?" for c in text[:128])


def _is_pem(content: bytes) -> bool:
    return content.lstrip().startswith(b"-----BEGIN")


def _elements(content: bytes) -> Iterator[bytes]:
    """Yield the DER elements in `content`, one after the other.

    Raises:
        ValueError: these are no elements, or too many.
    """
    start = 0
    for _ in range(MAX_CHAIN + 1):
        if start >= len(content):
            return
        if len(content) < start + 2 or content[start] != 0x30:
            raise ValueError("no DER sequence")
        length, header = content[start + 1], 2
        if length & 0x80:
            header += length & 0x7F
            length = int.from_bytes(content[start + 2 : start + header], "big")
        if start + header + length > len(content):
            raise ValueError("a DER sequence is cut off")
        yield content[start : start + header + length]
        start += header + length
    raise ValueError("too many certificates")
