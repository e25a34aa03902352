"""The addresses on which the gateway listens, and its TLS certificate.

An address that other machines can reach is refused unless it is protected. TLS files are read again when they change,
so that a new certificate needs no restart.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import stat
import threading
from dataclasses import dataclass
from pathlib import Path

import grpc

from mxgw_core.api.errors import SettingsError
from mxgw_core.config.models import Settings, TlsSettings
from mxgw_core.rpc.access import is_loopback
from mxgw_worker.platform import claim_port, no_unix_sockets, unix_socket_answers
from mxgw_worker.platform.private_files import read_private

log = logging.getLogger(__name__)

_UNPRIVILEGED_PORTS = 1024


@dataclass(frozen=True, slots=True)
class Address:
    """One listening address. `target` is gRPC's own form; `path` is set for Unix sockets."""

    text: str
    target: str
    host: str = ""
    port: int = 0
    path: Path | None = None

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the address."""
        return self.path is not None or is_loopback(self.host)


def parse_address(text: str) -> Address:
    """Return the address of `host:port`, `[ipv6]:port` or `unix:/path`.

    Raises:
        SettingsError: the text has none of these forms, or this platform has no Unix sockets.
    """
    if text.startswith("unix:"):
        if why := no_unix_sockets():
            raise SettingsError(f"gateway.listen: {text!r} cannot be used: {why}")
        path = Path(text.removeprefix("unix:"))
        if not path.is_absolute():
            raise SettingsError(f"gateway.listen: {text!r} needs an absolute path, as in unix:/run/mxgw/gateway.sock")
        return Address(text, f"unix:{path}", path=path)
    host, colon, port = text.rpartition(":")
    if not colon or not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise SettingsError(f"gateway.listen: {text!r} is no address: write host:port, [ipv6]:port or unix:/path")
    if host.count(":") and not (host.startswith("[") and host.endswith("]")):
        raise SettingsError(f"gateway.listen: {text!r}: write an IPv6 address in brackets, as in [::1]:50051")
    return Address(text, text, host=host.strip("[]"), port=int(port))


def addresses_of(settings: Settings, *, authenticated: bool) -> list[Address]:
    """Return the addresses to listen on.

    Raises:
        SettingsError: an address is malformed, or other machines can reach it without authentication or TLS.
    """
    addresses = [parse_address(text) for text in settings.gateway.listen]
    for address in addresses:
        if address.is_local:
            continue
        if not authenticated:
            raise SettingsError(
                f"gateway.listen: {address.text} can be reached from other machines, and no enabled plugin "
                "authenticates callers: enable one (acl), or listen on 127.0.0.1, [::1] or unix:/path"
            )
        if settings.tls.certificate is None and not settings.gateway.allow_insecure:
            raise SettingsError(
                f"gateway.listen: {address.text} can be reached from other machines and TLS is off: set "
                "tls.certificate and tls.private_key, or gateway.allow_insecure = true on a network secured otherwise"
            )
    return addresses


def check_free(address: Address) -> None:
    """Make sure that nothing listens on the address. A Unix socket that an ended process left behind is removed.

    gRPC itself would replace the socket of a live process without an error.

    Raises:
        SettingsError: the address is taken, or cannot be used.
    """
    if address.path is not None:
        _check_socket(address, address.path)
        return
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        claim_port(probe)
        try:
            probe.bind((address.host, address.port))
        except OSError as error:
            raise SettingsError(_bind_error(address, error)) from error


def _bind_error(address: Address, error: OSError) -> str:
    match error.errno:
        # Windows reports EACCES when the other process uses the port exclusively, and for ports that it has reserved.
        case errno.EACCES if address.port >= _UNPRIVILEGED_PORTS:
            return f"gateway.listen: {address.text} is in use or reserved: choose another port"
        case errno.EADDRINUSE:
            return f"gateway.listen: {address.text} is in use: stop what listens there, or choose another port"
        case errno.EACCES:
            return f"gateway.listen: {address.text} may not be used by this user: choose a port above 1023"
        case errno.EADDRNOTAVAIL:
            return f"gateway.listen: {address.text}: this machine has no such address"
        case _:
            return f"gateway.listen: {address.text} cannot be used: {error.strerror or error}"


def _check_socket(address: Address, path: Path) -> None:
    if not path.parent.is_dir():
        raise SettingsError(f"gateway.listen: {address.text}: the directory {path.parent} does not exist: make it")
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise SettingsError(f"gateway.listen: {address.text}: there is a file that is no socket: remove it")
    try:
        is_taken = unix_socket_answers(path)
        if not is_taken:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise SettingsError(f"gateway.listen: {address.text} cannot be used: {error.strerror or error}") from error
    if is_taken:
        raise SettingsError(f"gateway.listen: {address.text} is in use by another process: stop it first")


def server_credentials(tls: TlsSettings) -> grpc.ServerCredentials | None:
    """Return the TLS credentials of the settings; None when TLS is off.

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
    """The TLS files, and their state when they were last read. gRPC's threads call `changed` at each new connection."""

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
        """Return the certificates in the files.

        Raises:
            SettingsError: a file cannot be read, other users may read the key, or the key does not belong to the
                certificate.
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
        """Return the new certificates if the files have changed, else None.

        Unusable new files are ignored, and a warning is logged.
        """
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
    """Make sure that certificate and key belong together; with a wrong pair gRPC would fail every handshake."""
    import ssl

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, private_key, password="")
    except (OSError, ssl.SSLError, ValueError) as error:
        raise SettingsError(
            f"tls: {certificate} and {private_key} cannot be used ({error}); check that tls.certificate and "
            "tls.private_key are PEM files that belong together"
        ) from error
