"""Checks of the options of `mxgw keys create`: scopes, networks, names and patterns."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

import click

from mxgw_acl.keys import Scope
from mxgw_core.api import check_glob
from mxgw_core.api.globs import LONGEST_PATTERN

# The largest values of --max-rate (events per second) and --max-buffer (MiB). No gateway could reach them.
MOST_PER_S, MOST_MIB = 1e9, 1024 * 1024
# How often one option can be given, for example --read or --tag. There is a limit because each item that a client
# names is compared with all patterns of its key. --certificate has the same limit.
_MOST_PATTERNS = 100


def scopes(ctx: click.Context, param: click.Parameter, value: str) -> frozenset[Scope]:
    """Return the scopes from a list of words that are separated by commas."""
    words = [word.strip() for word in value.split(",") if word.strip()]
    known = {scope.value: scope for scope in Scope}
    for word in words:
        if word not in known:
            raise click.BadParameter(f"{word!r} is no scope: use {', '.join(known)}", ctx, param)
    if not words:
        raise click.BadParameter(f"a key without a scope may do nothing: use {', '.join(known)}", ctx, param)
    return frozenset(known[word] for word in words)


def networks(ctx: click.Context, param: click.Parameter, values: Sequence[str]) -> tuple[str, ...]:
    """Return the networks as address and prefix length: 10.1.2.3 becomes 10.1.2.3/32."""
    try:
        return tuple(str(ipaddress.ip_network(value, strict=False)) for value in values)
    except ValueError as error:
        raise click.BadParameter(f"{error}: write 10.1.0.0/16, 10.1.2.3 or 2001:db8::/32", ctx, param) from None


def names(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """Return the values of an option that can be given several times, unchanged.

    Refuse values that are empty, too long or not printable, and too many values. The values are names or patterns of
    items, patterns of tags, or names in client certificates.
    """
    if len(values) > _MOST_PATTERNS:
        raise click.BadParameter(
            f"{len(values)} are given, {_MOST_PATTERNS} are allowed: use patterns that name more, or several keys",
            ctx,
            param,
        )
    for value in values:
        if not value.strip():
            raise click.BadParameter("it is empty, and would name nothing: write a name or leave it out", ctx, param)
        if len(value) > LONGEST_PATTERN:
            raise click.BadParameter(f"a name has at most {LONGEST_PATTERN} characters", ctx, param)
        if not value.isprintable():
            raise click.BadParameter(f"{value!r} has characters that cannot be printed: no item has", ctx, param)
    return values


def tag_globs(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """Return the patterns of session tags, unchanged and checked like `globs`. "" allows sessions without a tag."""
    globs(ctx, param, tuple(value for value in values if value != ""))
    return values


def globs(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """Return the patterns unchanged; refuse any that would be slow to match, and all that `names` refuses."""
    try:
        for value in values:
            check_glob(value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from None
    return names(ctx, param, values)
