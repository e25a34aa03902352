"""How to connect: TLS, the API key, flow control, and what they mean for the gRPC channel."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from mxgw.private_files import read_private
from mxgw_client.errors import ConnectionOptionError
from mxgw_client.target import Target

MIB = 1024 * 1024


class Flow(enum.Enum):
    """How much the connection takes in before the application asks for it.

    BOUNDED keeps HTTP/2's first window of 64 KiB per stream: a reader that falls behind is seen by the gateway within
    about 100 KiB, so its lag, the overflow policy and the gaps are true. A stream then carries at most 64 KiB per
    round trip, for example 6 MiB/s at 10 ms.
    FAST lets gRPC grow the window: on a long line a stream gets the whole bandwidth, and a stalled reader hides about
    4 MiB of events, which are neither in the gateway's lag nor in the application yet.
    Source: measured; docs/client-guide.md, "Flow control".
    """

    BOUNDED = "bounded"
    FAST = "fast"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key, wrapped so that no log, traceback or notebook shows it."""

    value: str = field(repr=False)

    def __post_init__(self) -> None:
        if not self.value or not self.value.isascii() or not self.value.isprintable() or " " in self.value:
            raise ConnectionOptionError("an API key is one printable word; check for quotes, blanks or line ends in it")

    def __str__(self) -> str:
        return "***"


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS of a connection.

    `ca_file` holds the PEM certificates to trust (empty: those of the system). `certificate_file` and `key_file` are
    for gateways that demand a client certificate. `server_name` is the name to expect in the gateway's certificate
    when it is not the one in the target.
    """

    ca_file: Path | str | None = None
    certificate_file: Path | str | None = None
    key_file: Path | str | None = None
    server_name: str = ""

    def credentials(self) -> grpc.ChannelCredentials:
        """Read the files and return the channel credentials.

        Raises:
            ConnectionOptionError: a file cannot be read, others may read the key, or certificate and key are not
                given together.
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
    """Everything `connect` was told. `timeout_s` is the deadline of a call that names none."""

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
        """Return the metadata to send with every call."""
        return (("authorization", f"Bearer {self.api_key.value}"),) if self.api_key else ()

    def channel_options(self) -> list[tuple[str, int | str]]:
        """Return the gRPC channel arguments.

        The three keepalive values find a dead peer within 15 s, on an idle stream too; two of them alone take 69 s.
        Source: measured, docs/reference/streams.md#dead-peers.
        """
        options: list[tuple[str, int | str]] = [
            ("grpc.keepalive_time_ms", 10_000),
            ("grpc.keepalive_timeout_ms", 5_000),
            ("grpc.http2.ping_timeout_ms", 5_000),
            ("grpc.max_receive_message_length", self.max_message_bytes),
            ("grpc.max_send_message_length", self.max_message_bytes),
            # gRPC waits up to two minutes between two tries to connect, and fails every call meanwhile; who resumes a
            # stream waits by its own rule. A try that is not answered is given up after 5 s.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 5_000),
            ("grpc.max_reconnect_backoff_ms", 1_000),
            # A write must never be repeated but under its request id, so gRPC's own retries are off.
            ("grpc.enable_retries", 0),
            ("grpc.service_config_disable_resolution", 1),
            # Each connection is its own: closing one, or its options, never touches another to the same gateway.
            ("grpc.use_local_subchannel_pool", 1),
        ]
        if self.flow is Flow.BOUNDED:
            options.append(("grpc.http2.bdp_probe", 0))
        if self.target.is_local:
            # A proxy for the outside world must not see, or break, calls that stay on this machine.
            options.append(("grpc.enable_http_proxy", 0))
        if self.tls and self.tls.server_name:
            options.append(("grpc.ssl_target_name_override", self.tls.server_name))
        return options
