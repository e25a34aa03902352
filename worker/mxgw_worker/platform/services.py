"""Services of the operating system: what the platform layer offers where the platform has them, which is on Windows.

`mxgw_worker.platform.system_services()` returns the object that does it, or None.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


class ServiceState(enum.Enum):
    """What a service does at the moment."""

    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    OTHER = "other"  # pausing and the like, which services of mxgw do not do


class EventKind(enum.Enum):
    """How serious an entry of the system's event log is."""

    INFORMATION = "information"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Account:
    """An account of the system as which a service can run.

    Attributes:
        name: as the system wants it.
        user: its identifier, in the form of `mxgw_worker.platform.current_user`.
        needs_password: whether the service can be installed only with the password of the account.
    """

    name: str
    user: str
    needs_password: bool


@dataclass(frozen=True, slots=True)
class ServicePlan:
    """A service that is to be installed.

    Attributes:
        command: the program and its arguments.
        environment: variables that the service has besides those of the system.
        password: of the account, where it needs one.
        depends_on: names of services that are started first.
        starts_with_system: whether it starts by itself, shortly after the system; otherwise it is started by hand.
        restart_delays_s: after its first, second, third and each later failure it is started again after this time. A
            failure is the end of the process before it has reported that it is stopped.
        forget_failures_s: after this time without a failure, the next one counts as the first.
        shutdown_s: how long the system waits for the service when it shuts down.
    """

    name: str
    display_name: str
    description: str
    command: Sequence[str]
    environment: Mapping[str, str]
    account: Account
    depends_on: Sequence[str]
    starts_with_system: bool
    restart_delays_s: Sequence[float]
    forget_failures_s: float
    shutdown_s: float
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class ServiceFacts:
    """What the system knows of an installed service.

    Attributes:
        pid: of its process; None while it does not run.
        own_code: the number with which the service itself said why it stopped, if it did; otherwise 0.
        exit_code: the error of the system with which it stopped, 0 when it stopped in order or has not stopped.
        progress: changes while the service is starting or stopping.
    """

    state: ServiceState
    pid: int | None
    exit_code: int
    own_code: int
    progress: int
    account: str
    command: str


@dataclass(frozen=True, slots=True)
class ServiceRecord:
    """What the installation of a service of mxgw has left for later commands: its settings file, and its user."""

    settings: Path
    user: str


class ServiceProcess(Protocol):
    """The service that runs in this process. Any thread can call the methods."""

    def started(self, stop_limit_s: float) -> None:
        """Report that the service is ready. It may be asked to stop from now on, and may take this long for it."""

    def stopping(self) -> None:
        """Report that the service is stopping, for whatever reason."""

    def stopped(self, own_code: int = 0) -> None:
        """Report that the service has stopped; call this last. `own_code` says why, when it is not 0.

        A process that ends without this call has failed, and the system may start the service again.
        """


class Services(Protocol):
    """The services of this machine. Most methods need the rights of an administrator.

    Each raises OSError when the system refuses; PermissionError when the rights are missing, FileNotFoundError when the
    service does not exist.
    """

    def account(self, name: str, service: str) -> Account:
        """Return an account by the name that a person wrote; "" means an account of the service's own.

        Raises:
            LookupError: there is no such account.
        """

    def install(self, plan: ServicePlan) -> Sequence[str]:
        """Install a service, or change one that is installed. Return in words what this system could not set."""

    def remove(self, name: str) -> None:
        """Remove a service. One that runs disappears when it has stopped."""

    def start(self, name: str) -> None:
        """Begin to start a service."""

    def stop(self, name: str) -> None:
        """Ask a service to stop. Nothing happens when it does not run."""

    def facts(self, name: str) -> ServiceFacts | None:
        """Return what is known of a service; None when it is not installed."""

    def remember(self, name: str, record: ServiceRecord) -> None:
        """Keep the record of a service, and register it as a source of the event log."""

    def forget(self, name: str) -> None:
        """Remove what `remember` has kept."""

    def records(self) -> Mapping[str, ServiceRecord]:
        """Return the records of all services of mxgw on this machine, by name."""

    def program_data(self) -> Path:
        """Return the directory in which programs keep data for all users."""

    def share(self, path: Path, account: Account, *, may_write: bool) -> None:
        """Give a file, or a directory and everything in it, to the administrators; let an account use it, and nobody
        else. Links are not followed.
        """

    def others_who_write(self, path: Path, account: Account) -> str:
        """Return in words who can change a file or directory, except administrators and the account; "" if nobody."""

    def run(self, name: str, on_control: Callable[[str], None], on_late: Callable[[str], None]) -> ServiceProcess:
        """Run this process as a service: the system has started it for this purpose.

        `on_control` is called, in another thread, when the system wants the service to stop; its argument says why.
        `on_late` is called when the service does not get ready or does not stop in time.

        Raises:
            OSError: the system has not started this process as a service.
        """

    def report(self, source: str, kind: EventKind, number: int, text: str) -> None:
        """Write an entry to the system's event log. Nothing happens where this is not possible."""
