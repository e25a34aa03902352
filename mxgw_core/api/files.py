"""Private files, which only the gateway's user can use, by their mode or, on Windows, by their access list.

A plugin that keeps secrets, or data that not every user of the machine is allowed to see, opens its files with these
functions.
"""

from mxgw_worker.platform import (
    current_user,
    exposure,
    lock_file,
    make_directory,
    make_private,
    open_private,
    owner_of,
    privacy_command,
    publish,
    unlock_file,
)
from mxgw_worker.platform.private_files import danger, read_private

__all__ = [
    "current_user",
    "danger",
    "exposure",
    "lock_file",
    "make_directory",
    "make_private",
    "open_private",
    "owner_of",
    "privacy_command",
    "publish",
    "read_private",
    "unlock_file",
]
