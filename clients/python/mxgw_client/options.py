"""The options of a connection: address, TLS, API key and flow control, and the gRPC channel options made from them."""

from __future__ import annotations

import enum
import ipaddress
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import grpc

from mxgw.private_files import read_private
from mxgw_client.errors import ConnectionOptionError

MIB = 1024 * 1024
# The gateway serves no Unix sockets on Windows.
HAS_UNIX_SOCKETS = os.name != "nt"
_OR_UNIX = ", or unix:/path" if HAS_UNIX_SOCKETS else ""


@dataclass(frozen=True, slots=True)
class Target:
    """The address of a gateway. `is_local` is True for loopback addresses and Unix sockets."""

    text: str
    is_local: bool

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse an address of the form `host:port`, `[ipv6]:port` or `unix:/path`.

        Raises:
            ValueError: the text has another form, or this platform has no Unix sockets; the message says what is
                missing.
        """
        if text.startswith("unix:"):
            if not HAS_UNIX_SOCKETS:
                raise ValueError(f"{text!r} cannot be used: mxgw has no Unix sockets on Windows; give host:port")
            if not text.removeprefix("unix:").startswith("/"):
                raise ValueError(f"the socket path of {text!r} must be absolute, for example unix:/run/mxgw.sock")
            return cls(text, is_local=True)
        if "://" in text:
            raise ValueError(f"{text!r} is a URL; give host:port{_OR_UNIX} (TLS is switched on with tls=)")
        host, colon, port = text.rpartition(":")
        if not colon or not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
            raise ValueError(f"{text!r} needs a host and a port, for example 127.0.0.1:50051{_OR_UNIX}")
        bare = host.removeprefix("[").removesuffix("]")
        if ":" in host and bare == host:
            raise ValueError(f"write the IPv6 address of {text!r} in brackets, for example [::1]:50051")
        return cls(text, is_local=_is_loopback(bare))


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Flow(enum.Enum):
    """How many bytes of a stream the gateway can send before the application has read them.

    BOUNDED: at most 64 KiB per stream, the first window of HTTP/2. When a reader falls behind, the gateway notices this
    within about 100 KiB, so that the lag that it reports is correct and its overflow policy acts in time. The price is
    that a stream carries at most 64 KiB per round trip, for example 6 MiB/s at 10 ms.

    FAST: gRPC enlarges the window, so that a stream can use the whole bandwidth of a connection with long round trips.
    When a reader stops reading, up to about 4 MiB of its events have then been sent and not been read. The gateway does
    not count these events as lag.

    Source: measured; docs/client-guide.md, "Flow control".
    """

    BOUNDED = "bounded"
    FAST = "fast"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key. Its `repr` and `str` do not contain the key, so that no log, traceback or notebook shows it.

    Raises:
        ConnectionOptionError: the key is empty, or contains a blank or a character that is not printable ASCII.
    """

    value: str = field(repr=False)

    def __post_init__(self) -> None:
        if not self.value or not self.value.isascii() or not self.value.isprintable() or " " in self.value:
            raise ConnectionOptionError("an API key is one printable word; check for quotes, blanks or line ends in it")

    def __str__(self) -> str:
        return "***"


@dataclass(frozen=True, slots=True)
class Tls:
    """The TLS options of a connection. All files are in PEM format.

    Attributes:
        ca_file: the certificates to trust; None means the certificates that the system trusts.
        certificate_file: the client certificate, for a gateway that requires one.
        key_file: the private key of the client certificate.
        server_name: the name that the certificate of the gateway must have; empty means the host in the address.
    """

    ca_file: Path | str | None = None
    certificate_file: Path | str | None = None
    key_file: Path | str | None = None
    server_name: str = ""

    def credentials(self) -> grpc.ChannelCredentials:
        """Read the files and return the channel credentials.

        Raises:
            ConnectionOptionError: a file cannot be read, other users are allowed to read the file of the key, or only
                one of `certificate_file` and `key_file` is set.
        """
        if (self.certificate_file is None) != (self.key_file is None):
            raise ConnectionOptionError("certificate_file and key_file belong together: give both or none")
        return grpc.ssl_channel_credentials(
            root_certificates=_read("ca_file", self.ca_file),
            private_key=_read("key_file", self.key_file, is_secret=True),
            certificate_chain=_read("certificate_file", self.certificate_file),
        )


def _read(option: str, path: Path | str | None, *, is_secret: bool = False) -> bytes | None:
    if path is None:
        return None
    try:
        return read_private(Path(path)) if is_secret else Path(path).read_bytes()
    except OSError as error:
        raise ConnectionOptionError(f"Tls.{option}: cannot read {path}: {error.strerror}") from error


@dataclass(frozen=True, slots=True)
class ConnectOptions:
    """The arguments of `connect`; see there.

    Raises:
        ConnectionOptionError: the API key would cross a network without TLS, or `timeout_s` is not greater than 0.
    """

    target: Target
    tls: Tls | None = None
    api_key: ApiKey | None = None
    insecure_api_key: bool = False
    flow: Flow = Flow.BOUNDED
    timeout_s: float = 30.0
    max_message_bytes: int = 4 * MIB

    def __post_init__(self) -> None:
        if self.api_key and not (self.tls or self.target.is_local or self.insecure_api_key):
            raise ConnectionOptionError(
                f"the API key would cross the network to {self.target.text} in plain text: pass tls=Tls(...), or "
                "insecure_api_key=True when the network is secured by other means"
            )
        if self.timeout_s <= 0:
            raise ConnectionOptionError(f"timeout_s is {self.timeout_s}; it must be greater than 0")

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Return the gRPC metadata of every call: the API key, if there is one."""
        return (("authorization", f"Bearer {self.api_key.value}"),) if self.api_key else ()

    def channel_options(self) -> list[tuple[str, int | str]]:
        """Return the options of the gRPC channel.

        With the three keepalive values gRPC notices a dead gateway within 15 s, even when the stream is quiet. Without
        `ping_timeout_ms` it takes 69 s. Source: measured, docs/reference/streams.md#dead-peers.
        """
        options: list[tuple[str, int | str]] = [
            ("grpc.keepalive_time_ms", 10_000),
            ("grpc.keepalive_timeout_ms", 5_000),
            ("grpc.http2.ping_timeout_ms", 5_000),
            ("grpc.max_receive_message_length", self.max_message_bytes),
            ("grpc.max_send_message_length", self.max_message_bytes),
            # By default gRPC waits up to two minutes between two attempts to connect, and fails every call meanwhile.
            # The values here make these pauses short, because a stream that resumes makes pauses itself (see `resume`).
            # An attempt to connect that gets no answer is ended after 5 s.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 5_000),
            ("grpc.max_reconnect_backoff_ms", 1_000),
            # The retries of gRPC are off. Only calls with a request id are repeated, in the module `_repeating`.
            ("grpc.enable_retries", 0),
            ("grpc.service_config_disable_resolution", 1),
            # Each `connect` gets a TCP connection of its own. By default gRPC shares one among all channels to the same
            # address, and a failure of one would then affect the others.
            ("grpc.use_local_subchannel_pool", 1),
        ]
        if self.flow is Flow.BOUNDED:
            options.append(("grpc.http2.bdp_probe", 0))
        if self.target.is_local:
            # Calls that stay on this machine must not go through an HTTP proxy named in the environment.
            options.append(("grpc.enable_http_proxy", 0))
        if self.tls and self.tls.server_name:
            options.append(("grpc.ssl_target_name_override", self.tls.server_name))
        return options
