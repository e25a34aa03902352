"""`mxgw tls`: certificates to begin with."""

from __future__ import annotations

import click

from mxgw_acl.cli.form import Group


def tls_group() -> click.Group:
    """Return the group."""

    @click.group(cls=Group, name="tls", short_help="Make certificates for a gateway and its clients.")
    def tls() -> None:
        """Certificates for TLS."""

    return tls
