"""Only the platform layer calls the operating system in a way that one platform does not have."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.repository import ROOT, plugin_directories, shown, sources

PLATFORM = ROOT / "worker" / "mxgw_worker" / "platform"
# The words of help texts, which must not wait for the import of the platform layer.
SHELLS = ROOT / "mxgw_core" / "shells.py"

# Modules that one platform does not have, or whose use differs from platform to platform.
# fmt: off
MODULES = frozenset({
    "_overlapped", "_winapi", "comtypes", "fcntl", "grp", "msvcrt", "pty", "pwd", "pythoncom", "resource", "signal",
    "termios", "tty", "win32api", "winreg",
})
# fmt: on
# Names that one platform does not have, as attributes of any object: `os.getuid`, `socket.AF_UNIX`.
# fmt: off
NAMES = frozenset({
    "AF_UNIX", "O_BINARY", "O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK", "SCM_RIGHTS", "SO_PEERCRED",
    "SIGKILL", "SO_EXCLUSIVEADDRUSE", "SO_REUSEADDR", "WinDLL", "WinError", "windll", "windows_utils",
    "get_osfhandle", "open_osfhandle", "add_reader",
    "add_signal_handler", "remove_signal_handler", "create_unix_connection", "create_unix_server",
    "open_unix_connection", "start_unix_server", "chmod", "chown", "fchmod", "lchown", "mkfifo", "umask", "fork",
    "forkpty", "killpg", "setpgid", "setsid", "getsid", "getpgid", "wait4", "waitid", "waitpid", "pidfd_open",
    "pidfd_send_signal", "getegid", "geteuid", "getgid", "getuid", "getrlimit", "getrusage", "pread", "pwrite",
    "sched_setaffinity", "sendmsg", "sysconf", "uname",
})
# fmt: on
CALLS = frozenset({"os.kill", "os.link", "os.open", "os.symlink"})
# Keyword arguments that one platform does not have, or ignores.
# fmt: off
ARGUMENTS = frozenset({
    "creationflags", "mode", "pass_fds", "preexec_fn", "process_group", "start_new_session", "startupinfo", "umask",
})
# fmt: on
TEXTS = ("/proc/", "/sys/")

FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef


def offences(tree: ast.AST) -> Iterator[str]:
    """Yield what only the platform layer is allowed to use."""
    documented = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (name.name for name in names if name.name.split(".")[0] in MODULES)
            case ast.ImportFrom(module=str(module)) if module.split(".")[0] in MODULES:
                yield module
            case ast.Attribute(attr=name) if name in NAMES:
                yield name
            # It moves in steps of 16 ms on Windows before Python 3.13. Elsewhere time.perf_counter is the same clock.
            case ast.Attribute(value=ast.Name(id="time"), attr="monotonic" | "monotonic_ns"):
                yield ast.unparse(node)
            case ast.Constant(value=str(text)) if id(node) not in documented:
                yield from (part for part in TEXTS if text.startswith(part))
            case ast.Call(func=function, keywords=keywords):
                called = ast.unparse(function)
                if called in CALLS and not _is_null_device(node):
                    yield called
                if called.rpartition(".")[2] in ("mkdir", "touch", "Popen", "run", "create_subprocess_exec"):
                    yield from (f"{called}({word.arg}=)" for word in keywords if word.arg in ARGUMENTS)
                if called in ("getattr", "hasattr") and isinstance(node.args[1], ast.Constant):
                    yield from (str(name.value) for name in node.args[1:2] if name.value in NAMES | CALLS)
            case ast.Compare(left=left) if ast.unparse(left) in ("sys.platform", "os.name"):
                yield ast.unparse(left)


def _is_null_device(call: ast.Call) -> bool:
    return bool(call.args) and ast.unparse(call.args[0]) == "os.devnull"


def _checked() -> Iterator[Path]:
    own = [path for path in sources("mxgw_core", "mxgw_worker", "mxgw_cli") if not path.is_relative_to(PLATFORM)]
    # Only the backend of MXAccess calls COM and its message pump.
    yield from (path for path in own if "backends/mxaccess" not in shown(path) and path != SHELLS)
    for directory in plugin_directories():
        yield from (path for path in sources() if path.is_relative_to(directory))


def test_only_the_platform_layer_calls_what_one_platform_does_not_have() -> None:
    checked = list(_checked())
    wrong = [f"{shown(path)}: {what}" for path in checked for what in offences(ast.parse(path.read_text(), path.name))]

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
        "if sys.platform == 'win32': pass",
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
        for node in ast.walk(ast.parse(path.read_text(), path.name))
        if (isinstance(node, ast.Attribute) and node.attr in private)
        or (isinstance(node, ast.Constant) and node.value in private)
        or (isinstance(node, ast.alias) and node.name in private)
    }

    assert users == {"worker/mxgw_worker/platform/windows/proactor.py"}
