"""Checks that the TLS files are readable, belong together, and are valid today, by a TLS handshake in memory."""

from __future__ import annotations

import ssl
import time
from pathlib import Path
from typing import Any

from mxgw_cli.doctor.report import Check, failed, ok, warning
from mxgw_core.config.models import TlsSettings
from mxgw_core.shells import HAS_UNIX_SOCKETS
from mxgw_worker.platform import exposure, privacy_command

AREA = "TLS"

SOON_S = 30 * 86_400


def check_tls(tls: TlsSettings, now: float | None = None) -> list[Check]:
    """Check the files that the TLS settings name. Without a certificate TLS is off, and there is nothing to check."""
    if tls.certificate is None or tls.private_key is None:
        local = "loopback and Unix sockets" if HAS_UNIX_SOCKETS else "loopback"
        return [
            ok(
                AREA,
                "TLS",
                f"off: the gateway serves {local} in plain text",
            )
        ]
    files = [("certificate", tls.certificate), ("private_key", tls.private_key)]
    if tls.client_ca is not None:
        files.append(("client_ca", tls.client_ca))
    unreadable = [check for name, path in files if (check := _check_readable(name, path)) is not None]
    if unreadable:
        return unreadable
    checks = [_check_pair(tls.certificate, tls.private_key, time.time() if now is None else now)]
    if (exposed := _check_key_is_private(tls.private_key)) is not None:
        checks.append(exposed)
    if tls.client_ca is not None:
        checks.append(_check_client_ca(tls.client_ca))
    return checks


def _check_readable(name: str, path: Path) -> Check | None:
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        return failed(
            AREA,
            f"tls.{name}",
            f"{path}: {error.strerror}",
            f"Correct tls.{name}, or let the gateway's user read the file.",
        )
    return None


def _check_key_is_private(path: Path) -> Check | None:
    if access := exposure(path):
        detail = f"{path}: other users may read it ({access})"
        return failed(AREA, "tls.private_key", detail, f"Make it private: {privacy_command(path)}")
    return None


def _check_pair(certificate: Path, private_key: Path, now: float) -> Check:
    title = "certificate and key"
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # Without the argument `password`, OpenSSL would ask for a password on the terminal if the key is encrypted.
        server_side.load_cert_chain(certificate, private_key, password=lambda: b"")
    except ssl.SSLError as error:
        return failed(
            AREA,
            title,
            f"they do not belong together or are not PEM: {error.reason or error}",
            "Give the certificate chain (leaf first) and its unencrypted key as PEM files.",
        )
    try:
        facts = _handshake(server_side, certificate)
    except ssl.SSLCertVerificationError as error:
        return failed(
            AREA, title, error.verify_message, "Have the certificate renewed, and correct the clock if it is wrong."
        )
    except ssl.SSLError as error:
        return failed(AREA, title, f"no handshake: {error.reason or error}", "Have the certificate made anew.")
    expires_at = ssl.cert_time_to_seconds(str(facts["notAfter"]))
    names = ", ".join(str(entry[1]) for entry in facts.get("subjectAltName", ()))
    detail = f"valid until {facts['notAfter']}, for {names or 'no name'}"
    if not names:
        return failed(
            AREA, title, detail, "Have it made with a subjectAltName: clients check the name they connect to."
        )
    if expires_at - now < SOON_S:
        return warning(AREA, title, detail, "Have it renewed soon; the gateway reads it at its start.")
    return ok(AREA, title, detail)


def _handshake(server_side: ssl.SSLContext, certificate: Path) -> dict[str, Any]:
    """Run a TLS handshake without a network, and return the certificate as the client sees it.

    The client is set to trust the server's certificates. So the handshake checks the dates of the certificates and the
    key, and does not check who issued the certificates.
    """
    client_side = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_side.check_hostname = False
    client_side.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    client_side.load_verify_locations(certificate)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_side.wrap_bio(to_client, to_server, server_hostname="doctor.invalid")
    server = server_side.wrap_bio(to_server, to_client, server_side=True)
    waiting = [client, server]
    # A handshake needs three rounds; the limit of ten only prevents an endless loop.
    for _ in range(10):
        for side in list(waiting):
            try:
                side.do_handshake()
                waiting.remove(side)
            except ssl.SSLWantReadError:
                continue
        if not waiting:
            break
    return dict(client.getpeercert() or {})


def _check_client_ca(path: Path) -> Check:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_verify_locations(path)
    except ssl.SSLError as error:
        return failed(AREA, "tls.client_ca", f"{path}: {error.reason or error}", "Give PEM certificates of the CA.")
    authorities = context.get_ca_certs()
    expired = [ca for ca in authorities if ssl.cert_time_to_seconds(str(ca["notAfter"])) < time.time()]
    if not authorities or expired:
        return failed(
            AREA,
            "tls.client_ca",
            f"{path}: {len(authorities)} CA certificates, {len(expired)} of them expired",
            "Give the certificate of a CA that is valid today.",
        )
    return ok(AREA, "tls.client_ca", f"{len(authorities)} CA certificates")
