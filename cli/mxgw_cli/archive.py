"""The archive of a backup: a plain tar file. Its first member lists all other members with their checksums.

The code that reads an archive trusts nothing in it, as if an attacker had made the file. `mxgw restore` writes files
only after every byte of the archive was checked. The archive is not compressed, so a small archive cannot unpack to
large files.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mxgw_core.api.errors import MxgwError
from mxgw_core.api.maintenance import BackupKind
from mxgw_core.data_directory import UNFINISHED_RESTORE
from mxgw_core.printable import printable

FORMAT = 1
CONTENTS = "mxgw-backup.json"
# The two directories in an archive: `data` has files from below gateway.data_dir, `settings` has settings files.
DATA, SETTINGS = "data", "settings"
# Names of files and directories that the gateway or `mxgw restore` makes. They are forbidden for members of an archive.
RESTORED_SETTINGS = "restored-settings"
_RESERVED = frozenset({"run", "logs", "lock", RESTORED_SETTINGS, UNFINISHED_RESTORE})

_MAXIMUM_CONTENTS_BYTES = 1024 * 1024
_MAXIMUM_MEMBERS = 10_000
_MAXIMUM_NAME_CHARACTERS = 400
_CHUNK_BYTES = 256 * 1024
_FILE_MODE = 0o600

# A function that is called with the number of bytes that were read since its last call.
Progress = Callable[[int], None]


class ArchiveRefused(MxgwError):
    """The archive cannot be restored; the text says why."""


class Member(BaseModel):
    """One file of a backup. `was` is its original path; `plugin` is the plugin that it belongs to, "" for settings."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    kind: BackupKind
    plugin: str
    was: str
    size_bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Contents(BaseModel):
    """The list of contents of an archive.

    `left_out` names files and settings that the gateway needs and the archive does not have.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int
    mxgw: str
    created_at: str
    data_dir: str
    left_out: tuple[str, ...] = Field(max_length=_MAXIMUM_MEMBERS)
    members: tuple[Member, ...] = Field(max_length=_MAXIMUM_MEMBERS)


def name_problem(name: str) -> str:
    """Return why a backup must not have a member of this name; "" when the name is allowed."""
    path = PurePosixPath(name)
    if not name.isprintable() or "\\" in name or ":" in name or len(name) > _MAXIMUM_NAME_CHARACTERS:
        return "it is no plain name"
    if str(path) != name or path.is_absolute() or ".." in path.parts or len(path.parts) < 2:
        return "it leads out of its directory"
    if path.parts[0] not in (DATA, SETTINGS):
        return f"it is neither below {DATA}/ nor below {SETTINGS}/"
    if path.parts[0] == DATA and path.parts[1] in _RESERVED:
        return "the gateway makes a file of this name itself"
    return ""


def write_archive(file: IO[bytes], contents: Contents, files: Sequence[Path], progress: Progress) -> None:
    """Write an archive to `file`. `files` are the paths of the members' contents, in the order of `contents`."""
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        text = contents.model_dump_json(indent=2).encode()
        archive.addfile(_header(CONTENTS, len(text)), io.BytesIO(text))
        for member, path in zip(contents.members, files, strict=True):
            with path.open("rb") as source:
                archive.addfile(_header(member.name, member.size_bytes), _Counted(source, progress))


def _header(name: str, size_bytes: int) -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.size, header.mode = size_bytes, _FILE_MODE
    return header


class _Counted(io.RawIOBase):
    def __init__(self, source: IO[bytes], progress: Progress) -> None:
        self._source, self._progress = source, progress

    def read(self, size: int = -1) -> bytes:
        data = self._source.read(size)
        self._progress(len(data))
        return data


