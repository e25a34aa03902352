"""Checks the options of `mxgw keys`: scopes, networks, names and patterns."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

import click

from mxgw_acl.keys import Scope
from mxgw_core.api import check_glob
from mxgw_core.api.globs import LONGEST_PATTERN

# The largest limits of events per second, and of MiB kept for a session: beyond the means of any gateway.
MOST_PER_S, MOST_MIB = 1e9, 1024 * 1024
# The most patterns of one kind: each item that the key names is compared with all of them.
_MOST_PATTERNS = 100


def scopes(ctx: click.Context, param: click.Parameter, value: str) -> frozenset[Scope]:
    """Return the scopes that the words name."""
    words = [word.strip() for word in value.split(",") if word.strip()]
    known = {scope.value: scope for scope in Scope}
    for word in words:
        if word not in known:
            raise click.BadParameter(f"{word!r} is no scope: use {', '.join(known)}", ctx, param)
    if not words:
        raise click.BadParameter(f"a key without a scope may do nothing: use {', '.join(known)}", ctx, param)
    return frozenset(known[word] for word in words)


def networks(ctx: click.Context, param: click.Parameter, values: Sequence[str]) -> tuple[str, ...]:
    """Return the networks in their full form."""
    try:
        return tuple(str(ipaddress.ip_network(value, strict=False)) for value in values)
    except ValueError as error:
        raise click.BadParameter(f"{error}: write 10.1.0.0/16, 10.1.2.3 or 2001:db8::/32", ctx, param) from None


def names(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """Return patterns of items; refuse those that would make each check of an item slow."""
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
    """Return patterns of tags; "" is for a session without a tag."""
    globs(ctx, param, tuple(value for value in values if value != ""))
    return values


def globs(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """Return patterns that can be matched in few steps."""
    try:
        for value in values:
            check_glob(value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from None
    return names(ctx, param, values)
