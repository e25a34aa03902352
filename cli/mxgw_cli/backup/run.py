"""`mxgw backup`: copies the files of plugins, and the settings files, into one archive.

A database is copied as of one moment, a file of lines up to its last whole line, any other file as it is.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import sqlite3
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click

from mxgw_cli.archive import DATA, FORMAT, SETTINGS, Contents, Member, Progress, name_problem, write_archive
from mxgw_cli.loading import failure_of, loaded, quiet
from mxgw_cli.options import SettingsChoice
from mxgw_cli.render import bytes_text, write_json
from mxgw_cli.shell import CliFailure, cleaning_up_at_sigterm, shown_progress
from mxgw_core.api.errors import GatewayError, MxgwError
from mxgw_core.api.maintenance import BackupEntry, BackupKind
from mxgw_core.config.loader import LoadedSettings
from mxgw_core.config.models import Settings
from mxgw_core.plugins import PluginHost, PluginState
from mxgw_core.plugins.answers import check_of
from mxgw_core.plugins.calls import CallFailed, Owner
from mxgw_core.printable import printable
from mxgw_worker.platform import open_private

_CHUNK_BYTES = 1024 * 1024
_NOTHING = check_of(None, "None")


@dataclass(frozen=True, slots=True)
class _Source:
    """A file to copy into the archive.

    `name` is the name in the archive. `plugin` is the plugin that the file belongs to, or "" for a settings file.
    `entry` has the path of the file, and says how to copy the file.
    """

    name: str
    plugin: str
    entry: BackupEntry


def make_backup(choice: SettingsChoice, file: Path, *, replace: bool, as_json: bool) -> None:
    """Write the archive to `file` and print its contents.

    Raises:
        CliFailure: a file for the backup cannot be read, or the archive cannot be written.
        SilentFailure: the process received SIGTERM. All temporary copies have been removed.
    """
    _require_place(file, replace=replace)
    file = file.absolute()
    found = loaded(choice)
    data_dir = found.settings.gateway.data_dir.resolve()
    if not data_dir.is_dir():
        raise CliFailure(
            f"gateway.data_dir {data_dir} does not exist, so there is nothing to back up",
            hint="--settings or --set gateway.data_dir=... names the gateway that is meant.",
        )
    sources = [*_plugin_files(found, data_dir), *_settings_files(found.files)]
    _require_no_live_file(file, found.settings, data_dir, sources)
    created_at = datetime.now(UTC).isoformat(timespec="seconds")
    size = 0
    try:
        size = sum(source.entry.path.stat().st_size for source in sources)
        # The copies are made next to the archive, on the same disk. Only this user can enter their directory.
        with (
            cleaning_up_at_sigterm(),
            tempfile.TemporaryDirectory(prefix=".mxgw-backup-", dir=file.parent) as name,
        ):
            with shown_progress("Copying", size, hidden=as_json) as progress:
                copies = [Path(name) / str(number) for number in range(len(sources))]
                members = [_copied(*pair, progress) for pair in zip(sources, copies, strict=True)]
            contents = Contents(
                format=FORMAT,
                mxgw=version("mxgw"),
                created_at=created_at,
                data_dir=str(data_dir),
                left_out=tuple(_left_out(found)),
                members=tuple(members),
            )
            total = sum(member.size_bytes for member in members)
            archive = Path(name) / "archive"
            descriptor = open_private(archive, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            with os.fdopen(descriptor, "wb") as target, shown_progress("Writing", total, hidden=as_json) as progress:
                write_archive(target, contents, copies, progress)
                target.flush()
                os.fsync(descriptor)
            archive.replace(file)
    except sqlite3.Error as error:
        raise CliFailure(f"a database cannot be copied: {error}", hint=_room_hint(file, size)) from None
    except OSError as error:
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        raise CliFailure(
            f"{error.filename or file}: {error.strerror or error}",
            hint=_room_hint(file, size)
            if is_full
            else "Run this as the gateway's user, with a place for FILE that this user can write to.",
        ) from None
    _report(file, contents, as_json=as_json)


def _require_place(file: Path, *, replace: bool) -> None:
    """Raise CliFailure unless `file` is a place for the archive.

    An existing file is replaced only if `replace` is True and the file is a regular file.
    """
    if file.name == "-":
        raise CliFailure(
            "a backup is not written to stdout", hint="Name the file to write, for example mxgw-backup.tar."
        )
    file = file.absolute()
    try:
        mode = file.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        mode = None
    except OSError as error:
        raise CliFailure(f"{file}: {error.strerror or error}") from None
    if mode is not None and stat.S_ISDIR(mode):
        raise CliFailure(f"{file} is a directory", hint="Name the file to write, for example mxgw-backup.tar.")
    if mode is not None and not stat.S_ISREG(mode):
        raise CliFailure(
            f"{file} is not a regular file but a link, a device or the like, and is never replaced",
            hint="Name the file to write, for example mxgw-backup.tar.",
        )
    if mode is not None and not replace:
        raise CliFailure(f"{file} exists", hint="Choose another name, or say --force to replace it.")
    if not file.parent.is_dir():
        raise CliFailure(f"{file.parent} is no directory", hint="Make it first, private to the gateway's user.")


def _require_no_live_file(file: Path, settings: Settings, data_dir: Path, sources: Sequence[_Source]) -> None:
    """Raise CliFailure when the archive would replace a file of the gateway, or lie in one of its directories.

    The option --force does not change this.
    """
    hint = "Name a file elsewhere, best on another disk."
    place = file.parent.resolve() / file.name
    if place.is_relative_to(data_dir):
        raise CliFailure(f"{place} is inside gateway.data_dir {data_dir}, which is being backed up", hint=hint)
    for source in sources:
        path = source.entry.path
        if source.plugin and place.parent.is_relative_to(path.parent):
            raise CliFailure(f"{place} is inside {path.parent}, where plugin {source.plugin} keeps files", hint=hint)
        if place == path:
            raise CliFailure(f"{place} is a settings file of this gateway", hint=hint)
    for key, path in settings.tls:
        if path is not None and place == path.resolve():
            raise CliFailure(f"{place} is the file of tls.{key}", hint=hint)


def _room_hint(file: Path, size: int) -> str:
    """Return a hint that compares the free space on the disk with the space that the backup needs."""
    free = shutil.disk_usage(file.parent).free
    return (
        f"Is there room? {file.parent} has {bytes_text(free)} free, and a backup takes up to {bytes_text(2 * size)} "
        "there while it is made."
    )


def _plugin_files(found: LoadedSettings, data_dir: Path) -> Iterator[_Source]:
    """Yield the files that plugins want in the backup.

    Raises:
        CliFailure: a plugin cannot be loaded, or its hook `mxgw_backup` failed, so that its files would be missing. Or
            a file's name is not allowed in an archive, or two plugins have files of the same name.
    """
    try:
        with quiet():
            host = PluginHost.load(found.settings, origins=found.origins)
            answers = host.ask("mxgw_backup", data_dir=data_dir)
    except MxgwError as error:
        raise CliFailure(f"the plugins cannot be loaded, so their files would be missing:\n  {error}") from None
    for record in host.records:
        if record.state is PluginState.FAILED:
            raise CliFailure(
                f"plugin {record.name} cannot be loaded, so its files would be missing: {printable(record.detail, 500)}"
            )
    names: dict[str, str] = {}
    for answer in reversed(answers):
        if answer.error is not None:
            why = failure_of("mxgw_backup", answer.error)
            raise CliFailure(f"plugin {answer.plugin} cannot say what belongs into a backup: {why}")
        for entry in answer.value:
            path = entry.path.resolve()
            inside = path.relative_to(data_dir) if path.is_relative_to(data_dir) else Path(answer.plugin, path.name)
            name = f"{DATA}/{inside.as_posix()}"
            if problem := name_problem(name):
                raise CliFailure(f"plugin {answer.plugin} wants {path} to be in the backup: {problem}")
            if name in names:
                raise CliFailure(f"plugins {names[name]} and {answer.plugin} both have a file {inside} for the backup")
            names[name] = answer.plugin
            yield _Source(name, answer.plugin, BackupEntry(path, entry.kind, _prepare(entry, answer.owner)))


def _prepare(entry: BackupEntry, owner: Owner) -> Callable[[sqlite3.Connection], None] | None:
    """Return the `prepare` of a plugin's entry as it is called here: what it raises names the plugin."""
    prepare = entry.prepare
    if prepare is None:
        return None

    def prepared(connection: sqlite3.Connection) -> None:
        try:
            with quiet():
                owner.call("BackupEntry.prepare", _NOTHING, prepare, connection)
        except (CallFailed, GatewayError) as error:
            cause = error.__cause__
            if isinstance(cause, sqlite3.Error) and cause.sqlite_errorcode == sqlite3.SQLITE_FULL:
                raise cause from None  # a full disk is no fault of the plugin
            why = failure_of("prepare", error.__cause__ or error)
            raise CliFailure(f"plugin {owner.plugin} cannot prepare the copy of {entry.path}: {why}") from None

    return prepared


