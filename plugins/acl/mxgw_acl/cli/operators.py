"""`mxgw operators logout`: ends the dashboard logins of a person."""

from __future__ import annotations

from collections.abc import Callable

import click

from mxgw_acl.audit_log import AUDIT_FILE, AuditLog, AuditRecord
from mxgw_acl.cli.form import told_failures, write_record
from mxgw_acl.settings import AclSettings
from mxgw_acl.store import KeyStore
from mxgw_core.api import folded_name
from mxgw_core.api.cli import Command, Group


def operators_group(settings: Callable[[], AclSettings]) -> click.Group:
    """Return the group of commands `mxgw operators`; each command calls `settings` when it runs."""

    @click.group(
        cls=Group,
        name="operators",
        short_help="End the dashboard logins of a person.",
        examples=[("mxgw operators logout anna", "every login of anna is over within seconds")],
    )
    def operators() -> None:
        """Logins of operators at the dashboard. The operators themselves are managed in the LDAP directory."""

    @operators.command(cls=Command, short_help="End all logins of a person.")
    @click.argument("user")
    def logout(user: str) -> None:
        """End all logins of USER, and the streams of these logins.

        A person who is still in the LDAP directory can log in again.
        """
        with told_failures():
            chosen = settings()
            store = KeyStore(chosen.directory)
            try:
                store.end_logins_of(user.strip())
                audit = AuditLog(chosen.directory / AUDIT_FILE)
                try:
                    who = folded_name(user)
                    write_record(audit, AuditRecord("command line", "operators logout", "done", who, "local"))
                finally:
                    audit.close()
            finally:
                store.close()
        click.echo(f"All logins of {user} are over.")

    return operators
