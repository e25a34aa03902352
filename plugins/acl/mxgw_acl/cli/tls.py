"""`mxgw tls init`: makes a certificate authority and certificates, for sites that have no certificate authority."""

from __future__ import annotations

import json
from pathlib import Path

import click

from mxgw_acl.cli.form import show_json
from mxgw_core.api.cli import Command, Group


def tls_group() -> click.Group:
    """Return the group of commands `mxgw tls`."""

    @click.group(cls=Group, name="tls", short_help="Make certificates for a gateway and its clients.")
    def tls() -> None:
        """Certificates for TLS. A site that has its own certificate authority does not need these commands."""

    @tls.command(
        cls=Command,
        short_help="Make a development CA and certificates.",
        examples=[
            ("mxgw tls init", "for localhost and this machine's name, into ./tls"),
            ("mxgw tls init --host gateway.plant --host 10.1.2.3", "what clients write after --gateway"),
            ("mxgw tls init --client historian --client hmi4", "client certificates as well (mutual TLS)"),
        ],
    )
    @click.option(
        "--directory",
        type=click.Path(path_type=Path, file_okay=False),
        default=Path("tls"),
        show_default=True,
        help="Where the files go. A CA that is there already is used again.",
    )
    @click.option("--host", "hosts", multiple=True, metavar="NAME", help="Name or address of the gateway.")
    @click.option("--client", "clients", multiple=True, metavar="NAME", help="Make a client certificate of this name.")
    @click.option("--days", type=click.IntRange(1, 3650), default=365, show_default=True, help="Life of certificates.")
    @click.option("--json", "as_json", is_flag=True, help="Print JSON, and nothing else on stdout.")
    def init(directory: Path, hosts: tuple[str, ...], clients: tuple[str, ...], days: int, as_json: bool) -> None:
        """Make a certificate authority (CA) and a certificate for the gateway, and print how to use them.

        The CA's private key stays in the directory. Keep it secret: a person who has it can make certificates that
        clients and gateway trust. Run this command again before the certificates expire: the gateway reads new
        certificates without a restart.
        """
        try:
            from mxgw_acl.certificates import init_tls
        except ModuleNotFoundError as error:
            raise click.ClickException(f"this needs the package {error.name}: pip install 'mxgw[acl]'") from None
        try:
            made = init_tls(directory, hosts, clients, days)
        except (OSError, ValueError) as error:
            raise click.ClickException(f"{directory}: {error}") from None
        if as_json:
            show_json({name: str(path) for name, path in made.items()})
            return
        click.echo(f"Certificates are in {directory}. In settings.toml:\n")
        click.echo("[tls]")
        click.echo(f"certificate = {_in_toml(made['certificate'])}")
        click.echo(f"private_key = {_in_toml(made['private_key'])}")
        if clients:
            click.echo(f"client_ca = {_in_toml(made['ca'])}")
        click.echo(f"\nClients trust it with: mxgw sessions --ca {made['ca']}")
        for client in clients:
            certificate, key = made[f"client {client}"], made[f"client key {client}"]
            click.echo(f"{client} shows itself with: --cert {certificate} --key {key}")

    return tls


def _in_toml(path: Path) -> str:
    """Return a path as a text of TOML. The backslashes of Windows mean something else in double quotes."""
    text = str(path.resolve())
    return f"'{text}'" if "\\" in text and "'" not in text else json.dumps(text, ensure_ascii=False)
