"""`mxgw service`: the log of a process without streams, and how the ends of a gateway are reported to the system."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from mxgw_cli.service import installing
from mxgw_cli.shell import CliFailure
from mxgw_core.workers import interpreter
from mxgw_worker.platform.services import Account, ServicePlan, ServiceRecord

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="tests/system/test_windows_service.py does so in Windows"
)

TIMEOUT_S = 100

LOGGING = """
import logging, os, sys
from pathlib import Path
from mxgw_cli.service.log_file import LogFile
from mxgw_core.logs import log_to_stderr

assert sys.stderr is None and sys.stdout is None
handler = LogFile(Path(sys.argv[1]), limit_bytes=1000, kept_files=2)
log_to_stderr("INFO")
logging.getLogger().addHandler(handler)
print("from print")
os.write(2, b"from a library\\n")
for number in range(100):
    logging.info("record %d", number)
print("the end", file=sys.stderr)
"""


def test_without_streams_everything_goes_to_a_private_file_that_is_replaced_when_it_is_full(tmp_path: Path) -> None:
    log = tmp_path / "service.log"
    command = ["sh", "-c", 'exec "$@" >&- 2>&- <&-', "sh", sys.executable, "-c", LOGGING, str(log)]
    done = subprocess.run(command, timeout=TIMEOUT_S, check=False)

    assert done.returncode == 0

    files = sorted(path.name for path in tmp_path.iterdir())

    assert files == ["service.log", "service.log.1", "service.log.2"]
    assert all((tmp_path / name).stat().st_size < 1200 for name in files)
    assert all((tmp_path / name).stat().st_mode & 0o777 == 0o600 for name in files)

    kept = "".join((tmp_path / name).read_text() for name in reversed(files))

    assert kept.endswith("the end\n")

    numbers = [int(line.rpartition(" ")[2]) for line in kept.splitlines() if "record" in line]

    assert numbers == list(range(numbers[0], 100))


def test_what_is_written_without_logging_is_in_the_file_too(tmp_path: Path) -> None:
    log = tmp_path / "service.log"
    few = LOGGING.replace("range(100)", "range(1)")
    command = ["sh", "-c", 'exec "$@" >&- 2>&- <&-', "sh", sys.executable, "-c", few, str(log)]
    subprocess.run(command, timeout=TIMEOUT_S, check=True)

    assert log.read_text().splitlines()[:2] == ["from print", "from a library"]


# Runs the gateway as a service of a system that prints what it is told, on the descriptor that is its argument. What
# the system wants of the service comes after it is ready.
HOST = """
import json, os, sys, threading
from mxgw_cli.service import hosting
from mxgw_worker.platform.services import ServiceRecord
from pathlib import Path

descriptor, settings, wanted = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]

def say(*words):
    os.write(descriptor, (json.dumps(words) + "\\n").encode())

class Process:
    def __init__(self, on_control, on_late):
        self.on_control, self.on_late = on_control, on_late
    def started(self, stop_limit_s):
        say("started", stop_limit_s)
        if wanted == "stop":
            threading.Thread(target=self.on_control, args=("it was asked to stop",)).start()
        elif wanted == "drain":
            from mxgw_worker.platform import stop_this_process
            stop_this_process()
        elif wanted == "late":
            threading.Thread(target=self.on_late, args=("the service has not stopped in time",)).start()
        elif wanted == "late after stop":
            threading.Thread(target=self.stop_late).start()
    def stop_late(self):
        hosting.stop_this_process = lambda: None
        self.on_control("it was asked to stop")
        self.on_late("the service has not stopped in time")
    def stopping(self):
        say("stopping")
    def stopped(self, own_code=0):
        say("stopped", own_code)

class System:
    def records(self):
        return {"mxgw": ServiceRecord(settings, "user")}
    def run(self, name, on_control, on_late):
        say("run", name)
        return Process(on_control, on_late)
    def report(self, source, kind, number, text):
        say("event", kind.value, number, text)

