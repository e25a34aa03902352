"""TLS credentials of the server, taken anew from their files whenever these change: no restart for a certificate."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path

import grpc

from mxgw.private_files import read_private
from mxgw_core.api.errors import SettingsError
from mxgw_core.config.models import TlsSettings

log = logging.getLogger(__name__)


def server_credentials(tls: TlsSettings) -> grpc.ServerCredentials | None:
    """Return the TLS credentials of the settings, None when TLS is off.

    Raises:
        SettingsError: a file cannot be read, or certificate and key do not belong together.
    """
    if tls.certificate is None or tls.private_key is None:
        return None
    files = _Files(tls)
    return grpc.dynamic_ssl_server_credentials(
        files.read(),
        files.changed,  # type: ignore[arg-type]  # None is allowed: "no change"
        require_client_authentication=tls.client_ca is not None,
    )


class _Files:
    """The files, and what was last seen of them; asked by gRPC's threads at each new connection."""

    def __init__(self, tls: TlsSettings) -> None:
        self._paths = {
            key: path
            for key, path in (
                ("certificate", tls.certificate),
                ("private_key", tls.private_key),
                ("client_ca", tls.client_ca),
            )
            if path is not None
        }
        self._lock = threading.Lock()
        self._seen: object = None
        self._complained = False

    def read(self) -> grpc.ServerCertificateConfiguration:
        """Return what the files hold.

        Raises:
            SettingsError: a file cannot be read, others may read the key, or it is not that of the certificate.
        """
        self._seen = self._stamp()
        contents: dict[str, bytes] = {}
        for key, path in self._paths.items():
            try:
                contents[key] = read_private(path) if key == "private_key" else path.read_bytes()
            except OSError as error:
                raise SettingsError(f"tls.{key}: {path} cannot be read: {error.strerror or error}") from error
        _check_pair(self._paths["certificate"], self._paths["private_key"])
        return grpc.ssl_server_certificate_configuration(
            [(contents["private_key"], contents["certificate"])], root_certificates=contents.get("client_ca")
        )

    def changed(self) -> grpc.ServerCertificateConfiguration | None:
        """Return what the files hold when they changed, None when not; files that are unusable change nothing."""
        with self._lock:
            try:
                if self._stamp() == self._seen:
                    return None
                configuration = self.read()
            except (SettingsError, OSError) as error:
                if not self._complained:
                    log.warning("new TLS files are not used, those before stay: %s", error)
                self._complained = True
                return None
            self._complained = False
            log.info("new TLS files are in use")
            return configuration

    def _stamp(self) -> object:
        stamps = []
        for key, path in self._paths.items():
            try:
                found = os.stat(path)  # noqa: PTH116  all three numbers in one call
            except OSError as error:
                raise SettingsError(f"tls.{key}: {path} cannot be read: {error.strerror or error}") from error
            stamps.append((found.st_ino, found.st_size, found.st_mtime_ns))
        return tuple(stamps)


def _check_pair(certificate: Path, private_key: Path) -> None:
    """Make sure that certificate and key belong together; gRPC itself would only fail every handshake."""
    import ssl

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, private_key, password="")
    except (OSError, ssl.SSLError, ValueError) as error:
        raise SettingsError(
            f"tls: {certificate} and {private_key} cannot be used ({error}); check that tls.certificate and "
            "tls.private_key are PEM files that belong together"
        ) from error
