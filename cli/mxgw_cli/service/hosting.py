"""`mxgw service run`: the gateway as the service that the system has started, in this process.

The gateway runs in the main thread as under `mxgw serve`; the platform layer talks to the system in threads of its own.
When the system wants the service to stop, this process is asked to stop as by any other program. How it ends says what
the system does next: after a reported end nothing, after an end without a report it starts the service again.
"""

from __future__ import annotations

import enum
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from mxgw_cli.service.common import REFUSED_SETTINGS, as_failures, record_of, windows_services
from mxgw_cli.shell import CliFailure
from mxgw_core.exception_groups import innermost
from mxgw_core.printable import printable
from mxgw_worker.platform import make_directory, stop_this_process
from mxgw_worker.platform.services import EventKind, ServiceProcess, ServiceRecord, Services

if TYPE_CHECKING:
    from mxgw_core.config.loader import LoadedSettings

log = logging.getLogger(__name__)

_EVENT_CHARACTERS = 8000
FAILURE = 1


class Event(enum.IntEnum):
    """The numbers of the entries in the event log; docs/windows.md lists them."""

    STARTED = 1
    READY = 2
    STOPPING = 3
    STOPPED = 4
    REFUSED = 5
    FAILED = 6
    LATE = 7


def run_service(name: str) -> NoReturn:
    """Run the gateway as the service `name`. The process ends with the service.

    Raises:
        CliFailure: the system has not started this process as the service.
    """
    services = windows_services()
    record = record_of(services, name)
    host = _Host(services, name)
    host.run(record)


class _Host:
    """Runs the gateway and tells the system about it."""

    def __init__(self, services: Services, name: str) -> None:
        self._services = services
        self._name = name
        # Whether the service stops because somebody wants it, so that it must not be started again.
        self._is_wanted = False
        self._is_ready = False
        with as_failures(name):
            try:
                self._process: ServiceProcess = services.run(name, self._on_control, self._on_late)
            except OSError as error:
                raise CliFailure(
                    f"this is not the service: {error.strerror or error}",
                    hint="`mxgw service start` starts it; `mxgw serve` runs a gateway here.",
                ) from None

    def run(self, record: ServiceRecord) -> NoReturn:
        """Serve until the service is to stop, and end the process."""
        try:
            result = self._begin(record)
            self._serve(result)
        except Exception as error:
            log.exception("the service ends")
            self._end_with(FAILURE, f"{type(error).__name__}: {error}")

    def _begin(self, record: ServiceRecord) -> LoadedSettings:
        """Load the settings and begin the log."""
        from importlib.metadata import version

        what = f"mxgw {version('mxgw')} starts with {record.settings} (pid {os.getpid()})."
        self._report(EventKind.INFORMATION, Event.STARTED, what)
        # The gateway is imported only now that the system knows that this process runs.
        from mxgw_cli.loading import loaded
        from mxgw_cli.options import SettingsChoice
        from mxgw_cli.service.places import absolute_data_dir, log_file_in

        try:
            os.chdir(record.settings.parent)
            result = loaded(SettingsChoice(record.settings, {}))
            _log_to(log_file_in(absolute_data_dir(record.settings, result.settings)), result.settings.gateway.log_level)
        except CliFailure as failure:
            self._refuse(failure.message)
        except OSError as error:
            self._refuse(f"the service cannot use its files: {error.strerror or error}: {error.filename}")
        log.info("%s", what)
        return result

    def _serve(self, result: LoadedSettings) -> NoReturn:
        from mxgw_cli.service.places import stop_limit_s
        from mxgw_core.api.errors import SettingsError
        from mxgw_core.serving import serve_until_stopped

        def on_ready(addresses: Sequence[str]) -> None:
            self._is_ready = True
            text = f"mxgw is ready on {', '.join(addresses)}."
            log.info("%s", text)
            self._report(EventKind.INFORMATION, Event.READY, text)
            self._process.started(stop_limit_s(result.settings))

        try:
            serve_until_stopped(
                result, use_uvloop=False, on_ready=on_ready, on_stop=self._on_stop, leave=self._end_with
            )
        except Exception as error:
            cause = innermost(error)
            text = f"the gateway cannot {'go on' if self._is_ready else 'start'}: {_in_words(cause)}"
            # An error of the system behind it, for example that a port is taken, can be over at the next start.
            is_refusal = isinstance(cause, SettingsError) and not isinstance(cause.__cause__, OSError)
            if is_refusal and not self._is_ready:
                log.error("%s", text)  # noqa: TRY400  the text says everything about settings
                self._refuse(text)
            log.exception("%s", text)
            self._end_with(FAILURE, text)
        self._end_with(0, "")

    def _on_control(self, reason: str) -> None:
        self._is_wanted = True
        self._report(EventKind.INFORMATION, Event.STOPPING, f"mxgw drains, because {reason}.")
        stop_this_process()

    def _on_stop(self) -> None:
        # The request came from `_on_control`, or from another program, such as `mxgw drain`.
        self._is_wanted = True
        self._process.stopping()

    def _on_late(self, text: str) -> None:
        self._report(EventKind.ERROR, Event.LATE, f"{text}; its process ends now.")
        self._end_with(FAILURE, text)

    def _refuse(self, text: str) -> NoReturn:
        """End the service for a reason that does not change when it is started again."""
        self._report(EventKind.ERROR, Event.REFUSED, f"mxgw does not start: {text}")
        self._process.stopped(REFUSED_SETTINGS)
        _end(REFUSED_SETTINGS)

    def _end_with(self, code: int, text: str) -> NoReturn:
        """End the process. A service that somebody wanted to stop has stopped, whatever happened meanwhile."""
        if code == 0 or self._is_wanted:
            self._report(EventKind.INFORMATION, Event.STOPPED, "mxgw has stopped.")
            self._process.stopped()
        else:
            self._report(EventKind.ERROR, Event.FAILED, f"{text} (exit code {code}). Windows starts it again.")
        _end(code)

    def _report(self, kind: EventKind, event: Event, text: str) -> None:
        from mxgw_core.logs import without_credentials

        lines = (printable(without_credentials(line), 2000) for line in text.splitlines())
        self._services.report(self._name, kind, event, "\r\n".join(lines)[:_EVENT_CHARACTERS])


def _end(code: int) -> NoReturn:
    # The log is a file, to which each record is written at once. Nothing else is waited for: the system may start the
    # next process of the service as soon as the end is reported.
    os._exit(code)


def _log_to(path: Path, level: str) -> None:
    import faulthandler

    from mxgw_cli.service.log_file import LogFile
    from mxgw_core.logs import log_to_stderr

    make_directory(path.parent, parents=True, exist_ok=True)
    file = LogFile(path)
    log_to_stderr(level)
    logging.getLogger().addHandler(file)
    # When the process crashes, the log has the place.
    faulthandler.enable()


def _in_words(error: BaseException) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error) or type(error).__name__
