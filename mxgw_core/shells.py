"""What help texts and messages say about the shell and the terminal of this platform, and its administrator's commands.

The help of commands needs this, and must be quick. So this module imports next to nothing, and is not in the package
`mxgw_worker.platform`, whose import takes longer than the help itself.
"""

from __future__ import annotations

import errno
import os
import shlex
import sys
from pathlib import Path

if sys.platform == "win32":
    HAS_UNIX_SOCKETS = False
    PROMPT = ">"
    # A user with all rights on the machine.
    ADMINISTRATOR_WORD = "an administrator"
    # How another program asks a process to stop.
    STOP_WORD = "Ctrl-Break or a request to stop"

    # Paths in examples. Key: as they are on Unix. Value: the same on Windows.
    _PATHS = {
        "/etc/mxgw/": "C:\\ProgramData\\mxgw\\",
        "/var/lib/mxgw": "C:\\ProgramData\\mxgw\\data",
        "/backup/": "D:\\backup\\",
        "/tmp/": "C:\\Temp\\",  # noqa: S108  an example
        "~/": "C:\\",
    }

    def example_line(line: str) -> str:
        """Return an example, which is written for a Unix shell, for the shells of this platform; "" when there is none.

        cmd and PowerShell agree on double quotes around a text only as long as there are none in it.
        """
        if "unix:" in line or '"' in line:
            return ""
        for path, here in _PATHS.items():
            line = line.replace(path, here)
        return line.replace("'", '"')

    def is_closed_pipe(error: OSError) -> bool:
        """Return whether a write to stdout failed because the program that reads it has ended."""
        if isinstance(error, BrokenPipeError):
            return True
        if error.errno != errno.EINVAL or error.filename is not None:
            return False
        # Other calls fail with this error too. What could not be written is still in the buffer, and fails again; with
        # PYTHONUNBUFFERED there is no buffer, and an empty line fails.
        try:
            sys.stdout.flush()
            if getattr(sys.stdout, "write_through", False):
                os.write(sys.stdout.fileno(), b"\n")
        except OSError:
            return True
        return False

    def is_plain_terminal() -> bool:
        """Return whether the terminal of this process can only print lines, and not move its cursor."""
        return os.environ.get("TERM") == "dumb"  # the consoles of Windows do not set the variable

    def short_directory() -> Path | None:
        """Return a directory with a short path, in which every user can create private directories for Unix sockets.

        Return None when this platform has no such directory, or no Unix sockets.
        """
        return None

    def clock_command() -> str:
        """Return the command that lets a time service keep the clock."""
        return "w32tm /resync"

    def port_command(port: int) -> str:
        """Return the command that shows which program listens on a TCP port."""
        return f"netstat -ano | findstr :{port}"

    def addresses_command() -> str:
        """Return the command that shows the addresses of this machine."""
        return "ipconfig"

    def ownership_command(path: Path) -> str:
        """Return the command with which an administrator gives a file or directory to the present user."""
        from mxgw_worker.platform import current_user

        return f'icacls "{path}" /setowner *{current_user()} /t'

    def directory_command(path: Path) -> str:
        """Return the command with which an administrator creates a directory that belongs to the present user."""
        return f'mkdir "{path}" && {ownership_command(path)}'

else:
    HAS_UNIX_SOCKETS = True
    PROMPT = "$"
    # A user with all rights on the machine.
    ADMINISTRATOR_WORD = "root"
    # How another program asks a process to stop.
    STOP_WORD = "SIGTERM"

    def example_line(line: str) -> str:
        """Return an example, which is written for a Unix shell, for the shells of this platform; "" when there is none.

        cmd and PowerShell agree on double quotes around a text only as long as there are none in it.
        """
        return line

    def is_closed_pipe(error: OSError) -> bool:
        """Return whether a write to stdout failed because the program that reads it has ended."""
        return isinstance(error, BrokenPipeError)

    def is_plain_terminal() -> bool:
        """Return whether the terminal of this process can only print lines, and not move its cursor."""
        return os.environ.get("TERM", "") in ("", "dumb")

    def short_directory() -> Path | None:
        """Return a directory with a short path, in which every user can create private directories for Unix sockets.

        Return None when this platform has no such directory, or no Unix sockets.
        """
        directory = Path("/tmp")  # noqa: S108  a directory that mkdtemp creates there is private
        return directory if directory.is_dir() else None

    def clock_command() -> str:
        """Return the command that lets a time service keep the clock."""
        return "timedatectl set-ntp true"

    def port_command(port: int) -> str:
        """Return the command that shows which program listens on a TCP port."""
        return f"ss -ltnp 'sport = :{port}'"

    def addresses_command() -> str:
        """Return the command that shows the addresses of this machine."""
        return "ip address"

    def ownership_command(path: Path) -> str:
        """Return the command with which an administrator gives a file or directory to the present user."""
        return f"sudo chown $USER {shlex.quote(str(path))}"

    def directory_command(path: Path) -> str:
        """Return the command with which an administrator creates a directory that belongs to the present user."""
        return f"sudo install -d -m 700 -o $USER {shlex.quote(str(path))}"


# The forms of a gateway's address, for messages and help texts.
ADDRESS_FORMS = "host:port, [ipv6]:port or unix:/path" if HAS_UNIX_SOCKETS else "host:port or [ipv6]:port"
# Addresses that only this machine can reach.
LOCAL_ADDRESSES = "127.0.0.1, [::1] or unix:/path" if HAS_UNIX_SOCKETS else "127.0.0.1 or [::1]"
NO_UNIX_SOCKETS = "mxgw has no Unix sockets on Windows: use a port of this machine, for example 127.0.0.1:50051"
