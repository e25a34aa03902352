"""Only the platform layer calls the operating system in a way that one platform does not have."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from support.repository import ROOT, plugin_directories, shown, sources

PLATFORM = ROOT / "worker" / "mxgw_worker" / "platform"
# The words of help texts, which must not wait for the import of the platform layer.
SHELLS = ROOT / "mxgw_core" / "shells.py"

# Modules that one platform does not have, or whose use differs from platform to platform.
# fmt: off
MODULES = frozenset({
    "_overlapped", "_posixsubprocess", "_winapi", "asyncio.windows_events", "asyncio.windows_utils", "comtypes",
    "curses", "fcntl", "grp", "msvcrt", "nt", "posix", "pty", "pwd", "pythoncom", "readline", "resource", "select",
    "signal", "spwd", "syslog", "termios", "tty", "win32api", "winreg", "winsound",
})
# fmt: on
# Names that one platform does not have, or that mean something else there, as attributes of any object: `os.getuid`,
# `socket.AF_UNIX`.
# fmt: off
NAMES = frozenset({
    # of asyncio and its event loops
    "ProactorEventLoop", "SelectorEventLoop", "add_reader", "add_signal_handler", "add_writer",
    "create_unix_connection", "create_unix_server", "open_unix_connection", "remove_reader", "remove_signal_handler",
    "remove_writer", "start_unix_server", "windows_events", "windows_utils",
    # of sockets
    "AF_UNIX", "SCM_RIGHTS", "SO_EXCLUSIVEADDRUSE", "SO_PEERCRED", "SO_REUSEADDR", "SO_REUSEPORT", "recvmsg",
    "sendmsg",
    # files and their modes
    "O_BINARY", "O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW", "O_NOINHERIT", "O_NONBLOCK", "O_TEMPORARY", "chmod", "chown",
    "chroot", "fchdir", "fchmod", "fchown", "fdatasync", "fstatvfs", "get_osfhandle", "getxattr", "hardlink_to",
    "lchmod", "lchown", "lockf", "memfd_create", "mkfifo", "mknod", "open_osfhandle", "pipe2", "posix_fadvise",
    "posix_fallocate", "pread", "preadv", "pwrite", "pwritev", "sendfile", "setxattr", "st_file_attributes", "st_gid",
    "st_reparse_tag", "st_uid", "startfile", "statvfs", "symlink_to", "umask",
    # processes and users
    "CREATE_BREAKAWAY_FROM_JOB", "CREATE_NEW_PROCESS_GROUP", "CREATE_NO_WINDOW", "DETACHED_PROCESS", "SIGKILL",
    "STARTUPINFO", "WNOHANG", "eventfd", "execv", "execve", "execvp", "fork", "forkpty", "getegid", "geteuid", "getgid",
    "getgroups", "getloadavg", "getpgid", "getpgrp", "getresuid", "getrlimit", "getrusage", "getsid", "getuid",
    "killpg",
    "nice", "pidfd_open", "pidfd_send_signal", "popen", "posix_spawn", "sched_getaffinity", "sched_setaffinity",
    "setegid", "seteuid", "setgid", "setpgid", "setpriority", "setrlimit", "setsid", "setuid", "sysconf", "ttyname",
    "uname", "wait3", "wait4", "waitid", "waitpid",
    # libraries of the system, and what they report
    "CDLL", "HRESULT",
    "OleDLL", "WinDLL", "WinError", "clock_gettime", "find_library", "getwindowsversion", "oledll", "windll",
    "winerror",
})
# fmt: on
# Names that are common, so that only these functions of these modules are meant.
CALLS = frozenset({"os.abort", "os.kill", "os.link", "os.open", "os.readlink", "os.symlink", "os.wait"})
# Keyword arguments that one platform does not have, or ignores.
# fmt: off
ARGUMENTS = frozenset({
    "creationflags", "extra_groups", "group", "mode", "pass_fds", "preexec_fn", "process_group", "start_new_session",
    "startupinfo", "umask", "user",
})
TAKERS = frozenset({
    "Popen", "call", "check_call", "check_output", "create_subprocess_exec", "create_subprocess_shell", "mkdir", "run",
    "subprocess_exec", "subprocess_shell", "touch",
})
# fmt: on
TEXTS = ("/dev/", "/etc/", "/proc", "/sys/")
# What says on which platform the program runs. It can be shown, but not decide anything.
PLATFORMS = frozenset({"sys.platform", "os.name", "platform.system()", "platform.platform()"})

FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef


def offences(tree: ast.AST) -> Iterator[str]:
    """Yield what only the platform layer is allowed to use."""
    documented = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    harmless = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call) and _is_null_device(node)}
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (each.name for each in names if _is_module_of_platform(each.name))
                # Under another name, what is used of the module would not be found.
                yield from (f"import os as {each.asname}" for each in names if each.name == "os" and each.asname)
            case ast.ImportFrom(module=str(module), names=names):
                if _is_module_of_platform(module):
                    yield module
                imported = {each.name: f"{module}.{each.name}" for each in names}
                unfit = CALLS | PLATFORMS
                yield from (full for name, full in imported.items() if name in NAMES or full in unfit)
            case ast.Attribute(attr=name) if name in NAMES or (_dotted(node) in CALLS and id(node) not in harmless):
                yield name
            # It moves in steps of 16 ms on Windows before Python 3.13. Elsewhere time.perf_counter is the same clock.
            case ast.Attribute(value=ast.Name(id="time"), attr="monotonic" | "monotonic_ns"):
                yield ast.unparse(node)
            case ast.Constant(value=str(text)) if id(node) not in documented:
                yield from (part for part in TEXTS if text.startswith(part))
            case ast.Call(func=function, keywords=keywords):
                called = _dotted(function)
                if called.rpartition(".")[2] in TAKERS:
                    yield from (f"{called}({word.arg}=)" for word in keywords if word.arg in ARGUMENTS)
                if called in ("getattr", "hasattr") and isinstance(node.args[1], ast.Constant):
                    yield from (str(name.value) for name in node.args[1:2] if name.value in NAMES)
                if isinstance(function, ast.Attribute) and _dotted(function.value) in PLATFORMS:
                    yield called
            case ast.Compare(left=left, comparators=others):
                yield from {_dotted(each) for each in (left, *others)} & PLATFORMS
            case ast.Match(subject=subject) | ast.Subscript(slice=subject) if _dotted(subject) in PLATFORMS:
                yield _dotted(subject)


def _is_module_of_platform(name: str) -> bool:
    return name in MODULES or name.partition(".")[0] in MODULES


def _dotted(node: ast.AST) -> str:
    """Return a name such as `os.kill`, or a call without arguments of one; of any other object its last attribute."""
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=value, attr=name):
            return f"{_dotted(value)}.{name}"
        case ast.Call(func=function, args=[], keywords=[]):
            return f"{_dotted(function)}()"
    return ""


def _is_null_device(call: ast.Call) -> bool:
    return bool(call.args) and _dotted(call.args[0]) == "os.devnull"


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), path.name)


def _checked() -> Iterator[Path]:
    own = [path for path in sources("mxgw_core", "mxgw_worker", "mxgw_cli") if not path.is_relative_to(PLATFORM)]
    # Only the backend of MXAccess calls COM and its message pump.
    yield from (path for path in own if "backends/mxaccess" not in shown(path) and path != SHELLS)
    for directory in plugin_directories():
        yield from (path for path in sources() if path.is_relative_to(directory))


def test_only_the_platform_layer_calls_what_one_platform_does_not_have() -> None:
    checked = list(_checked())
    wrong = [f"{shown(path)}: {what}" for path in checked for what in offences(_tree(path))]

    assert len(checked) > 200
    assert not wrong


@pytest.mark.parametrize(
    "code",
    [
        "import fcntl",
        "def f():\n    import resource",
        "from signal import SIGTERM",
        "os.getuid()",
        "hasattr(os, 'pidfd_open')",
        "loop.add_signal_handler(15, f)",
        "open('/proc/self/stat')",
        "os.open(path, os.O_RDONLY)",
        "os.kill(1, 9)",
        "path.chmod(0o600)",
        "path.mkdir(mode=0o700)",
        "subprocess.Popen(command, start_new_session=True)",
        "ctypes.windll.kernel32",
        "def f(clock=time.monotonic): pass",
        "from os import kill",
        "import os as system",
        "stop = os.kill",
        "from os import getuid",
        "import select",
        "import pwd",
        "import msvcrt, winreg",
        "from asyncio import windows_events",
        "ctypes.CDLL(None)",
        "from ctypes import WinDLL",
        "subprocess.check_call(command, creationflags=8)",
        "asyncio.ProactorEventLoop()",
        "open(f'/proc/{pid}')",
        "path.symlink_to(other)",
        "status.st_uid",
        "error.winerror",
        "if sys.platform == 'win32': pass",
        "if 'win32' == sys.platform: pass",
        "if sys.platform.startswith('win'): pass",
        "if os.name in ('nt', 'ce'): pass",
        "if platform.system() == 'Windows': pass",
        "from os import name",
        "match sys.platform:\n    case 'win32': pass",
        "PATHS[sys.platform]",
    ],
)
def test_a_call_of_one_platform_is_found(code: str) -> None:
    assert list(offences(ast.parse(code)))


@pytest.mark.parametrize(
    "code",
    [
        "'''In /proc/self/stat it says.'''",
        "path.open('rb')",
        "os.open(os.devnull, os.O_WRONLY)",
        "path.mkdir(parents=True)",
        "sys.platform",
    ],
)
def test_what_every_platform_has_is_allowed(code: str) -> None:
    assert not list(offences(ast.parse(code)))


def _interface(package: str) -> dict[str, str]:
    """Return the signatures of what each module of a platform offers: functions, and methods of classes."""
    found: dict[str, str] = {}
    for path in sorted((PLATFORM / package).glob("*.py")):
        for node in ast.parse(path.read_text()).body:
            name = getattr(node, "name", "_")
            if isinstance(node, ast.ClassDef) and not name.startswith("_"):
                for part in node.body:
                    if isinstance(part, FUNCTION) and (part.name == "__init__" or not part.name.startswith("_")):
                        found[f"{path.stem}.{name}.{part.name}"] = _signature(part)
            elif isinstance(node, FUNCTION) and not name.startswith("_"):
                found[f"{path.stem}.{name}"] = _signature(node)
    return found


def _signature(function: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    kind = "async " if isinstance(function, ast.AsyncFunctionDef) else ""
    return f"{kind}({ast.unparse(function.args)}) -> {ast.unparse(function.returns) if function.returns else None}"


def test_both_platforms_have_the_same_modules_functions_and_methods() -> None:
    posix, windows = _interface("posix"), _interface("windows")
    offered = posix.keys() - {"files.try_lock"}  # a tool of another module of `posix`

    assert len(offered) > 60
    assert {name: windows.get(name) for name in offered} == {name: posix[name] for name in offered}


def test_both_platforms_offer_the_same_names() -> None:
    posix, windows = (
        next(
            ast.literal_eval(node.value)
            for node in ast.parse((PLATFORM / package / "__init__.py").read_text()).body
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        )
        for package in ("posix", "windows")
    )

    assert posix == windows == sorted(posix, key=lambda name: (not name.isupper(), not name[0].isupper(), name))


def test_private_parts_of_asyncio_are_touched_in_one_module_only() -> None:
    private = {"_make_duplex_pipe_transport", "_proactor", "windows_utils", "windows_events"}
    users = {
        shown(path)
        for path in sources("mxgw_core", "mxgw_worker", "mxgw_cli")
        for node in ast.walk(_tree(path))
        if (isinstance(node, ast.Attribute) and node.attr in private)
        or (isinstance(node, ast.Constant) and node.value in private)
        or (isinstance(node, ast.alias) and node.name in private)
    }

    assert users == {"worker/mxgw_worker/platform/windows/proactor.py"}
