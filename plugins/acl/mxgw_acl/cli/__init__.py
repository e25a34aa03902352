"""The commands that the plugin adds to `mxgw`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import click

from mxgw_acl.settings import AclSettings


def commands(settings: Callable[[], AclSettings]) -> Sequence[click.Command]:
    """Return the commands of the plugin. Each of them calls `settings` when it runs."""
    from mxgw_acl.cli.keys import keys_group
    from mxgw_acl.cli.operators import operators_group
    from mxgw_acl.cli.tls import tls_group

    return [keys_group(settings), operators_group(settings), tls_group()]
