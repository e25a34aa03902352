"""The options that several commands share: which gateway to connect to, and which settings to read.

This module imports click only, because `mxgw --help` imports it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from mxgw_core.command_line import NumberRange, address_help, check_address

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_TARGET = "127.0.0.1:50051"
# The prefix is not `MXGW_`, because every variable with that prefix must be the name of a setting.
ENV_PREFIX = "MXGWCLI_"
_GATEWAY_NAMES = ("target", "ca", "cert", "key", "api_key_file", "timeout")


@dataclass(frozen=True, slots=True)
class SettingsChoice:
    """The settings that a command reads: the usual files, then `file` if it is not None, then `overrides`."""

    file: Path | None
    overrides: dict[str, str]


@dataclass(frozen=True, slots=True)
class GatewayTarget:
    """The gateway that a command connects to, and the credentials. The API key is read only when connecting."""

    target: str
    ca: Path | None
    certificate: Path | None
    private_key: Path | None
    api_key_file: Path | None
    timeout_s: float
    # The key itself, of a gateway that the command has started; "" for every other gateway.
    api_key: str = field(default="", repr=False)


def settings_options(function: F) -> F:
    """Add the options `--settings` and `--set`; the command gets both as its parameter `settings: SettingsChoice`.

    Values that were given before the name of the command (`mxgw --set ... serve`) are included.
    """
    import functools

    @settings_parameters(show_envvar=True)
    @functools.wraps(function)
    def with_settings(*args: Any, settings_file: Path | None, assignments: dict[str, str], **kwargs: Any) -> Any:
        before = chosen_before(click.get_current_context().find_root())
        choice = SettingsChoice(settings_file or before.file, {**before.overrides, **assignments})
        return function(*args, settings=choice, **kwargs)

    return with_settings  # type: ignore[return-value]  # click decorators do not keep the type of the function


def settings_parameters(*, show_envvar: bool = False) -> Callable[[F], F]:
    """Add the options `--settings` and `--set`, as the command's parameters `settings_file` and `assignments`."""
    file = click.option(
        "--settings",
        "settings_file",
        type=click.Path(path_type=Path, dir_okay=False),
        envvar=ENV_PREFIX + "SETTINGS",
        show_envvar=show_envvar,
        metavar="FILE",
        help="Settings file to read on top of settings.toml.",
    )
    values = click.option(
        "--set",
        "assignments",
        multiple=True,
        metavar="KEY=VALUE",
        callback=_assignments,
        help="Override one setting, for example limits.sessions=8. Not for secrets: others can read a command line.",
    )
    return lambda function: file(values(function))


def chosen_before(root: click.Context) -> SettingsChoice:
    """Return the values of `--settings` and `--set` that were given before the name of the command.

    `root` is the click context of `mxgw`.
    """
    return SettingsChoice(root.params.get("settings_file"), root.params.get("assignments") or {})


def _assignments(context: click.Context, parameter: click.Parameter, values: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in values:
        key, sign, value = text.partition("=")
        if not sign or not key.strip():
            raise click.BadParameter(f"{text!r} is not KEY=VALUE", context, parameter)
        found[key.strip()] = value
    return found


def gateway_options(function: F) -> F:
    """Add the options for connecting to a gateway; the command gets them as its parameter `gateway: GatewayTarget`.

    When a subcommand has none of these options, the options that were given to its group apply.
    """
    import functools

    file = click.Path(path_type=Path, dir_okay=False)

    @click.option(
        "--gateway",
        "target",
        default=DEFAULT_TARGET,
        envvar=ENV_PREFIX + "GATEWAY",
        show_default=True,
        show_envvar=True,
        metavar="TARGET",
        callback=check_address,
        help=address_help("of the gateway."),
    )
    @click.option("--ca", type=file, envvar=ENV_PREFIX + "CA", metavar="FILE", help="PEM file of the CA to trust: TLS.")
    @click.option("--cert", type=file, envvar=ENV_PREFIX + "CERT", metavar="FILE", help="Client certificate (PEM).")
    @click.option("--key", type=file, envvar=ENV_PREFIX + "KEY", metavar="FILE", help="Its private key (PEM).")
    @click.option(
        "--api-key-file",
        type=file,
        envvar=ENV_PREFIX + "API_KEY_FILE",
        metavar="FILE",
        help="File with the API key; or put the key itself into the environment as MXGWCLI_API_KEY.",
    )
    @click.option(
        "--timeout",
        type=NumberRange(min=0.1, max=3600),
        default=10.0,
        envvar=ENV_PREFIX + "TIMEOUT",
        show_default=True,
        metavar="SECONDS",
        help="How long to wait for an answer.",
    )
    @functools.wraps(function)
    def with_gateway(
        *args: Any,
        target: str,
        ca: Path | None,
        cert: Path | None,
        key: Path | None,
        api_key_file: Path | None,
        timeout: float,
        **kwargs: Any,
    ) -> Any:
        if (cert is None) != (key is None):
            raise click.UsageError("--cert and --key belong together: give both or none.")
        if cert is not None and ca is None:
            raise click.UsageError("--cert and --key are for TLS: name the CA to trust with --ca.")
        context = click.get_current_context()
        sources = [context.get_parameter_source(name) for name in _GATEWAY_NAMES]
        if ParameterSource.COMMANDLINE in sources or not isinstance(context.obj, GatewayTarget):
            context.obj = GatewayTarget(target, ca, cert, key, api_key_file, timeout)
        # Otherwise `context.obj` stays as it is: click has copied the gateway of the command's group to this context.
        return function(*args, gateway=context.obj, **kwargs)

    return with_gateway  # type: ignore[return-value]  # click decorators do not keep the type of the function


def was_set_before(name: str) -> bool:
    """Return whether the flag `name` was given to the group of the present subcommand, before the subcommand's name."""
    parent = click.get_current_context().parent
    return parent is not None and bool(parent.params.get(name))


def api_key_from_environment() -> str | None:
    """Return the API key in the environment variable MXGWCLI_API_KEY; None when it is not set."""
    return os.environ.get(ENV_PREFIX + "API_KEY") or None
