"""`mxgw restore`: checks the whole archive first, then writes its files to an empty data directory."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

import click

from mxgw_cli.archive import DATA, RESTORED_SETTINGS, Archive, ArchiveRefused, Contents, Member, Progress, opened
from mxgw_cli.loading import loaded
from mxgw_cli.options import SettingsChoice
from mxgw_cli.render import write_json
from mxgw_cli.shell import CliFailure, cleaning_up_at_sigterm, shown_progress
from mxgw_core.api.errors import SettingsError
from mxgw_core.data_directory import UNFINISHED_RESTORE, DataDirectory
from mxgw_core.printable import printable
from mxgw_worker.platform import holder_of, make_directory, open_private

# Files and directories that every data directory has, even when no gateway has ever used it.
_ALWAYS_THERE = frozenset({"run", "logs", "lock"})
# The names in `_ALWAYS_THERE`, and the directory that a killed restore perhaps left behind.
_OWN = _ALWAYS_THERE | {UNFINISHED_RESTORE}


def restore_backup(choice: SettingsChoice, file: Path, *, as_json: bool) -> None:
    """Check the archive, write its files below gateway.data_dir, and print what to do next.

    Raises:
        CliFailure: the archive is damaged or unsafe, the directory is not empty, or a file cannot be written. Nothing
            was restored.
        SilentFailure: the process received SIGTERM. Files that were already written have been removed.
    """
    directory = loaded(choice).settings.gateway.data_dir.absolute()
    try:
        _require_fresh(directory)
        with opened(file) as archive:
            _require_room(directory, archive.total_bytes)
            with shown_progress("Checking", archive.total_bytes, hidden=as_json) as progress:
                archive.check(progress)
        with (
            _nothing_left_after_an_error(directory),
            cleaning_up_at_sigterm(),
            DataDirectory(directory, for_restore=True),
            opened(file) as again,
            _all_or_nothing(directory) as unfinished,
        ):
            with shown_progress("Restoring", again.total_bytes, hidden=as_json) as progress:
                _write(again, unfinished, progress)
            contents = again.contents
    except ArchiveRefused as refusal:
        raise CliFailure(f"{file} cannot be restored: {refusal}", hint="Nothing was restored.") from None
    except SettingsError as error:
        raise CliFailure(str(error)) from None
    except OSError as error:
        raise CliFailure(f"{error.filename or file}: {error.strerror or error}", hint="Nothing was restored.") from None
    _report(contents, directory, as_json=as_json)


def _require_fresh(directory: Path) -> None:
    if (pid := holder_of(directory)) is not None:
        raise CliFailure(
            f"a gateway (pid {pid or 'unknown'}) runs on {directory}",
            hint="Name a fresh directory: --set gateway.data_dir=...; or drain that gateway and move its directory.",
        )
    there = {path.name for path in directory.iterdir()} if directory.exists() else set()
    is_cut_off = UNFINISHED_RESTORE in there
    if is_cut_off and there - _OWN:
        raise CliFailure(
            f"a restore to gateway.data_dir {directory} was cut off at its end, and only a part is in its place",
            hint="Remove what is in it, or name a fresh directory: --set gateway.data_dir=...",
        )
    if there - _OWN or any(_is_used(directory / name) for name in there & _ALWAYS_THERE):
        raise CliFailure(
            f"gateway.data_dir {directory} is not empty, and nothing that is there may be lost",
            hint="Move it away, or name a fresh directory: --set gateway.data_dir=...",
        )
    if is_cut_off:
        with DataDirectory(directory, for_restore=True):
            shutil.rmtree(directory / UNFINISHED_RESTORE)


def _is_used(path: Path) -> bool:
    return path.is_dir() and any(path.iterdir())


def _require_room(directory: Path, needed_bytes: int) -> None:
    there = directory
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    if needed_bytes > free:
        raise CliFailure(f"the backup needs {needed_bytes} bytes and the disk of {directory} has {free} left")


@contextmanager
def _nothing_left_after_an_error(directory: Path) -> Iterator[None]:
    """After an error, remove the files of the lock, if they could not be removed while the directory was locked."""
    try:
        yield
    except BaseException:
        with suppress(OSError):
            if holder_of(directory) is None and {path.name for path in directory.iterdir()} <= _ALWAYS_THERE:
                for name in _ALWAYS_THERE:
                    _remove(directory / name)
        raise


@contextmanager
def _all_or_nothing(directory: Path) -> Iterator[Path]:
    """Yield a temporary directory for the restored files, and move its files into `directory` at the end of the block.

    After an error all files are removed again. The caller has the lock of `directory`. While the temporary directory
    exists, a gateway refuses to start on `directory`; the temporary directory stays if this process is killed. It is
    made inside `directory`, because the user perhaps cannot write to the parent, and a mount point cannot be renamed.
    """
    if unexpected := {path.name for path in directory.iterdir()} - _ALWAYS_THERE:
        raise CliFailure(f"{directory} is not empty any more: {min(unexpected)}")
    unfinished = directory / UNFINISHED_RESTORE
    names: list[str] = []
    make_directory(unfinished)
    try:
        yield unfinished
        names = sorted(path.name for path in unfinished.iterdir())
        for name in names:
            _put_in_place(unfinished / name, directory / name)
        unfinished.rmdir()
    except BaseException:
        placed = [name for name in names if not (unfinished / name).exists()]
        for name in (*placed, UNFINISHED_RESTORE):
            _remove(directory / name)
        for name in _ALWAYS_THERE:
            with suppress(OSError):  # on Windows, what is locked cannot be removed
                _remove(directory / name)
        raise


def _put_in_place(path: Path, place: Path) -> None:
    if place.exists():
        raise CliFailure(f"{place.parent} is not empty any more: {place.name}")
    path.rename(place)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _write(archive: Archive, directory: Path, progress: Progress) -> None:
    for member, content in archive.members(progress):
        place = _place_of(member, directory)
        for parent in reversed(place.relative_to(directory).parents[:-1]):
            make_directory(directory / parent, exist_ok=True)
        descriptor = open_private(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, follow=False)
        with os.fdopen(descriptor, "wb") as target:
            for data in content:
                target.write(data)
            target.flush()
            os.fsync(descriptor)


def _place_of(member: Member, directory: Path) -> Path:
    place, *below = PurePosixPath(member.name).parts
    return directory.joinpath(*below) if place == DATA else directory.joinpath(RESTORED_SETTINGS, *below)


def _report(contents: Contents, directory: Path, *, as_json: bool) -> None:
    files = [(_place_of(member, directory), member) for member in contents.members]
    steps = list(_next_steps(contents, directory, files))
    if as_json:
        document: dict[str, Any] = {
            "data_dir": directory,
            "created_at": contents.created_at,
            "mxgw": contents.mxgw,
            "files": [{"file": place, "was": member.was, "bytes": member.size_bytes} for place, member in files],
            "next": steps,
        }
        write_json(document)
        return
    made = f"{printable(contents.created_at, 100)} (mxgw {printable(contents.mxgw, 100)})"
    click.echo(f"Restored {len(files)} files of {made} to {directory}:")
    for place, _ in files:
        click.echo(f"  {place.relative_to(directory)}")
    click.echo("Next:")
    for number, step in enumerate(steps, 1):
        click.echo(f"  {number}. {step}")


def _next_steps(contents: Contents, directory: Path, files: Sequence[tuple[Path, Member]]) -> Iterator[str]:
    created_at = printable(contents.created_at, 100)
    for place, member in files:
        was, plugin = printable(member.was, 500), printable(member.plugin, 100)
        if not member.name.startswith(f"{DATA}/"):
            yield f"Settings: compare {place} with what this machine needs, and put it where it was: {was}."
        elif not Path(member.was).is_relative_to(contents.data_dir):
            yield (
                f"{place} was at {was}, outside gateway.data_dir. Move it to where the settings of plugin {plugin} "
                "point, or let them point here; else the plugin begins with nothing."
            )
    for needed in contents.left_out:
        yield f"Not in the backup, and needed by that gateway: {printable(needed, 500)}."
    yield (
        f"What changed after {created_at} is not in the backup: revoke again the keys that were revoked since "
        "(`mxgw keys list`), and issue again those that were made since."
    )
    yield (
        f"Check with `mxgw doctor`, then start the gateway with gateway.data_dir = {directory}. It is a new one: it "
        "takes over no worker, clients open new sessions, and operators log in again."
    )
