"""The services of this machine: installing, starting, stopping and asking for them, through the control manager."""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import sys
import winreg
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from ctypes import POINTER, byref, c_void_p, sizeof, wintypes
from pathlib import Path

assert sys.platform == "win32"

from mxgw_worker.platform.services import (
    Account,
    EventKind,
    ServiceFacts,
    ServicePlan,
    ServiceProcess,
    ServiceRecord,
    Services,
    ServiceState,
)
from mxgw_worker.platform.windows import accounts, event_log, security, service_records, winapi
from mxgw_worker.platform.windows.service_process import ServiceInProcess, Status
from mxgw_worker.platform.windows.winapi import failure

_CONNECT, _CREATE = 0x1, 0x2
_QUERY_CONFIG, _CHANGE_CONFIG, _QUERY_STATUS, _START, _STOP = 0x1, 0x2, 0x4, 0x10, 0x20
_DELETE, _ALL = 0x10000, 0xF01FF
_OWN_PROCESS, _NO_CHANGE = 0x10, 0xFFFFFFFF
_AUTOMATIC, _BY_HAND, _NORMAL_ERRORS = 2, 3, 1
_CONTROL_STOP = 1
_DESCRIPTION, _FAILURE_ACTIONS, _DELAYED, _FAILURE_FLAG, _PRESHUTDOWN = 1, 2, 3, 4, 7
_ACTION_RESTART = 1
_NOT_ACTIVE, _CANNOT_ACCEPT, _DOES_NOT_EXIST, _EXISTS = 1062, 1061, 1060, 1073
# What is said of an optional property that a system does not have: parameter, call or level are unknown.
_UNKNOWN = frozenset({50, 87, 120, 124})

_STATES = {1: ServiceState.STOPPED, 2: ServiceState.STARTING, 3: ServiceState.STOPPING, 4: ServiceState.RUNNING}

_advapi = ctypes.WinDLL("advapi32", use_last_error=True)
_H, _D, _B, _S, _P = wintypes.HANDLE, wintypes.DWORD, wintypes.BOOL, wintypes.LPCWSTR, c_void_p


class _StatusOfProcess(ctypes.Structure):
    _fields_ = (("status", Status), ("pid", _D), ("flags", _D))


class _Config(ctypes.Structure):
    _fields_ = (
        ("kind", _D),
        ("start", _D),
        ("errors", _D),
        ("command", wintypes.LPWSTR),
        ("group", wintypes.LPWSTR),
        ("tag", _D),
        ("depends_on", _P),
        ("account", wintypes.LPWSTR),
        ("display_name", wintypes.LPWSTR),
    )


class _Action(ctypes.Structure):
    _fields_ = (("kind", ctypes.c_int), ("delay_ms", _D))


class _FailureActions(ctypes.Structure):
    _fields_ = (
        ("reset_s", _D),
        ("message", wintypes.LPWSTR),
        ("command", wintypes.LPWSTR),
        ("count", _D),
        ("actions", POINTER(_Action)),
    )


class _Text(ctypes.Structure):
    _fields_ = (("text", wintypes.LPWSTR),)


class _Number(ctypes.Structure):
    _fields_ = (("number", _D),)


for _name, _result, *_arguments in (
    ("ChangeServiceConfig2W", _B, _H, _D, _P),
    ("ChangeServiceConfigW", _B, _H, _D, _D, _D, _S, _S, _P, _P, _S, _S, _S),
    ("CloseServiceHandle", _B, _H),
    ("ControlService", _B, _H, _D, POINTER(Status)),
    ("CreateServiceW", _H, _H, _S, _S, _D, _D, _D, _D, _S, _S, _P, _P, _S, _S),
    ("DeleteService", _B, _H),
    ("OpenSCManagerW", _H, _S, _S, _D),
    ("OpenServiceW", _H, _H, _S, _D),
    ("QueryServiceConfigW", _B, _H, _P, _D, POINTER(_D)),
    ("QueryServiceStatusEx", _B, _H, ctypes.c_int, _P, _D, POINTER(_D)),
    ("StartServiceW", _B, _H, _D, _P),
):
    _call = getattr(_advapi, _name)
    _call.restype, _call.argtypes = _result, _arguments


