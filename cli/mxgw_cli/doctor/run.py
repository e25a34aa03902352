"""`mxgw doctor`: makes all checks one after the other, and prints each result as soon as it is known."""

from __future__ import annotations

from collections.abc import Iterator

from mxgw_cli.doctor.directories import check_data_directory
from mxgw_cli.doctor.listening import check_exposure, check_listen
from mxgw_cli.doctor.machine import (
    check_clock,
    check_memory,
    check_open_files,
    check_python_of_workers,
    check_user,
    check_versions,
)
from mxgw_cli.doctor.report import Check, Report, failed, is_healthy, ok, skipped, warning
from mxgw_cli.doctor.tls import check_tls
from mxgw_cli.loading import failure_of, quiet
from mxgw_cli.options import SettingsChoice
from mxgw_cli.shell import SilentFailure, run
from mxgw_core.api.errors import MxgwError, SettingsError
from mxgw_core.checking import plugin_problems
from mxgw_core.config.loader import LoadedSettings, load_settings
from mxgw_core.config.models import LimitSettings
from mxgw_core.plugins import PluginHost, PluginState
from mxgw_core.printable import printable

SETTINGS_AREA = "Settings"


def examine(choice: SettingsChoice, *, with_backends: bool, as_json: bool) -> None:
    """Make all checks and print the results.

    Raises:
        SilentFailure: a check failed (exit code 1).
    """
    report = Report(as_json=as_json)
    try:
        result = load_settings(choice.file, overrides=choice.overrides)
    except SettingsError as error:
        for check in _machine([], LimitSettings()):
            report.add(check)
        for problem in str(error).splitlines():
            report.add(failed(SETTINGS_AREA, "problem", printable(problem, 500), "Correct it; then run doctor again."))
        report.add(skipped(SETTINGS_AREA, "the rest", "needs valid settings"))
    else:
        _examine(result, report, with_backends=with_backends)
    report.finish()
    if not is_healthy(report.checks):
        raise SilentFailure


def _examine(result: LoadedSettings, report: Report, *, with_backends: bool) -> None:
    settings = result.settings
    python = settings.workers.python
    # What another Python has for a backend, the backend's own worker says.
    kinds = [] if python is not None else [backend.kind or name for name, backend in settings.backends.items()]
    for check in _machine(kinds, settings.limits):
        report.add(check)
    python_fails = False
    if python is not None:
        report.waiting_for("starting the Python of the workers")
        check = check_python_of_workers(python)
        report.add(check)
        python_fails = not is_healthy([check])
    report.add(ok(SETTINGS_AREA, "settings", ", ".join(map(str, result.files)) or "no file: defaults only"))
    with quiet():
        host = PluginHost.load(settings, origins=result.origins, keep_going=True)
    for check in _plugins(host):
        report.add(check)
    if not any(record.state is PluginState.FAILED for record in host.records):
        with quiet():
            problems = plugin_problems(settings, host)
        for problem in problems:
            report.add(failed(SETTINGS_AREA, "problem", printable(problem, 500), "Correct it; then run doctor again."))
    for address in settings.gateway.listen:
        report.add(check_listen(address, settings.tls))
    if (exposure := check_exposure(settings, authenticated=host.implements("mxgw_authenticate"))) is not None:
        report.add(exposure)
    for check in [*check_data_directory(settings.gateway.data_dir), *check_tls(settings.tls)]:
        report.add(check)
    if with_backends and not python_fails:
        report.waiting_for("starting workers")
        run(lambda: _backends(result, report))
    else:
        why = "the workers' Python cannot run them" if python_fails else "left out as asked"
        report.add(skipped("Backends", ", ".join(settings.backends), why))


async def _backends(result: LoadedSettings, report: Report) -> None:
    from mxgw_cli.doctor.backends import AREA, check_backends

    try:
        with quiet():
            async for check in check_backends(result.settings):
                report.add(check)
    except (MxgwError, OSError) as error:
        report.add(
            failed(
                AREA, "private gateway", printable(str(error), 500), "Is the directory for temporary files writable?"
            )
        )


def _machine(kinds: list[str], limits: LimitSettings) -> Iterator[Check]:
    yield from check_versions(kinds)
    yield check_clock()
    yield check_open_files(limits)
    yield check_memory(limits)
    if (user := check_user()) is not None:
        yield user


def _plugins(host: PluginHost) -> Iterator[Check]:
    area = "Plugins"
    enabled = [record for record in host.records if record.state is not PluginState.AVAILABLE]
    if not enabled:
        yield ok(area, "none enabled", "the core alone serves one subscriber per session")
    for record in enabled:
        if record.state is PluginState.LOADED:
            access = ", decides about access" if record.controls_access else ""
            yield ok(area, record.name, f"{record.distribution} {record.version}{access}")
            continue
        check = failed if record.required else warning
        yield check(
            area,
            record.name,
            printable(record.detail, 500),
            f"Repair or reinstall it, or take {record.name!r} out of plugins.enabled.",
        )
    for answer in host.ask("mxgw_doctor"):
        if answer.error is not None:
            detail = f"it could not look: {failure_of('mxgw_doctor', answer.error)}"
            yield warning(area, answer.plugin, detail, "Correct that; then run doctor again.")
            continue
        for finding in answer.value:
            detail, cure = printable(finding.detail, 500), printable(finding.cure, 500)
            yield warning(area, f"{answer.plugin}: {printable(finding.title, 100)}", detail, cure)
