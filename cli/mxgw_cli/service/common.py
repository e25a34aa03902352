"""What the commands below `mxgw service` share: the services of this machine, and refusals of the system in words.

This module imports little: the service itself must answer the system soon after its start, also on a busy machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mxgw_cli.shell import CliFailure
from mxgw_worker.platform import system_services
from mxgw_worker.platform.services import ServiceFacts, ServiceRecord, Services

# The service's own number for settings that it refuses. Source: sysexits.h, EX_CONFIG.
REFUSED_SETTINGS = 78


def windows_services() -> Services:
    """Return the services of this machine.

    Raises:
        CliFailure: this is not Windows.
    """
    services = system_services()
    if services is None:
        raise CliFailure(
            "`mxgw service` is for Windows; here systemd runs services: see docs/operations.md, As a service"
        )
    return services


@contextmanager
def as_failures(name: str) -> Iterator[None]:
    """Turn errors of the system into failures with a sentence. `name` is that of the service.

    Raises:
        CliFailure: the system has refused something.
    """
    try:
        yield
    except FileNotFoundError as error:
        if error.filename is not None:
            raise CliFailure(f"{error.filename}: {error.strerror}") from None
        raise not_installed(name) from None
    except PermissionError as error:
        raise CliFailure(
            f"Windows refuses it: {error.strerror or error}",
            hint="Run this in a terminal that an administrator opened.",
        ) from None
    except OSError as error:
        raise CliFailure(f"Windows refuses it: {error.strerror or error}") from None


def not_installed(name: str) -> CliFailure:
    """Return the failure of a command about a service that does not exist."""
    return CliFailure(f"the service {name} is not installed", hint="`mxgw service install` does it.")


def facts_of(services: Services, name: str) -> ServiceFacts:
    """Return what the system knows of the service.

    Raises:
        CliFailure: it is not installed.
    """
    facts = services.facts(name)
    if facts is None:
        raise not_installed(name)
    return facts


def record_of(services: Services, name: str) -> ServiceRecord:
    """Return what the installation has kept of the service.

    Raises:
        CliFailure: it was not installed by `mxgw service install`.
    """
    record = services.records().get(name)
    if record is None:
        raise CliFailure(
            f"the service {name} was not installed by mxgw", hint="`mxgw service install --name ...` installs one."
        )
    return record
