"""`mxgw keys`: commands that create, list, show, rotate and revoke API keys."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from mxgw_acl.audit_log import AUDIT_FILE, AuditLog, AuditRecord
from mxgw_acl.cli.arguments import MOST_MIB, MOST_PER_S, globs, names, networks, scopes, tag_globs
from mxgw_acl.cli.form import duration, moment, show_json, show_table, told_failures, write_record
from mxgw_acl.files import write_private
from mxgw_acl.keyformat import KeyText
from mxgw_acl.keys import ANY_TAG, SCOPE_MEANINGS, Constraints, Key, Scope
from mxgw_acl.patterns import ItemPatterns
from mxgw_acl.settings import AclSettings
from mxgw_acl.store import KeyStore, KeyWishes, Use
from mxgw_core.api.cli import Command, Group, NumberRange

_MIB = 1024 * 1024
_DEFAULT_SCOPES = (Scope.OPEN, Scope.READ, Scope.EVENTS)
_SCOPES_HELP = "; ".join(f"{scope.value}: {meaning}" for scope, meaning in SCOPE_MEANINGS.items())

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, and nothing else on stdout.")
out_option = click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write the key to a new file that only you may read, instead of showing it.",
)


def keys_group(settings: Callable[[], AclSettings]) -> click.Group:
    """Return the group of commands `mxgw keys`; each command calls `settings` when it runs."""

    @contextmanager
    def opened(action: str) -> Iterator[tuple[KeyStore, Callable[[str, str], None]]]:
        """Yield the key store, and a function that records a change in the audit log: `record(key_id, detail)`."""
        with told_failures():
            chosen = settings()
            store = KeyStore(chosen.directory)
            try:
                audit = AuditLog(chosen.directory / AUDIT_FILE)
                try:
                    yield (
                        store,
                        lambda key_id, detail: write_record(
                            audit,
                            AuditRecord("command line", action, "done", peer="local", reason=key_id, detail=detail),
                        ),
                    )
                finally:
                    audit.close()
            finally:
                store.close()

    @click.group(
        cls=Group,
        name="keys",
        short_help="Create, list, rotate and revoke API keys.",
        examples=[
            ("mxgw keys create historian", "a key that may read and follow everything of its own sessions"),
            ("mxgw keys list", "all keys, and when each was used last"),
            ("mxgw keys revoke 7Fq2k9XbLw3R", "end a key; its streams end within seconds"),
        ],
    )
    def keys() -> None:
        """API keys of clients.

        The commands change the key database itself, whether a gateway is running or not. A running gateway applies a
        change within seconds.
        """

    @keys.command(
        cls=Command,
        short_help="Create a key and show it, once.",
        examples=[
            ("mxgw keys create historian", "scopes open, read and events: reading and following"),
            ("mxgw keys create hmi-line4 --scopes open,read,write,events --write-below Line4 --expires 365d", ""),
            ("mxgw keys create line4 --tag line4", "its sessions are seen by the viewers of line4, and by no others"),
            ("mxgw keys create report --read 'Tank_*.Level' --network 10.1.0.0/16 --max-sessions 2", "little power"),
            ("mxgw keys create hmi --out hmi.key", "never on the screen: mxgw … --api-key-file hmi.key"),
        ],
    )
    @click.argument("name")
    @click.option(
        "--scopes",
        callback=scopes,
        default=",".join(scope.value for scope in _DEFAULT_SCOPES),
        show_default=True,
        metavar="WORDS",
        help=f"What the key may do, separated by commas. {_SCOPES_HELP}.",
    )
    @click.option(
        "--read", "read_globs", multiple=True, callback=globs, metavar="GLOB", help="Only such items may be read."
    )
    @click.option(
        "--read-below", multiple=True, callback=names, metavar="NAME", help="Only this and all below it may be read."
    )
    @click.option(
        "--write", "write_globs", multiple=True, callback=globs, metavar="GLOB", help="Only such items may be written."
    )
    @click.option(
        "--write-below",
        multiple=True,
        callback=names,
        metavar="NAME",
        help="Only this and all below it may be written.",
    )
    @click.option(
        "--tag",
        "tags",
        multiple=True,
        callback=tag_globs,
        metavar="GLOB",
        help="Sessions may be opened with such tags only, and without a tag only where '' is given, too. The tag "
        "decides which viewers see a session. Default: any tag, or none.",
    )
    @click.option("--network", multiple=True, callback=networks, metavar="CIDR", help="Accept it only from there.")
    @click.option("--max-sessions", type=click.IntRange(min=0), help="Sessions open at once.")
    @click.option("--max-subscribers", type=click.IntRange(min=0), help="Event streams at once, in all sessions.")
    @click.option(
        "--max-detached",
        type=click.IntRange(min=0),
        help="Sessions that wait without a stream; with as many it opens no more.",
    )
    @click.option("--max-rate", type=NumberRange(0.1, MOST_PER_S), metavar="N", help="Events a second, all streams.")
    @click.option("--max-buffer", type=NumberRange(0.1, MOST_MIB), metavar="MIB", help="Unread events, per session.")
    @click.option("--expires", callback=duration, metavar="TIME", help="Life of the key, as in 90d or 12h.")
    @click.option(
        "--certificate",
        multiple=True,
        callback=names,
        metavar="NAME",
        help="Callers with a client certificate of this name are this key, without its secret (mutual TLS).",
    )
    @out_option
    @json_option
    def create(
        name: str,
        scopes: frozenset[Scope],
        read_globs: tuple[str, ...],
        read_below: tuple[str, ...],
        write_globs: tuple[str, ...],
        write_below: tuple[str, ...],
        tags: tuple[str, ...],
        network: tuple[str, ...],
        max_sessions: int | None,
        max_subscribers: int | None,
        max_detached: int | None,
        max_rate: float | None,
        max_buffer: float | None,
        expires: float | None,
        certificate: tuple[str, ...],
        out: Path | None,
        as_json: bool,
    ) -> None:
        """Create a key for the client NAME. The key is shown once, because only a hash of it is stored.

        In a GLOB, * stands for any number of characters and ? for one character; upper and lower case are the same. A
        key without --read, --read-below, --write and --write-below is not limited to certain items.
        """
        if not name.isprintable() or not 0 < len(name) <= 64:
            raise click.BadParameter("a name has 1 to 64 printable characters", param_hint="NAME")
        if (write_globs or write_below) and not scopes & {Scope.WRITE, Scope.SECURED_WRITE}:
            raise click.UsageError("--write and --write-below need the scope write or secured-write (--scopes).")
        wishes = KeyWishes(
            name=name,
            scopes=scopes,
            constraints=Constraints(
                readable=ItemPatterns(read_globs, read_below),
                writable=ItemPatterns(write_globs, write_below),
                networks=network,
                tags=tags or ANY_TAG,
                maximum_sessions=max_sessions,
                maximum_subscribers=max_subscribers,
                maximum_detached=max_detached,
                maximum_events_per_s=max_rate,
                maximum_buffer_bytes=None if max_buffer is None else int(max_buffer * _MIB),
            ),
            expires_at=None if expires is None else time.time() + expires,
            certificate_names=certificate,
        )
        _check_place(out)
        with opened("keys create") as (store, record):
            key, text = store.create(wishes, settings().environment)
            try:
                record(key.id, f"{key.name}: {' '.join(sorted(scope.value for scope in key.scopes))}")
                _write(text, out)
            except (OSError, click.ClickException) as error:
                # Nobody got the key, so it must not stay valid.
                store.revoke(key.id)
                raise click.ClickException(f"{_why(error)}. Key {key.id} was made, and is revoked again.") from None
        _hand_over(key, text, out, as_json=as_json)

    @keys.command("list", cls=Command, short_help="List all keys.")
    @json_option
    def list_keys(as_json: bool) -> None:
        """List all keys: their scopes, whether they are valid, and when each was used last. Secrets are not stored."""
        with opened("keys list") as (store, _):
            found, uses = store.keys(), store.uses()
        if as_json:
            show_json([_document(key, uses.get(key_id)) for key_id, key in found.items()])
            return
        if not found:
            click.echo("There are no keys yet: mxgw keys create NAME", err=True)
            return
        show_table(
            ("KEY", "NAME", "STATE", "SCOPES", "TAGS", "LIMITS", "EXPIRES", "LAST USED"),
            [
                (
                    key.id,
                    key.name,
                    key.why_dead(time.time()) or "active",
                    ",".join(sorted(scope.value for scope in key.scopes)),
                    ",".join(glob or "''" for glob in key.constraints.tags),
                    ", ".join(key.constraints.summary()),
                    moment(key.expires_at) or "never",
                    moment(uses[key.id].last_used_at) or "" if key.id in uses else "never",
                )
                for key in found.values()
            ],
        )

    @keys.command(cls=Command, short_help="Show one key.")
    @click.argument("key_id", metavar="KEY")
    @json_option
    def show(key_id: str, as_json: bool) -> None:
        """Show everything about one key except its secret, which is not stored."""
        with opened("keys show") as (store, _):
            document = _document(store.key(key_id), store.uses().get(key_id))
        if as_json:
            show_json(document)
            return
        for fact, value in _facts(document):
            click.echo(f"{fact:<20}{value}")

    @keys.command(
        cls=Command,
        short_help="Give a key a new secret.",
        examples=[
            ("mxgw keys rotate 7Fq2k9XbLw3R", "the old secret works for another day"),
            ("mxgw keys rotate 7Fq2k9XbLw3R --old-lives 0s", "the old secret leaked: it is dead within seconds"),
        ],
    )
    @click.argument("key_id", metavar="KEY")
    @click.option(
        "--old-lives",
        callback=duration,
        default="1d",
        show_default=True,
        metavar="TIME",
        help="How long the old one works.",
    )
    @out_option
    @json_option
    def rotate(key_id: str, old_lives: float, out: Path | None, as_json: bool) -> None:
        """Give a key a new secret. The new key text is shown once.

        The id, the scopes and the sessions of the key stay as they are. At most two secrets of a key are valid.
        """
        _check_place(out)
        with opened("keys rotate") as (store, record):
            key, text = store.rotate(key_id, old_lives)
            record(key.id, f"the old secret lives for {old_lives:g} s")
            try:
                _write(text, out)
            except OSError as error:
                # The new secret is lost, because it is stored nowhere. The administrator has to rotate the key again.
                raise click.ClickException(
                    f"{_why(error)}. The secret was made but nobody has it: mxgw keys rotate {key.id} --old-lives 0s"
                ) from None
        _hand_over(key, text, out, as_json=as_json)

    @keys.command(
        cls=Command,
        short_help="End a key for good.",
        examples=[("mxgw keys revoke 7Fq2k9XbLw3R --keep-sessions", "no more calls, but its sessions live out")],
    )
    @click.argument("key_id", metavar="KEY")
    @click.option(
        "--close-sessions/--keep-sessions",
        "closes",
        default=None,
        help="What becomes of its sessions; the default is in the settings (plugins.acl.close_revoked_sessions).",
    )
    @click.option("--yes", is_flag=True, help="Do not ask.")
    @json_option
    def revoke(key_id: str, closes: bool | None, yes: bool, as_json: bool) -> None:
        """Revoke a key for good. A running gateway refuses the key and ends its streams within seconds."""
        with opened("keys revoke") as (store, record):
            key = store.key(key_id)
            if not yes:
                if not sys.stdin.isatty():
                    raise click.UsageError("There is no terminal to ask at: say --yes.")
                click.confirm(f"Revoke {key.id} ({key.name}) for good?", abort=True, err=True)
            key = store.revoke(key_id, closes)
            record(key.id, "")
        if as_json:
            show_json(_document(key, None))
        else:
            click.echo(f"{key.id} ({key.name}) is revoked.")

    return keys


def _check_place(out: Path | None) -> None:
    """Refuse a value of --out that could not be written, before anything is changed."""
    if out is None:
        return
    if out.exists():
        raise click.UsageError(f"--out {out}: there is such a file already.")
    if not out.parent.is_dir():
        raise click.UsageError(f"--out {out}: there is no directory {out.parent}; make it, or write elsewhere.")
    if not os.access(out.parent, os.W_OK | os.X_OK):
        raise click.UsageError(f"--out {out}: you may not write to {out.parent}.")


def _write(text: KeyText, out: Path | None) -> None:
    if out is not None:
        write_private(out, f"{text.text()}\n".encode())


def _why(error: OSError | click.ClickException) -> str:
    return error.message if isinstance(error, click.ClickException) else f"{error.filename}: {error.strerror}"


def _hand_over(key: Key, text: KeyText, out: Path | None, *, as_json: bool) -> None:
    """Print the key, or the name of the file that has the key."""
    if as_json:
        show_json({**_document(key, None), **({"key": text.text()} if out is None else {"file": str(out)})})
        return
    if out is not None:
        click.echo(f"{key.id} ({key.name}): the key is in {out}.")
        return
    click.echo(text.text())
    click.echo("This is the only time the key is shown: keep it where its client finds it.", err=True)


def _document(key: Key, use: Use | None) -> dict[str, Any]:
    constraints = key.constraints
    return {
        "id": key.id,
        "name": key.name,
        "state": key.why_dead(time.time()) or "active",
        "environment": key.environment,
        "scopes": sorted(scope.value for scope in key.scopes),
        "created_at": moment(key.created_at),
        "expires_at": moment(key.expires_at),
        "revoked_at": moment(key.revoked_at),
        "last_used_at": moment(use.last_used_at) if use else None,
        "last_peer": use.last_peer if use else None,
        "read": list(constraints.readable.globs),
        "read_below": list(constraints.readable.subtrees),
        "write": list(constraints.writable.globs),
        "write_below": list(constraints.writable.subtrees),
        "tags": list(constraints.tags),
        "networks": list(constraints.networks),
        "max_sessions": constraints.maximum_sessions,
        "max_subscribers": constraints.maximum_subscribers,
        "max_detached": constraints.maximum_detached,
        "max_rate": constraints.maximum_events_per_s if constraints.are_usable else None,
        "max_buffer_mib": None if (size := constraints.maximum_buffer_bytes) is None else size / _MIB,
        "certificates": list(key.certificate_names),
        "secrets": [
            {"created_at": moment(secret.created_at), "expires_at": moment(secret.expires_at)} for secret in key.hashes
        ],
    }


def _facts(document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for fact, value in document.items():
        if value is None or value == []:
            continue
        if fact == "secrets":
            for secret in value:
                until = f", until {secret['expires_at']}" if secret["expires_at"] else ""
                yield "secret", f"of {secret['created_at']}{until}"
        else:
            # A key can have the empty tag among its tags. It is shown as '', because it would look like an empty list.
            yield (
                fact.replace("_", " "),
                ", ".join(str(one) or "''" for one in value) if isinstance(value, list) else str(value),
            )
