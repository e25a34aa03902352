"""Decides which server certificates are accepted, and reads the client's own certificate.

A server certificate is trusted when it is one of the trusted certificates, or when a chain of CAs leads from it to a
trusted one. Then its names, its time, its use, its key and the revocation lists are checked. Each of these checks may
fail when it is tolerated, by its name in `ERRORS`; trust is never tolerated to be missing.

Source: OPC 10000-4, 6.1.3 (Determining if a Certificate is trusted); OPC 10000-6, 6.2 (Certificates).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_private_key,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID

from mxgw_worker.backends.base import BackendUnavailable
from mxgw_worker.platform import exposure
from mxgw_worker.platform.private_files import read_private

# The checks whose failure can be tolerated.
ERRORS = ("host_name", "application_uri", "validity", "key_usage", "key_length", "signature", "revocation")

_SUFFIXES = frozenset({".der", ".crt", ".cer", ".pem"})
_LIST_SUFFIX = ".crl"
# Folders of a directory of trusted certificates that are read too. Source: OPC 10000-12, 7.8.2.1 (TrustListType) has
# these two kinds of content, and stacks keep them in folders of these names.
_FOLDERS = ("", "certs", "crl")
_MAX_CHAIN = 8
# Key lengths of all three security policies. Source: OPC 10000-7, the facets of these policies.
_KEY_BITS = (2048, 4096)
_WEAK_HASHES = (hashes.MD5, hashes.SHA1)
_SHOWN_NAMES = 8


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


def application_uri(certificate: x509.Certificate) -> str:
    """Return the application URI in an OPC UA certificate; "" when there is none."""
    uris = _names(certificate, x509.UniformResourceIdentifier)
    return uris[0] if uris else ""


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


@dataclass(frozen=True, slots=True)
class TrustList:
    """Trusted certificates and revocation lists, and the directory or file that they come from."""

    place: Path
    certificates: Sequence[x509.Certificate]
    revocation_lists: Sequence[x509.CertificateRevocationList]

    @classmethod
    def read(cls, place: Path) -> TrustList:
        """Read a directory, or one file with a certificate.

        Raises:
            BackendUnavailable: a file cannot be read.
        """
        if not place.is_dir():
            return cls(place, [load(place)], [])
        try:
            folders = [place / name for name in _FOLDERS if (place / name).is_dir()]
            files = sorted(path for folder in folders for path in folder.iterdir() if path.is_file())
        except OSError as error:
            raise BackendUnavailable(f"opcua: {place} cannot be read: {error.strerror or error}") from error
        return cls(
            place,
            [load(path) for path in files if path.suffix.lower() in _SUFFIXES],
            [_load_list(path) for path in files if path.suffix.lower() == _LIST_SUFFIX],
        )

    def path_of(self, chain: Sequence[x509.Certificate]) -> list[x509.Certificate]:
        """Return the certificates from the server's own to a trusted one, each issued by the next; none when no path
        leads to a trusted one. `chain` is what the server sent.
        """
        path = [chain[0]]
        while path[-1] not in self.certificates:
            issuer = self._issuer(path, chain)
            if issuer is None or len(path) >= _MAX_CHAIN:
                return []
            path.append(issuer)
        return path

    def revocation(self, path: Sequence[x509.Certificate]) -> str:
        """Return why a certificate of the path counts as revoked; "" when none does. A CA without a revocation list has
        revoked nothing.
        """
        issuer = self._issuer(path, path)
        whole = [*path, issuer] if issuer is not None else list(path)
        for certificate, authority in pairwise(whole):
            lists = [one for one in self.revocation_lists if _signed(one, authority)]
            if not lists:
                continue
            newest = max(lists, key=lambda one: one.last_update_utc)
            name = _shown(authority.subject.rfc4514_string())
            if newest.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None:
                return f"was revoked by {name}; renew it on the server"
            if newest.next_update_utc is not None and newest.next_update_utc < datetime.now(UTC):
                return (
                    f"may be revoked: the list of {name} in {self.place} ended on {newest.next_update_utc:%Y-%m-%d}; "
                    "put the current list there"
                )
        return ""

    def _issuer(self, path: Sequence[x509.Certificate], sent: Sequence[x509.Certificate]) -> x509.Certificate | None:
        """Return the CA that issued the last certificate of the path; trusted ones come first."""
        for candidate in (*self.certificates, *sent):
            if candidate not in path and _issued(candidate, path[-1], below=len(path) - 1):
                return candidate
        return None


def check_trusted(chain: Sequence[x509.Certificate], trusted: TrustList, tolerated: frozenset[str]) -> None:
    """Check that the server's certificate is trusted, and that neither it nor a CA of it is revoked or out of its time.

    Raises:
        BackendUnavailable: the certificate is not trusted; the text has its fingerprint, so that it can be compared and
            the certificate added.
    """
    path = trusted.path_of(chain)
    if not path:
        raise BackendUnavailable(
            f"opcua: {_named(chain[0])} is not among those in {trusted.place}, nor issued by a CA there; "
            "compare the fingerprint with the server's, then put the certificate there"
        )
    if "revocation" not in tolerated and (why := trusted.revocation(path)):
        raise _refused(chain[0], why, "revocation")
    if "validity" not in tolerated:
        for authority in path[1:]:
            if why := _out_of_time(authority):
                name = _shown(authority.subject.rfc4514_string())
                raise _refused(chain[0], f"was issued by the CA {name}, which {why}; renew the CA", "validity")


def check_names(certificate: x509.Certificate, host: str, uri: str, tolerated: frozenset[str]) -> None:
    """Check that a certificate belongs to the host that is called, and to the application that answers there.

    Raises:
        BackendUnavailable: it is another one's.
    """
    hosts = [*_names(certificate, x509.DNSName), *(str(ip) for ip in _names(certificate, x509.IPAddress))]
    if "host_name" not in tolerated and _plain_host(host) not in {_plain_host(name) for name in hosts}:
        raise _refused(
            certificate,
            f"is for the host {_listed(hosts)} and not for {_shown(host)}; use that name in 'url', or renew the "
            "certificate on the server",
            "host_name",
        )
    check_application_uri(certificate, uri, tolerated)


def check_application_uri(certificate: x509.Certificate, uri: str, tolerated: frozenset[str]) -> None:
    """Check that a certificate is of the application that calls itself `uri`.

    Raises:
        BackendUnavailable: it is another one's.
    """
    uris = _names(certificate, x509.UniformResourceIdentifier)
    if "application_uri" not in tolerated and uri not in uris:
        raise _refused(
            certificate,
            f"is for the application {_listed(uris)}, but the server calls itself {_shown(uri) or 'nothing'}; "
            "correct the server's ApplicationUri, or renew its certificate",
            "application_uri",
        )


def check_quality(certificate: x509.Certificate, tolerated: frozenset[str]) -> None:
    """Check the time, the use, the key and the signature of a server's certificate.

    Raises:
        BackendUnavailable: the certificate may not be used.
    """
    key = certificate.public_key()
    if not isinstance(key, rsa.RSAPublicKey):
        raise BackendUnavailable(
            f"opcua: {_named(certificate)} has no RSA key, which the security policies need; renew it on the server"
        )
    low, high = _KEY_BITS
    if "validity" not in tolerated and (why := _out_of_time(certificate)):
        raise _refused(certificate, f"{why}; renew it on the server, or correct the clock that is wrong", "validity")
    if "key_usage" not in tolerated and not _serves(certificate):
        raise _refused(certificate, "may not be used as a server's; renew it on the server", "key_usage")
    if "key_length" not in tolerated and not low <= key.key_size <= high:
        raise _refused(
            certificate,
            f"has a key of {key.key_size} bits, and the security policies need {low} to {high}; renew it on the server",
            "key_length",
        )
    if "signature" not in tolerated and isinstance(_hash_of(certificate), _WEAK_HASHES):
        raise _refused(certificate, "is signed with a broken hash; renew it on the server with SHA-256", "signature")


def validity(certificate: x509.Certificate) -> str:
    """Return since when a certificate is not valid any more, or from when on it is; "" when it is valid now."""
    return _out_of_time(certificate)


def _is_pem(content: bytes) -> bool:
    return content.lstrip().startswith(b"-----BEGIN")


def _elements(content: bytes) -> Iterator[bytes]:
    """Yield the DER elements in `content`, one after the other.

    Raises:
        ValueError: these are no elements, or too many.
    """
    start = 0
    for _ in range(_MAX_CHAIN + 1):
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


def _load_list(path: Path) -> x509.CertificateRevocationList:
    try:
        content = path.read_bytes()
        return x509.load_pem_x509_crl(content) if _is_pem(content) else x509.load_der_x509_crl(content)
    except (OSError, ValueError) as error:
        raise BackendUnavailable(f"opcua: {path} holds no revocation list that can be read: {error}") from error


def _names(certificate: x509.Certificate, kind: type[x509.GeneralName]) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    return [str(name) for name in names.get_values_for_type(kind)]  # type: ignore[arg-type]  # each has a text form


def _plain_host(name: str) -> str:
    try:
        return str(ipaddress.ip_address(name.partition("%")[0]))
    except ValueError:
        return name.rstrip(".").casefold()


def _issued(authority: x509.Certificate, certificate: x509.Certificate, *, below: int) -> bool:
    """Return True when `authority` is a CA and issued `certificate`. `below` CAs stand between it and the server's
    certificate.
    """
    try:
        constraints = authority.extensions.get_extension_for_class(x509.BasicConstraints).value
        if not constraints.ca or (constraints.path_length is not None and constraints.path_length < below):
            return False
        usage = _usage(authority)
        if usage is not None and not usage.key_cert_sign:
            return False
        certificate.verify_directly_issued_by(authority)
    except (x509.ExtensionNotFound, InvalidSignature, ValueError, TypeError, UnsupportedAlgorithm):
        return False
    return True


def _signed(revocation_list: x509.CertificateRevocationList, authority: x509.Certificate) -> bool:
    if revocation_list.issuer != authority.subject:
        return False
    try:
        return revocation_list.is_signature_valid(authority.public_key())  # type: ignore[arg-type]  # others: TypeError
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return False


def _usage(certificate: x509.Certificate) -> x509.KeyUsage | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return None


def _serves(certificate: x509.Certificate) -> bool:
    try:
        usage = _usage(certificate)
        purposes = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        purposes = None
    except ValueError:
        return False
    if usage is not None and not (usage.digital_signature and (usage.key_encipherment or usage.data_encipherment)):
        return False
    allowed = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE)
    return purposes is None or any(purpose in purposes for purpose in allowed)


def _hash_of(certificate: x509.Certificate) -> hashes.HashAlgorithm | None:
    try:
        return certificate.signature_hash_algorithm
    except UnsupportedAlgorithm:
        return None


def _out_of_time(certificate: x509.Certificate) -> str:
    now = datetime.now(UTC)
    if now > certificate.not_valid_after_utc:
        return f"is not valid today: it ended on {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
    if now < certificate.not_valid_before_utc:
        return f"is not valid today: it begins on {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
    return ""


def _named(certificate: x509.Certificate) -> str:
    return f"the server's certificate (SHA-256 {certificate.fingerprint(hashes.SHA256()).hex()})"


def _refused(certificate: x509.Certificate, why: str, error: str) -> BackendUnavailable:
    return BackendUnavailable(
        f"opcua: {_named(certificate)} {why}. To connect all the same: tolerated_certificate_errors = '{error}'"
    )


def _listed(names: Sequence[str]) -> str:
    if not names:
        return "nobody (it names none)"
    shown = ", ".join(_shown(name) for name in names[:_SHOWN_NAMES])
    return f"{shown} ..." if len(names) > _SHOWN_NAMES else shown


def _shown(text: str) -> str:
    """Return a text from the server as it may stand in a message: printable and short."""
    return "".join(c if c.isprintable() else "?" for c in text[:128])
