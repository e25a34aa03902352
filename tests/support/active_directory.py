"""A real Active Directory domain controller (Samba) on a loopback address, and a relay that blocks some requests."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ldap3
import pytest

from support.background import in_background
from support.certificates import Authority

SUFFIX = "DC=plant,DC=test"
GROUPS, PEOPLE = f"OU=groups,{SUFFIX}", f"OU=people,{SUFFIX}"
READER_DN, READER_PASSWORD = f"CN=reader,{PEOPLE}", "Reader-password-1"
PASSWORDS = {"anna": "Anna-password-1", "vera": "Vera-password-1", "nora": "Nora-password-1"}
_ADMIN_PASSWORD = "Admin-password-1"
_SECURITY_GROUP, _DISTRIBUTION_GROUP = -2147483646, 2
# Key: a group. Value: its members. The user vera is in gateway-viewers through three nested groups, and two of the
# groups contain each other.
_MEMBERS = {
    "line4": ["vera"],
    "crew": ["line4", "round"],
    "operations": ["crew"],
    "gateway-viewers": ["operations"],
    "round": ["gateway-viewers"],
    "gateway-admins": ["anna"],
    "newsletter": ["vera"],
}
_DISTRIBUTION = {"newsletter"}


@dataclass(frozen=True)
class ActiveDirectory:
    """A running domain controller."""

    address: str
    authority: Authority

    @property
    def url(self) -> str:
        return f"ldaps://{self.address}:636"


@contextmanager
def running_active_directory(folder: Path) -> Iterator[ActiveDirectory]:
    """Run a domain controller during the `with` block.

    Making it takes some seconds. Skip the test if Samba is missing.
    """
    if shutil.which("samba", path=f"{os.environ['PATH']}:/usr/sbin") is None or shutil.which("samba-tool") is None:
        pytest.skip("samba is not installed; this installs it: scripts/install_test_services.sh")
    if os.geteuid() != 0:
        pytest.skip("a domain controller listens on ports that only root may use")
    # The ports are fixed, so each run takes another loopback address.
    address = ".".join(["127", *(str(secrets.randbelow(250) + 2) for _ in range(3))])
    authority = Authority(folder, "domain-ca", address)
    pair = authority.issue("controller")
    pair.key.chmod(0o600)  # samba refuses a key file that others can read
    options = {
        "interfaces": f"{address}/8",
        "bind interfaces only": "yes",
        "server services": "ldap",
        "vfs objects": "",
        "pid directory": folder,
        "ncalrpc dir": folder / "ncalrpc",
        "log file": folder / "log.%m",
        "tls keyfile": pair.key,
        "tls certfile": pair.certificate,
        "tls cafile": authority.root,
    }
    arguments = [f"--option={name}={value}" for name, value in options.items()]
    domain = ["--realm=PLANT.TEST", "--domain=PLANT", "--server-role=dc", "--dns-backend=NONE"]
    where = [f"--adminpass={_ADMIN_PASSWORD}", f"--targetdir={folder}"]
    _run(["samba-tool", "domain", "provision", *domain, *where, *arguments])
    with (folder / "samba.log").open("wb") as log:
        process = subprocess.Popen(
            ["samba", "-i", "-M", "single", "-s", str(folder / "etc" / "smb.conf"), "--debug-stdout", *arguments],
            stdout=log,
            stderr=log,
            env={**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin"},
        )
    try:
        with _administrator(address, process) as connection:
            _fill(connection)
        yield ActiveDirectory(address, authority)
    finally:
        process.terminate()
        process.wait(60)


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def _administrator(address: str, process: subprocess.Popen[bytes]) -> Iterator[Any]:
    """Yield a connection of the administrator, as soon as the controller answers."""
    # The server is our own, so its host name need not be checked. (ldap3's own check is deprecated and warns.)
    tls = ldap3.Tls(validate=ssl.CERT_NONE)
    server = ldap3.Server(address, port=636, use_ssl=True, tls=tls, get_info=ldap3.NONE, connect_timeout=5)
    user = f"CN=Administrator,CN=Users,{SUFFIX}"
    connection = ldap3.Connection(server, user, _ADMIN_PASSWORD, raise_exceptions=True, receive_timeout=20)
    deadline = time.monotonic() + 60
    while True:
        assert process.poll() is None, "samba did not start"
        try:
            socket.create_connection((address, 636), 1).close()
            break
        except OSError:
            assert time.monotonic() < deadline, "samba does not listen"
            time.sleep(0.05)
    connection.bind()
    try:
        yield connection
    finally:
        connection.unbind()


def _fill(connection: Any) -> None:
    for unit in (GROUPS, PEOPLE):
        connection.add(unit, "organizationalUnit")
    for name, password in {**PASSWORDS, "reader": READER_PASSWORD}.items():
        attributes = {
            "sAMAccountName": name,
            "unicodePwd": f'"{password}"'.encode("utf-16-le"),
            "userAccountControl": 512,
        }
        connection.add(f"CN={name},{PEOPLE}", "user", attributes)
    for name in _MEMBERS:
        kind = _DISTRIBUTION_GROUP if name in _DISTRIBUTION else _SECURITY_GROUP
        connection.add(f"CN={name},{GROUPS}", "group", {"sAMAccountName": name, "groupType": kind})
    for name, members in _MEMBERS.items():
        dns = [f"CN={member},{GROUPS if member in _MEMBERS else PEOPLE}" for member in members]
        connection.modify(f"CN={name},{GROUPS}", {"member": [(ldap3.MODIFY_ADD, dns)]})


@contextmanager
def hindered(directory: ActiveDirectory, folder: Path, word: bytes, *, cuts: bool) -> Iterator[tuple[str, Path]]:
    """Relay requests to a directory server, except requests that contain `word`.

    A request with `word` is dropped; with `cuts`, its connection is closed instead. Yield the URL of the relay, and the
    CA file of its certificate.
    """
    authority = Authority(folder, "relay-ca")
    pair = authority.issue("relay")
    front = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    front.load_cert_chain(pair.certificate, pair.key)
    back = ssl.create_default_context(cafile=directory.authority.root)

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, unwanted: bytes) -> None:
        with suppress(OSError):
            while data := await source.read(65536):
                if unwanted and unwanted in data:
                    if cuts:
                        break
                    continue
                sink.write(data)
                await sink.drain()
        sink.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # The connection is aborted and not closed, because closing in TLS would wait for an answer of the other side.
        try:
            there, back_to = await asyncio.open_connection(directory.address, 636, ssl=back)
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(pump(reader, back_to, word))
                    tasks.create_task(pump(there, writer, b""))
            finally:
                back_to.transport.abort()
        finally:
            writer.transport.abort()

    @asynccontextmanager
    async def relay() -> AsyncIterator[str]:
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=front)
        async with server:
            yield f"ldaps://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    # The relay runs in one thread, because two threads must not use a TLS connection at the same time.
    with in_background(relay) as (url, _):
        yield url, authority.root