class Archive:
    """An archive that is open for reading; made by `opened`. Only its list of contents has been checked so far."""

    def __init__(self, tar: tarfile.TarFile, contents: Contents) -> None:
        self._tar = tar
        self.contents = contents
        self.total_bytes = sum(member.size_bytes for member in contents.members)

    def members(self, progress: Progress) -> Iterator[tuple[Member, Iterator[bytes]]]:
        """Yield every member with its content. The caller must read the whole content before it takes the next member.

        The checksum of a member is checked after the last byte of its content.

        Raises:
            ArchiveRefused: a member differs from the list of contents; the text names the member.
        """
        expected = iter(self.contents.members)
        while (header := self._next()) is not None:
            member = next(expected, None)
            if member is None or header.name != member.name:
                raise ArchiveRefused(f"it holds {printable(header.name, 200)!r}, which its list of contents does not")
            self._check(header, member)
            yield member, self._content(header, member, progress)
        if (missing := next(expected, None)) is not None:
            raise ArchiveRefused(f"{missing.name!r} is missing: the file was cut off")

    def check(self, progress: Progress) -> None:
        """Read the whole archive and compare it with its list of contents.

        Raises:
            ArchiveRefused: a member differs from the list of contents; the text names the member.
        """
        for _, content in self.members(progress):
            for _ in content:
                pass

    def _next(self) -> tarfile.TarInfo | None:
        with _in_words():
            return self._tar.next()

    def _check(self, header: tarfile.TarInfo, member: Member) -> None:
        if header.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or header.issparse():
            raise ArchiveRefused(f"{member.name!r} is no plain file but a link, a device or the like")
        if header.size != member.size_bytes:
            raise ArchiveRefused(
                f"{member.name!r} has {header.size} bytes, and its list of contents says {member.size_bytes}"
            )

    def _content(self, header: tarfile.TarInfo, member: Member, progress: Progress) -> Iterator[bytes]:
        digest = hashlib.sha256()
        left = member.size_bytes
        with _in_words():
            source = self._tar.extractfile(header)
            # `_check` has made sure that the member is a plain file, so tarfile returns its content and not None.
            assert source is not None
            while left:
                data = source.read(min(left, _CHUNK_BYTES))
                if not data:
                    raise ArchiveRefused(f"{member.name!r} ends too early: the file was cut off")
                left -= len(data)
                digest.update(data)
                progress(len(data))
                yield data
        if digest.hexdigest() != member.sha256:
            raise ArchiveRefused(f"{member.name!r} is damaged: its checksum is not the one of the backup")


@contextmanager
def opened(path: Path) -> Iterator[Archive]:
    """Open an archive and read its list of contents.

    Raises:
        ArchiveRefused: the file is not a backup, a newer release made it, or its list of contents is wrong.
        OSError: the file cannot be read.
    """
    # Anything but a regular file is refused before it is opened, because opening a pipe could wait forever.
    if not stat.S_ISREG(path.stat().st_mode):
        raise ArchiveRefused("it is not a regular file")
    with _Bounded(path) as file:
        with _in_words():
            tar = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115  the block closes `file`; nothing else is open
            header = tar.next()
            if header is None or header.name != CONTENTS or header.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
                raise ArchiveRefused(f"it is no backup that mxgw made: it does not begin with {CONTENTS}")
            if header.size > _MAXIMUM_CONTENTS_BYTES:
                raise ArchiveRefused("its list of contents is too long")
            source = tar.extractfile(header)
            # The member is a plain file, as checked above, so tarfile returns its content and not None.
            assert source is not None
            text = source.read(_MAXIMUM_CONTENTS_BYTES)
        yield Archive(tar, _contents(text))


def _contents(text: bytes) -> Contents:
    try:
        found = _Format.model_validate_json(text).format
        if found > FORMAT:
            raise ArchiveRefused(
                f"a newer mxgw made it (format {found}, this one knows {FORMAT}): restore it with that release"
            )
        contents = Contents.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ArchiveRefused(f"its list of contents is wrong: {where}: {first['msg']}") from None
    names: set[str] = set()
    for member in contents.members:
        if problem := name_problem(member.name):
            raise ArchiveRefused(f"it holds {printable(member.name, 200)!r}: {problem}")
        if member.name in names:
            raise ArchiveRefused(f"it holds {member.name!r} twice")
        names.add(member.name)
    for name in names:
        if inside := names.intersection(map(str, PurePosixPath(name).parents)):
            raise ArchiveRefused(f"it holds {name!r} below the file {inside.pop()!r}")
    return contents


class _Format(BaseModel):
    model_config = ConfigDict(extra="ignore")

    format: int = Field(ge=1)


class _Bounded(io.FileIO):
    """A file that refuses to read many bytes at once.

    Without this limit tarfile would read a header of any size into memory, if the file claims that size.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(os.fspath(path), "r")

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= _MAXIMUM_CONTENTS_BYTES:
            raise ArchiveRefused("it has a header that no backup has")
        return super().read(size) or b""


@contextmanager
def _in_words() -> Iterator[Any]:
    try:
        yield
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        raise ArchiveRefused(f"it is no whole tar file: {error}") from None
