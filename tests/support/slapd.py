"""A real OpenLDAP server on loopback, with people, nested groups and TLS."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.certificates import Authority

SUFFIX = "dc=plant"
ADMIN_DN, ADMIN_PASSWORD = f"cn=admin,{SUFFIX}", "admin-password"
READER_DN, READER_PASSWORD = f"cn=reader,{SUFFIX}", "reader-password"
PASSWORDS = {"anna": "anna-password", "vera": "vera-password", "nora": "nora-password", "o(d)d*": "odd-password"}

_CONFIGURATION = """
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
moduleload memberof
pidfile {folder}/slapd.pid
TLSCertificateFile {certificate}
TLSCertificateKeyFile {key}
TLSVerifyClient never
{capabilities}
referral ldap://127.0.0.1:{port}/
database mdb
suffix "dc=plant"
rootdn "{admin}"
rootpw {admin_password}
directory {folder}/data
maxsize 10485760
overlay memberof
access to attrs=userPassword by anonymous auth by * none
access to * by users read by * none
"""

_CAPABILITIES = """
attributetype ( 1.2.840.113556.1.4.1464 NAME 'supportedCapabilities'
  SYNTAX 1.3.6.1.4.1.1466.115.121.1.38 )
rootDSE {told}
"""

_PEOPLE = """
dn: dc=plant
objectClass: domain
dc: plant

dn: cn=reader,dc=plant
objectClass: person
cn: reader
sn: reader
userPassword: reader-password

dn: ou=people,dc=plant
objectClass: organizationalUnit
ou: people

dn: ou=groups,dc=plant
objectClass: organizationalUnit
ou: groups

dn: uid=anna,ou=people,dc=plant
objectClass: inetOrgPerson
uid: anna
cn: Anna
sn: A
userPassword: anna-password

dn: uid=vera,ou=people,dc=plant
objectClass: inetOrgPerson
uid: vera
cn: Vera
sn: V
userPassword: vera-password

dn: uid=nora,ou=people,dc=plant
objectClass: inetOrgPerson
uid: nora
cn: Nora
sn: N
userPassword: nora-password

dn: uid=o(d)d*,ou=people,dc=plant
objectClass: inetOrgPerson
uid: o(d)d*
cn: Odd
sn: O
userPassword: odd-password

dn: cn=gateway-admins,ou=groups,dc=plant
objectClass: groupOfNames
cn: gateway-admins
member: uid=anna,ou=people,dc=plant

dn: cn=line4,ou=groups,dc=plant
objectClass: groupOfNames
cn: line4
member: uid=vera,ou=people,dc=plant
member: uid=o(d)d*,ou=people,dc=plant

dn: cn=gateway-viewers,ou=groups,dc=plant
objectClass: groupOfNames
cn: gateway-viewers
member: uid=vera,ou=people,dc=plant

dn: cn=operations,ou=groups,dc=plant
objectClass: groupOfNames
cn: operations
member: cn=line4,ou=groups,dc=plant
member: cn=round,ou=groups,dc=plant

dn: cn=round,ou=groups,dc=plant
objectClass: groupOfNames
cn: round
member: cn=operations,ou=groups,dc=plant
"""


@dataclass(frozen=True)
class Slapd:
    """A running server. `plain` is the URL that offers StartTLS, `tls` the URL for LDAPS."""

    plain: str
    tls: str
    authority: Authority
    folder: Path

    def modify(self, ldif: str) -> None:
        """Change entries as the administrator of the directory."""
        _run(["ldapmodify", "-H", self.plain, "-D", ADMIN_DN, "-w", ADMIN_PASSWORD], ldif)

    def set_member(self, group: str, member: str, *, is_in: bool) -> None:
        """Add a member to a group, or remove it."""
        change = "add" if is_in else "delete"
        self.modify(f"dn: cn={group},ou=groups,dc=plant\nchangetype: modify\n{change}: member\nmember: {member}\n")


@contextmanager
def running_slapd(folder: Path, *, capabilities: Sequence[str] = ()) -> Iterator[Slapd]:
    """Run a server during the block. Skip the test if slapd is not installed.

    The server announces `capabilities` in its root entry, as Active Directory does.
    """
    slapd = shutil.which("slapd", path=f"{os.environ['PATH']}:/usr/sbin")
    if slapd is None or shutil.which("ldapadd") is None:
        pytest.skip("slapd is not installed; this installs it: scripts/install_test_services.sh")
    (folder / "data").mkdir()
    authority = Authority(folder, "directory-ca")
    pair = authority.issue("directory")
    port, tls_port = _free_port(), _free_port()
    configuration = folder / "slapd.conf"
    told = folder / "root.ldif"
    told.write_text("\n".join(["dn:", *(f"supportedCapabilities: {each}" for each in capabilities)]) + "\n")
    configuration.write_text(
        _CONFIGURATION.format(
            folder=folder,
            capabilities=_CAPABILITIES.format(told=told) if capabilities else "",
            certificate=pair.certificate,
            key=pair.key,
            port=port,
            admin=ADMIN_DN,
            admin_password=ADMIN_PASSWORD,
        )
    )
    plain, tls = f"ldap://127.0.0.1:{port}", f"ldaps://127.0.0.1:{tls_port}"
    with subprocess.Popen(
        [slapd, "-d", "0", "-f", str(configuration), "-h", f"{plain} {tls}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            _wait_for(port, process)
            _run(["ldapadd", "-H", plain, "-D", ADMIN_DN, "-w", ADMIN_PASSWORD], _PEOPLE)
            yield Slapd(plain, tls, authority, folder)
        finally:
            process.terminate()
            process.wait(60)


def _run(command: list[str], text: str) -> None:
    done = subprocess.run([*command, "-x"], input=text, capture_output=True, text=True, timeout=60)

    assert done.returncode == 0, done.stderr


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, "slapd did not start"
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise AssertionError("slapd does not listen")