def system_services() -> Services | None:
    """Return the services of this machine; None where the platform leaves them to a program of its own."""
    return _Services()


class _Services:
    """See `mxgw_worker.platform.services.Services`."""

    def account(self, name: str, service: str) -> Account:
        return accounts.account_of(name, service)

    def install(self, plan: ServicePlan) -> Sequence[str]:
        missing = []
        if plan.account.needs_password:
            try:
                accounts.allow_logon_as_service(plan.account.user)
            except OSError as error:
                missing.append(f"the right of {plan.account.name} to log on as a service ({error.strerror})")
        with _manager(_CONNECT | _CREATE) as manager:
            service = _installed(manager, plan)
            try:
                missing += [what for what, level, value in _properties(plan) if not _set(service, level, value)]
            finally:
                _advapi.CloseServiceHandle(service)
        path = rf"SYSTEM\CurrentControlSet\Services\{plan.name}"
        with winreg.OpenKeyEx(winreg.HKEY_LOCAL_MACHINE, path, 0, winreg.KEY_WRITE) as key:
            variables = [f"{name}={value}" for name, value in plan.environment.items()]
            if variables:
                winreg.SetValueEx(key, "Environment", 0, winreg.REG_MULTI_SZ, variables)
            else:
                with contextlib.suppress(FileNotFoundError):
                    winreg.DeleteValue(key, "Environment")
        return missing

    def remove(self, name: str) -> None:
        with _opened(name, _DELETE) as service:
            if not _advapi.DeleteService(service):
                raise failure(name)

    def start(self, name: str) -> None:
        with _opened(name, _START) as service:
            if not _advapi.StartServiceW(service, 0, None):
                raise failure(name)

    def stop(self, name: str) -> None:
        with _opened(name, _STOP) as service:
            stopped = _advapi.ControlService(service, _CONTROL_STOP, byref(Status()))
            # A service that is stopping takes no other request.
            if not stopped and ctypes.get_last_error() not in (_NOT_ACTIVE, _CANNOT_ACCEPT):
                raise failure(name)

    def facts(self, name: str) -> ServiceFacts | None:
        try:
            with _opened(name, _QUERY_STATUS | _QUERY_CONFIG) as service:
                found, size = _StatusOfProcess(), _D()
                if not _advapi.QueryServiceStatusEx(service, 0, byref(found), sizeof(found), byref(size)):
                    raise failure(name)
                config = ctypes.create_string_buffer(8192)  # it is never larger. Source: QueryServiceConfigW
                if not _advapi.QueryServiceConfigW(service, config, len(config), byref(size)):
                    raise failure(name)
        except FileNotFoundError:
            return None
        known, status = _Config.from_buffer(config), found.status
        return ServiceFacts(
            state=_STATES.get(status.state, ServiceState.OTHER),
            pid=found.pid or None,
            exit_code=status.exit_code,
            own_code=status.own_code,
            progress=status.checkpoint,
            account=known.account or "",
            command=known.command or "",
        )

    def remember(self, name: str, record: ServiceRecord) -> None:
        service_records.remember(name, record)

    def forget(self, name: str) -> None:
        service_records.forget(name)

    def records(self) -> Mapping[str, ServiceRecord]:
        return service_records.records()

    def program_data(self) -> Path:
        return Path(os.environ.get("PROGRAMDATA") or r"C:\ProgramData")

    def share(self, path: Path, account: Account, *, may_write: bool) -> None:
        for each in _tree(path):
            is_directory = each.is_dir() and not each.is_symlink()
            access = security.shared_file(account.user, may_write=may_write, is_directory=is_directory)
            flags = winapi.FLAG_BACKUP_SEMANTICS | winapi.FLAG_OPEN_REPARSE_POINT
            handle = winapi.create_file(str(each), winapi.WRITE_DAC | winapi.WRITE_OWNER, flags=flags)
            try:
                security.set_access(handle, access, owner=True)
            finally:
                winapi.close(handle)

    def others_who_write(self, path: Path, account: Account) -> str:
        handle = winapi.create_file(str(path), winapi.READ_CONTROL, flags=winapi.FLAG_BACKUP_SEMANTICS)
        try:
            others = security.others_with_access(handle, security.FILE, security.CHANGES)
        finally:
            winapi.close(handle)
        # Windows itself and its installer own what came with it.
        others = [user for user in others if user not in (account.user, security.TRUSTED_INSTALLER)]
        return ", ".join(map(security.name_of, others))

    def run(self, name: str, on_control: Callable[[str], None], on_late: Callable[[str], None]) -> ServiceProcess:
        return ServiceInProcess(name, on_control, on_late)

    def report(self, source: str, kind: EventKind, number: int, text: str) -> None:
        event_log.report(source, kind, number, text)


