"""Checks that the gateway can listen on the addresses in the settings, by binding each address for a moment."""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path

import mxgw_client
from mxgw_cli.doctor.report import Check, Outcome, failed, ok, warning
from mxgw_cli.shell import run
from mxgw_client import errors
from mxgw_core.api.errors import SettingsError
from mxgw_core.config.models import Settings, TlsSettings
from mxgw_core.rpc.listening import Address, addresses_of, parse_address
from mxgw_core.shells import ADDRESS_FORMS, LOCAL_ADDRESSES, addresses_command, port_command
from mxgw_worker.platform import SOCKET_PATH_BYTES, claim_port, try_unix_socket, unix_socket_answers

AREA = "Listening"
GATEWAY_ANSWER_S = 1.0
_TAKEN = "already in use"
_UNPRIVILEGED_PORTS = 1024


def check_listen(address: str, tls: TlsSettings | None = None) -> Check:
    """Check one address of gateway.listen. When a running gateway already uses the address, the check is ok."""
    try:
        parsed = parse_address(address)
    except SettingsError as error:
        return failed(
            AREA,
            address,
            str(error).removeprefix("gateway.listen: "),
            f"Write {ADDRESS_FORMS} in gateway.listen.",
        )
    check = _check_unix(address, parsed.path) if parsed.path is not None else _check_tcp(parsed)
    if check.outcome is Outcome.FAILED and _TAKEN in check.detail and (version := gateway_at(parsed, tls)) is not None:
        return ok(AREA, address, f"a gateway serves it already, version {version}")
    return check


def gateway_at(address: Address, tls: TlsSettings | None) -> str | None:
    """Return the version of the gateway that runs at an address.

    Return "unknown" when the gateway refuses the call, and None when no gateway answers.
    """
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)
    target = address.target if address.path is not None else f"{f'[{host}]' if ':' in host else host}:{address.port}"
    uses_tls = address.path is None and tls is not None and tls.certificate is not None
    credentials = mxgw_client.Tls(ca_file=tls.certificate) if uses_tls and tls is not None else False

    async def ask() -> str | None:
        try:
            async with mxgw_client.connect(target, tls=credentials, timeout_s=GATEWAY_ANSWER_S) as gateway:
                return (await gateway.info()).version
        except errors.GatewayRefusal:
            return "unknown"
        except errors.MxgwClientError:
            return None

    return run(ask)


def check_exposure(settings: Settings, *, authenticated: bool) -> Check | None:
    """Return a failed check when the gateway would refuse to start because other machines could use it unprotected.

    `authenticated` says whether an enabled plugin authenticates callers. None is returned when there is no problem.
    """
    try:
        addresses_of(settings, authenticated=authenticated)
    except SettingsError as error:
        what, _, cure = str(error).removeprefix("gateway.listen: ").partition(": ")
        return failed(AREA, "exposure", what, cure or f"Listen on {LOCAL_ADDRESSES}.")
    return None


def _check_tcp(parsed: Address) -> Check:
    address, port = parsed.text, parsed.port
    try:
        candidates = socket.getaddrinfo(parsed.host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        return failed(
            AREA,
            address,
            f"the name cannot be resolved: {error.strerror}",
            "Use an address of this machine, or 127.0.0.1.",
        )
    for family, kind, protocol, _, where in candidates:
        with socket.socket(family, kind, protocol) as listener:
            try:
                claim_port(listener)
                if family == socket.AF_INET6:
                    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                listener.bind(where)
                listener.listen(1)
            except OSError as error:
                return _tcp_failure(address, port, error)
    return ok(AREA, address, "free")


def _tcp_failure(address: str, port: int, error: OSError) -> Check:
    match error.errno:
        case errno.EADDRINUSE:
            return failed(
                AREA,
                address,
                f"{_TAKEN} by another program",
                f"Find out by whom: {port_command(port)}. Stop it, or choose another port in gateway.listen.",
            )
        case errno.EADDRNOTAVAIL:
            return failed(
                AREA,
                address,
                "this machine has no such address",
                f"Use one that `{addresses_command()}` shows, or 127.0.0.1.",
            )
        case errno.EACCES if port >= _UNPRIVILEGED_PORTS:
            return failed(AREA, address, f"{_TAKEN} or reserved", "Choose another port in gateway.listen.")
        case errno.EACCES | errno.EPERM:
            return failed(
                AREA, address, "not permitted: ports below 1024 need a privilege", "Choose a port from 1024 up."
            )
        case _:
            return failed(AREA, address, f"{error.strerror}", "Choose another address in gateway.listen.")


def _check_unix(address: str, path: Path) -> Check:
    if SOCKET_PATH_BYTES is not None and len(os.fsencode(path)) > SOCKET_PATH_BYTES:
        return failed(
            AREA,
            address,
            f"the path is longer than {SOCKET_PATH_BYTES} bytes",
            "Choose a shorter path in gateway.listen.",
        )
    directory = path.parent
    if not directory.is_dir():
        return failed(AREA, address, f"{directory} is not a directory", f"Make it: mkdir -p -m 700 {directory}")
    if not os.access(directory, os.W_OK | os.X_OK):
        return failed(
            AREA, address, f"{directory} is not writable for this user", "Change its owner, or choose another path."
        )
    if not path.exists():
        return _bind_unix(address, path)
    if not stat.S_ISSOCK(path.stat().st_mode):
        return failed(
            AREA,
            address,
            "there is a file that is not a socket",
            "Move it away, or choose another path in gateway.listen.",
        )
    try:
        is_taken = unix_socket_answers(path)
    except OSError:
        is_taken = False
    if not is_taken:
        return warning(AREA, address, "a socket nobody serves lies there", f"Left behind; remove it: rm {path}")
    return failed(
        AREA,
        address,
        f"{_TAKEN} by another program",
        "Stop it, or choose another path in gateway.listen.",
    )


def _bind_unix(address: str, path: Path) -> Check:
    try:
        try_unix_socket(path)
    except OSError as error:
        return failed(AREA, address, f"{error.strerror}", "Choose another path in gateway.listen.")
    return ok(AREA, address, "free")