def _settings_files(files: Sequence[Path]) -> Iterator[_Source]:
    taken: set[str] = set()
    for path in files:
        name = path.name
        while name in taken:
            name = f"also-{name}"
        taken.add(name)
        yield _Source(f"{SETTINGS}/{name}", "", BackupEntry(path.resolve()))


def _copied(source: _Source, copy: Path, progress: Progress) -> Member:
    """Copy a file as its kind (database, lines or other) requires; return its entry for the list of contents."""
    entry = source.entry
    if entry.kind is BackupKind.DATABASE:
        _copy_database(entry, copy)
        progress(copy.stat().st_size)
    else:
        _copy_bytes(entry.path, copy, progress)
        if entry.kind is BackupKind.LINES:
            _cut_after_last_line(copy)
    with copy.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    return Member(
        name=source.name,
        kind=entry.kind,
        plugin=source.plugin,
        was=str(entry.path),
        size_bytes=copy.stat().st_size,
        sha256=digest.hexdigest(),
    )


def _copy_bytes(path: Path, copy: Path, progress: Progress) -> None:
    """Copy a file up to the end that it has now. What the gateway appends during the copy is not copied."""
    with path.open("rb") as original, copy.open("wb") as target:
        left = os.fstat(original.fileno()).st_size
        while left and (data := original.read(min(left, _CHUNK_BYTES))):
            target.write(data)
            progress(len(data))
            left -= len(data)