def _installed(manager: int, plan: ServicePlan) -> int:
    """Create a service or change the one that exists; return its handle."""
    start = _AUTOMATIC if plan.starts_with_system else _BY_HAND
    command = subprocess.list2cmdline(plan.command)
    depends_on = ctypes.create_unicode_buffer("\0".join([*plan.depends_on, "", ""]))
    # A password of length 0 is that of accounts without one.
    account, password = plan.account.name, plan.password if plan.password is not None else ""
    service: int | None = _advapi.CreateServiceW(
        *(manager, plan.name, plan.display_name, _ALL, _OWN_PROCESS, start, _NORMAL_ERRORS, command),
        *(None, None, depends_on, account, password),
    )
    if service:
        return service
    if ctypes.get_last_error() != _EXISTS:
        raise failure(plan.name)
    service = _advapi.OpenServiceW(manager, plan.name, _ALL)
    if not service:
        raise failure(plan.name)
    changed = _advapi.ChangeServiceConfigW(
        *(service, _OWN_PROCESS, start, _NORMAL_ERRORS, command, None, None, depends_on),
        *(account, password, plan.display_name),
    )
    if not changed:
        error = failure(plan.name)
        _advapi.CloseServiceHandle(service)
        raise error
    return service


def _properties(plan: ServicePlan) -> Iterator[tuple[str, int, ctypes.Structure]]:
    """Yield the further properties of a service: the name for messages, its number, its value."""
    delays = [round(delay * 1000) for delay in plan.restart_delays_s]
    actions = (_Action * len(delays))(*[_Action(_ACTION_RESTART, delay) for delay in delays])
    failures = _FailureActions(round(plan.forget_failures_s), None, None, len(actions), actions)
    yield "its description", _DESCRIPTION, _Text(plan.description)
    yield "that it is started again after a failure", _FAILURE_ACTIONS, failures
    # Only the end of the process counts as a failure: a service that reports its end with an error stays stopped.
    yield "when it is started again", _FAILURE_FLAG, _Number(0)
    yield "how long the system waits for it when it shuts down", _PRESHUTDOWN, _Number(round(plan.shutdown_s * 1000))
    if plan.starts_with_system:
        yield "that it starts a little later than the system", _DELAYED, _Number(1)


def _set(service: int, level: int, value: ctypes.Structure) -> bool:
    """Set a property. Return False when the system does not know it."""
    if _advapi.ChangeServiceConfig2W(service, level, byref(value)):
        return True
    if ctypes.get_last_error() in _UNKNOWN:
        return False
    raise failure()


def _tree(path: Path) -> Iterator[Path]:
    yield path
    for directory, directories, files in os.walk(path):  # it does not follow links
        for name in (*directories, *files):
            yield Path(directory) / name


@contextmanager
def _manager(access: int) -> Iterator[int]:
    manager = _advapi.OpenSCManagerW(None, None, access)
    if not manager:
        raise failure()
    try:
        yield manager
    finally:
        _advapi.CloseServiceHandle(manager)


@contextmanager
def _opened(name: str, access: int) -> Iterator[int]:
    with _manager(_CONNECT) as manager:
        service = _advapi.OpenServiceW(manager, name, access)
        if not service:
            if ctypes.get_last_error() == _DOES_NOT_EXIST:
                raise FileNotFoundError(f"there is no service {name}")
            raise failure(name)
        try:
            yield service
        finally:
            _advapi.CloseServiceHandle(service)
