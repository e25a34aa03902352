"""Keeps other users out of a gateway that a command starts for its own use, and connects to it.

Where there are Unix sockets, the gateway listens on one in a private directory, and only the present user can connect.
To a port of this machine, every user of the machine can connect. A gateway on a port therefore accepts only calls with
an API key. The gateway makes it at its start, and writes it to the pipe to the command that started it: the key is in
no file, and in no command line or environment, which other programs can read. It needs no TLS, because only an
administrator can read what is sent on the loopback interface.
"""

from __future__ import annotations

import hmac
import os
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mxgw_cli.children import Child, child, clean_environment
from mxgw_core.api import AuthenticationRequest, Identity, hookimpl
from mxgw_core.api.errors import Unauthenticated
from mxgw_core.shells import HAS_UNIX_SOCKETS
from mxgw_worker.platform import open_private

# The name of the plugin in the gateway.
ONE_KEY = "one_key"
_CALLER = Identity(id="local", kind="key", display_name="local user")


class OneKey:
    """A plugin that accepts one API key and nothing else."""

    def __init__(self, key: str) -> None:
        self._expected = f"Bearer {key}".encode()

    @hookimpl
    def mxgw_authenticate(self, request: AuthenticationRequest) -> Identity:
        given = request.metadata.get("authorization", "").encode()
        if not hmac.compare_digest(given, self._expected):
            raise Unauthenticated("this gateway is used by the command that started it, and by nobody else")
        return _CALLER


def new_key() -> str:
    """Return a new API key."""
    return secrets.token_urlsafe(32)


def own_address(directory: Path) -> str:
    """Return where a gateway of a command listens, whose files are in `directory`: a Unix socket, or any free port."""
    return f"unix:{directory / 'gateway.sock'}" if HAS_UNIX_SOCKETS else "127.0.0.1:0"


def needs_key(address: str) -> bool:
    """Return whether other users can connect to the address of a gateway of a command."""
    return not address.startswith("unix:")


@dataclass(frozen=True, slots=True)
class OwnGateway:
    """A gateway that a command runs as a process of its own, with its files in `directory`.

    `api_key` is "" when it needs none.
    """

    directory: Path
    target: str
    api_key: str = field(repr=False)
    process: Child

    def key_file(self) -> Path:
        """Write the API key to a private file, for another program that this command starts; return its path."""
        path = self.directory / "api-key"
        with os.fdopen(open_private(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "w", encoding="ascii") as file:
            file.write(self.api_key)
        return path


@asynccontextmanager
async def own_gateway(directory: Path, settings: Mapping[str, object]) -> AsyncIterator[OwnGateway]:
    """Run a gateway with these settings while the block runs. Its files are in `directory`, which must be private.

    Raises:
        CliFailure: the gateway could not start; the text has the end of its log.
    """
    address = own_address(directory)
    options: Sequence[str] = ("--one-key",) if needs_key(address) else ()
    arguments = ["mxgw_cli", "serve", "--json", "--listen", address, *options]
    for key, value in {"gateway.data_dir": directory / "data", **settings}.items():
        arguments += ["--set", f"{key}={value}"]
    async with child("gateway", arguments, directory, clean_environment()) as process:
        addresses = process.ready.get("addresses")
        target = str(addresses[0]) if isinstance(addresses, list) and addresses else address
        yield OwnGateway(directory, target, str(process.ready.get("api_key", "")), process)