hosting.windows_services = System
hosting.run_service("mxgw")
"""


def hosted(directory: Path, settings: str, wanted: str = "") -> tuple[int, list[list[Any]]]:
    """Run the gateway as a service without streams. Return its exit code, and what the system was told."""
    file = directory / "settings.toml"
    file.write_text(settings)
    reader, writer = os.pipe()
    command = [sys.executable, "-c", HOST, str(writer), str(file), wanted]
    with open(reader, "rb") as told:  # noqa: PTH123
        process = subprocess.Popen(["sh", "-c", 'exec "$@" >&- 2>&-', "sh", *command], pass_fds=[writer], cwd="/")
        os.close(writer)
        lines = [json.loads(line) for line in told]
        code = process.wait(TIMEOUT_S)
    return code, lines


GOOD = '[gateway]\nlisten = ["127.0.0.1:0"]\ndata_dir = "data"\n'


@pytest.mark.parametrize("wanted", ["stop", "drain"])
def test_a_service_that_somebody_stops_drains_and_reports_its_end(tmp_path: Path, wanted: str) -> None:
    code, told = hosted(tmp_path, GOOD, wanted)
    events = [line[2] for line in told if line[0] == "event"]
    states = [line[0] for line in told if line[0] != "event"]

    assert code == 0
    assert states == ["run", "started", "stopping", "stopped"]
    assert told[-1] == ["stopped", 0]
    assert events == ([1, 2, 3, 4] if wanted == "stop" else [1, 2, 4])
    assert told[2][3].startswith("mxgw is ready on 127.0.0.1:")

    log = (tmp_path / "data" / "logs" / "service.log").read_text()

    assert "mxgw is ready" in log
    assert "draining for up to" in log
    assert "Stopped after" in log


def test_settings_that_are_refused_end_the_service_for_good_and_the_event_says_why(tmp_path: Path) -> None:
    code, told = hosted(tmp_path, "[gateway]\nlisten = 5\n")

    assert code == 78
    assert [line[0] for line in told] == ["run", "event", "event", "stopped"]
    assert told[2][1:3] == ["error", 5]
    assert "gateway.listen" in told[2][3]
    assert told[-1] == ["stopped", 78]


def test_settings_that_the_gateway_refuses_when_it_starts_end_the_service_for_good_too(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "restore-unfinished").touch()
    code, told = hosted(tmp_path, GOOD)

    assert (code, told[-1]) == (78, ["stopped", 78])
    assert "a restore to it was cut off" in told[-2][3]


def test_a_gateway_that_cannot_start_for_another_reason_reports_no_end_so_that_it_is_started_again(
    tmp_path: Path,
) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        code, told = hosted(tmp_path, GOOD.replace(":0", f":{other.getsockname()[1]}"))

    assert code == 1
    assert told[-1][:3] == ["event", "error", 6]
    assert "cannot start" in told[-1][3]
    assert not [line for line in told if line[0] == "stopped"]


def test_a_service_that_hangs_ends_and_is_started_again_only_if_nobody_wants_it_to_stop(tmp_path: Path) -> None:
    code, told = hosted(tmp_path, GOOD, "late")

    assert code == 1
    assert [line[2] for line in told if line[0] == "event"] == [1, 2, 7, 6]
    assert told[-1][0] == "event"

    code, told = hosted(tmp_path, GOOD, "late after stop")

    assert code == 1
    assert [line[2] for line in told if line[0] == "event"] == [1, 2, 3, 7, 4]
    assert told[-1] == ["stopped", 0]


def test_here_one_sentence_says_who_runs_services() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mxgw_cli", "service", "install"], capture_output=True, text=True, timeout=TIMEOUT_S
    )

    assert done.returncode == 1
    assert done.stderr == (
        "Error: `mxgw service` is for Windows; here systemd runs services: see docs/operations.md, As a service\n"
    )


class System:
    """The services of a machine on which nothing is installed; it keeps what it is told."""

    def __init__(self, directory: Path) -> None:
        self.plans: list[ServicePlan] = []
        self.kept: dict[str, ServiceRecord] = {}
        self.shared: list[tuple[Path, bool]] = []
        self._directory = directory

    def account(self, name: str, service: str) -> Account:
        return Account(name or f"NT SERVICE\\{service}", "S-1-5-80-1", needs_password="user" in name)

    def facts(self, name: str) -> None:
        return None

    def program_data(self) -> Path:
        return self._directory

    def install(self, plan: ServicePlan) -> list[str]:
        self.plans.append(plan)
        return []

    def remember(self, name: str, record: ServiceRecord) -> None:
        self.kept[name] = record

    def share(self, path: Path, account: Account, *, may_write: bool) -> None:
        self.shared.append((path, may_write))

    def others_who_write(self, path: Path, account: Account) -> str:
        return "BUILTIN\\Users" if path == Path(sys.prefix) else ""


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> System:
    one = System(tmp_path)
    monkeypatch.setattr(installing, "windows_services", lambda: one)
    return one


def install(file: Path | None = None, account: str = "", password_file: Path | None = None) -> None:
    installing.install_service(
        "mxgw", file, account=account, password_file=password_file, depends_on=["aa"], starts_with_system=True
    )


def test_without_options_a_service_gets_settings_and_a_directory_of_its_own(
    system: System, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    install()
    directory = tmp_path / "mxgw"
    (plan,) = system.plans

    assert plan.command[1:] == ("-I", "-m", "mxgw_cli", "service", "run", "--name", "mxgw")
    assert (plan.restart_delays_s, plan.password, plan.depends_on) == ((5.0, 30.0, 60.0), None, ["aa"])
    assert system.kept == {"mxgw": ServiceRecord(directory / "settings.toml", "S-1-5-80-1")}
    assert system.shared == [(directory, False), (directory / "data", True), (directory / "settings.toml", False)]
    assert f"data_dir = '{directory / 'data'}'" in (directory / "settings.toml").read_text()
    assert "can be changed by BUILTIN\\Users" in capsys.readouterr().err


def test_a_password_comes_from_a_private_file_and_is_in_no_command(system: System, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("secret-of-the-account\n")
    file.chmod(0o644)
    with pytest.raises(CliFailure, match="other users may read it"):
        install(account="PLANT\\user", password_file=file)

    file.chmod(0o600)
    install(account="PLANT\\user", password_file=file)
    (plan,) = system.plans

    assert plan.password == "secret-of-the-account"
    assert "secret" not in repr(plan)
    assert not any("secret" in word for word in (*plan.command, *plan.environment.values()))

    with pytest.raises(CliFailure, match="has no password"):
        install(password_file=file)


def test_a_directory_with_files_of_others_and_a_whole_drive_are_not_given_away(system: System, tmp_path: Path) -> None:
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "letter").touch()
    file = tmp_path / "own.toml"
    for data_dir in ("documents", "/"):
        file.write_text(f'[gateway]\ndata_dir = "{data_dir}"\n')
        with pytest.raises(CliFailure, match=r"not of a gateway|a whole drive"):
            install(file)

    assert not system.plans
    assert not system.shared


def test_a_service_runs_the_python_of_a_virtual_environment_without_its_launcher(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interpreter, "python_program", lambda python: (Path("/base/python"), {"LAUNCHER": str(python)}))
    install()
    (plan,) = system.plans

    assert plan.command[:2] == (str(Path("/base/python")), "-I")
    assert plan.environment == {"LAUNCHER": sys.executable}
