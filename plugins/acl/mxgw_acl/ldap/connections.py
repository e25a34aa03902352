"""Connections to LDAP servers, with time limits and without following referrals.

Each connection is encrypted before credentials are sent, unless the setting `insecure` is on.

Several defaults of ldap3 are unsafe: certificates are not checked, credentials are sent to any server that a referral
names, and there are no timeouts (docs/reference/security.md#ldap-defaults). So every option is set here.
"""

from __future__ import annotations

import math
import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ldap3
from ldap3.core.exceptions import LDAPException, LDAPInvalidCredentialsResult

from mxgw_acl.settings import LdapSettings
from mxgw_core.api.errors import SettingsError

_REFERRAL = 10


class ServerFailed(Exception):
    """One server could not answer. Another server can be asked instead."""


class WrongCredentials(Exception):
    """The server does not accept this name and password."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the directory. Attribute names are in lower case; values are the bytes that the server sent."""

    dn: str
    attributes: dict[str, list[bytes]]

    def texts(self, name: str) -> list[str]:
        """Return the values of an attribute as texts; an empty list when the entry does not have the attribute."""
        return [value.decode("utf-8", "replace") for value in self.attributes.get(name, ())]


class _StrictTls(ldap3.Tls):  # type: ignore[misc]  # ldap3 has no types
    """Checks the server's certificate and its host name or IP address with Python's ssl module instead of ldap3."""

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__(validate=ssl.CERT_REQUIRED)
        self._context = context

    def wrap_socket(self, connection: Any, do_handshake: bool = False) -> None:
        """Wrap the socket of an ldap3 connection, and do the handshake at once."""
        del do_handshake
        connection.socket = self._context.wrap_socket(connection.socket, server_hostname=connection.server.host)


@dataclass(slots=True)
class Budget:
    """The open connections of one login or lookup. Any thread can break them when the time limit has passed."""

    connections: list[Any] = field(default_factory=list)
    is_over: bool = False

    def cut(self) -> None:
        """Shut down every connection, so that calls which wait for an answer fail at once."""
        self.is_over = True
        for connection in list(self.connections):
            found = connection.socket
            if found is not None:
                with suppress(OSError):
                    found.shutdown(socket.SHUT_RDWR)


class Connector:
    """Opens connections to LDAP servers with the encryption and the timeouts of the settings."""

    def __init__(self, settings: LdapSettings) -> None:
        """Read the CA file of the settings.

        Raises:
            SettingsError: the CA file cannot be used.
        """
        self._settings = settings
        self._tls = None if settings.insecure else _StrictTls(_context(settings.ca_file))

    @contextmanager
    def bound(
        self, url: str, dn: str, password: str, budget: Budget, *, receive_timeout_s: float | None = None
    ) -> Iterator[Connected]:
        """Yield a connection to one server, logged in (bound) as `dn`, or anonymously when `dn` is empty.

        Raises:
            ServerFailed: the server cannot be reached, is not trusted, refuses, or is too slow.
            WrongCredentials: the server does not accept the credentials.
        """
        if dn and not password:
            raise WrongCredentials  # A bind with an empty password would succeed as an anonymous bind.
        settings = self._settings
        server = ldap3.Server(
            url, tls=self._tls, get_info=ldap3.NONE, connect_timeout=math.ceil(settings.connect_timeout_s)
        )
        connection = ldap3.Connection(
            server,
            user=dn or None,
            password=password or None,
            authentication=ldap3.SIMPLE if dn else ldap3.ANONYMOUS,
            client_strategy=ldap3.SAFE_SYNC,
            auto_bind=ldap3.AUTO_BIND_NONE,
            auto_referrals=False,
            check_names=False,
            read_only=True,
            raise_exceptions=True,
            receive_timeout=math.ceil(receive_timeout_s or settings.receive_timeout_s),
        )
        budget.connections.append(connection)
        sockets: list[socket.socket | None] = []
        try:
            if budget.is_over:
                raise ServerFailed(f"{url}: out of time")
            with _failures(url):
                connection.open(read_server_info=False)
                sockets.append(connection.socket)
                if not server.ssl and self._tls is not None:
                    connection.start_tls(read_server_info=False)
                    sockets.append(connection.socket)
                _refuse_referral(url, connection.bind(read_server_info=False)[1])
            yield Connected(url, connection)
        finally:
            budget.connections.remove(connection)
            sockets.append(connection.socket)
            with suppress(LDAPException, OSError):
                connection.unbind()
            # After some failures ldap3 does not close the socket.
            for opened in sockets:
                if opened is not None:
                    opened.close()


@dataclass(frozen=True, slots=True)
class Connected:
    """A connection that is logged in (bound) and can search."""

    url: str
    _connection: Any

    def search(
        self, base: str, wanted: str, attributes: Sequence[str], *, whole_tree: bool = True, limit: int = 0
    ) -> list[Entry]:
        """Return the entries at and below `base` that match the filter `wanted`, at most `limit` of them (0: all).

        When `whole_tree` is False, only the entry `base` itself is searched.

        Raises:
            ServerFailed: the server could not answer.
        """
        with _failures(self.url):
            _, result, response, _ = self._connection.search(
                base,
                wanted,
                search_scope=ldap3.SUBTREE if whole_tree else ldap3.BASE,
                attributes=list(attributes),
                size_limit=limit,
            )
            _refuse_referral(self.url, result)
        return [
            Entry(found["dn"], {name.lower(): list(values) for name, values in found["raw_attributes"].items()})
            for found in response or ()
            # The response can also contain references to other servers, which are not followed.
            if found["type"] == "searchResEntry"
        ]


@contextmanager
def _failures(url: str) -> Iterator[None]:
    try:
        yield
    except LDAPInvalidCredentialsResult:
        raise WrongCredentials from None
    except (LDAPException, OSError) as error:
        raise ServerFailed(f"{url}: {_in_words(error)}") from error


def _in_words(error: Exception) -> str:
    text = str(error) or type(error).__name__
    if "CERTIFICATE_VERIFY_FAILED" in text:
        reason = text.partition("certificate verify failed: ")[2].partition(" (_ssl")[0] or "not trusted"
        return f"its certificate is refused: {reason} (plugins.acl.ldap.ca_file)"
    if "timed out" in text:
        return "it did not answer in time"
    return text[:200]


def _refuse_referral(url: str, result: Any) -> None:
    if result["result"] == _REFERRAL:
        raise ServerFailed(
            f"{url}: it refers to another server, and referrals are not followed: name that one in "
            "plugins.acl.ldap.servers"
        )


def _context(ca_file: Path | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(f"plugins.acl.ldap.ca_file: {ca_file} cannot be used: {error}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
