"""Private files: a directory that only the gateway's user may enter, and files that only this user may read."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from mxgw_core.api.errors import SettingsError
from mxgw_core.api.files import (
    current_user,
    danger,
    exposure,
    make_directory,
    make_private,
    open_private,
    owner_of,
    privacy_command,
    publish,
)

SECRET_BYTES = 32


def private_directory(path: Path) -> Path:
    """Create the directory if it does not exist, and make sure that only its user may enter it; return `path`.

    Raises:
        SettingsError: the directory cannot be created, belongs to another user, or other users may enter it.
    """
    try:
        make_directory(path, parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"plugins.acl.directory: {path}: {error.strerror or error}") from error
    check_directory(path)
    return path


def check_directory(path: Path) -> None:
    """Make sure that the directory is private, if it exists.

    Raises:
        SettingsError: the path is not a directory, belongs to another user, may be entered by other users, or cannot be
            examined.
    """
    try:
        owner, access = owner_of(path), exposure(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise SettingsError(f"plugins.acl.directory: {path}: {error.strerror or error}") from error
    if not path.is_dir():
        raise SettingsError(f"plugins.acl.directory: {path} is no directory")
    if owner != current_user():
        raise SettingsError(
            f"plugins.acl.directory: {path} belongs to user {owner}, and this runs as {current_user()}: run "
            "`mxgw` as the gateway's user"
        )
    if access:
        raise SettingsError(
            f"plugins.acl.directory: others may enter {path} ({access}): run {privacy_command(path, is_directory=True)}"
        )


def check_private(path: Path) -> None:
    """Make sure that an existing file may be read and written by its own user only.

    Raises:
        SettingsError: other users may use the file.
    """
    if why := danger(path, path):
        raise SettingsError(f"plugins.acl.directory: {path}: {why}")


def write_private(path: Path, content: bytes, *, replace: bool = False) -> None:
    """Write a file that is private from the moment of its creation.

    Raises:
        FileExistsError: the file exists, and `replace` is False.
        OSError: the file cannot be written.
    """
    flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if replace else os.O_EXCL)
    descriptor = open_private(path, flags)
    with os.fdopen(descriptor, "wb") as file:
        make_private(descriptor)
        file.write(content)
        file.flush()
        os.fsync(descriptor)


def secret_file(path: Path) -> bytes:
    """Return the 32 random bytes in a file; create the file with new random bytes when it does not exist.

    Raises:
        SettingsError: the file cannot be used, or does not have 32 bytes.
    """
    try:
        if not path.exists():
            # The secret is first written to a file with another name, so that other processes find either no file or
            # the complete secret.
            fresh = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
            write_private(fresh, secrets.token_bytes(SECRET_BYTES))
            try:
                publish(fresh, path)
            except FileExistsError:
                fresh.unlink()
        check_private(path)
        content = path.read_bytes()
    except OSError as error:
        raise SettingsError(f"plugins.acl.directory: {path}: {error.strerror or error}") from error
    if len(content) != SECRET_BYTES:
        raise SettingsError(
            f"plugins.acl.directory: {path} has {len(content)} bytes instead of {SECRET_BYTES}: restore it from a "
            "backup; without it no key can be verified"
        )
    return content