def _cut_after_last_line(copy: Path) -> None:
    with copy.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        while end:
            begin = max(0, end - _CHUNK_BYTES)
            file.seek(begin)
            if line_end := file.read(end - begin).rfind(b"\n") + 1:
                file.truncate(begin + line_end)
                return
            end = begin
        file.truncate(0)


def _copy_database(entry: BackupEntry, copy: Path) -> None:
    # With mode=rw SQLite opens only an existing file. By default SQLite would create an empty database in place of a
    # missing file, and the backup would have a copy of the empty database.
    uri = f"{entry.path.as_uri()}?mode=rw"
    with closing(sqlite3.connect(uri, uri=True)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
        target.execute("PRAGMA journal_mode = DELETE")
        if (damage := target.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise CliFailure(f"{entry.path} is damaged: {damage}", hint="Keep the older backups.")
        if entry.prepare is not None:
            entry.prepare(target)
            target.commit()
            # Without VACUUM, the rows that `prepare` deleted would stay readable in unused parts of the file.
            target.execute("VACUUM")


def _left_out(found: LoadedSettings) -> list[str]:
    """Return what a gateway with these settings needs and the backup does not have.

    These are TLS files, and settings that come from the command line or from environment variables.
    """
    return [*_tls_files(found.settings), *_settings_without_file(found)]


def _tls_files(settings: Settings) -> Iterator[str]:
    for key, path in settings.tls:
        if path is not None:
            yield f"tls.{key}: the file {path}"


def _settings_without_file(found: LoadedSettings) -> Iterator[str]:
    for key, origin in found.origins.items():
        if origin == "command line" or origin.startswith("environment "):
            yield f"{key}: set by {'the ' if origin == 'command line' else ''}{origin}"


def _report(file: Path, contents: Contents, *, as_json: bool) -> None:
    size = file.stat().st_size
    if as_json:
        document: dict[str, Any] = {
            "file": file,
            "bytes": size,
            "created_at": contents.created_at,
            "members": [
                {"name": m.name, "plugin": m.plugin, "kind": m.kind, "bytes": m.size_bytes, "was": m.was}
                for m in contents.members
            ],
            "left_out": contents.left_out,
        }
        write_json(document)
        return
    click.echo(f"{file}: {len(contents.members)} files, {bytes_text(size)}.")
    width = max((len(member.name) for member in contents.members), default=0)
    for member in contents.members:
        click.echo(f"  {member.name:<{width}}  {bytes_text(member.size_bytes)}")
    if contents.left_out:
        click.echo("Not in it, and needed by this gateway:")
        for line in contents.left_out:
            click.echo(f"  {line}")
    click.echo("It holds secrets, so keep it as one. `mxgw restore` puts it back.")
