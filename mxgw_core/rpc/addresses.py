"""Where the gateway may listen: addresses parsed, and the refusal to serve strangers unprotected."""

from __future__ import annotations

import errno
import os
import socket
import stat
from dataclasses import dataclass
from pathlib import Path

from mxgw_core.api.errors import SettingsError
from mxgw_core.config.models import Settings
from mxgw_core.rpc.access import is_loopback


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
        """Whether only this machine can reach it."""
        return self.path is not None or is_loopback(self.host)


def parse_address(text: str) -> Address:
    """Return the address of `host:port`, `[ipv6]:port` or `unix:/path`.

    Raises:
        SettingsError: it is none of these.
    """
    if text.startswith("unix:"):
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
        SettingsError: one is malformed, or reachable from elsewhere without authentication or TLS.
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
    """Make sure that nothing listens there; a dead Unix socket is removed.

    gRPC itself would take over a live Unix socket without a word.

    Raises:
        SettingsError: the address is taken, or cannot be used.
    """
    if address.path is not None:
        _check_socket(address, address.path)
        return
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address.host, address.port))
        except OSError as error:
            raise SettingsError(_bind_error(address, error)) from error


def _bind_error(address: Address, error: OSError) -> str:
    match error.errno:
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
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(os.fspath(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
        except OSError as error:
            raise SettingsError(f"gateway.listen: {address.text} cannot be used: {error.strerror or error}") from error
        else:
            raise SettingsError(f"gateway.listen: {address.text} is in use by another process: stop it first")
