"""`mxgw serve`: runs a gateway in this process, and prints when it is ready or why it cannot start."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.metadata import version

import click

from mxgw_cli.loading import loaded
from mxgw_cli.one_key import ONE_KEY, OneKey, new_key
from mxgw_cli.options import SettingsChoice
from mxgw_cli.render import write_json
from mxgw_cli.shell import CliFailure, silence_stdout
from mxgw_core.api.errors import MxgwError, PluginError
from mxgw_core.exception_groups import innermost
from mxgw_core.logs import log_to_stderr
from mxgw_core.serving import end_in_time, serve_until_stopped
from mxgw_core.shells import is_closed_pipe

_LOOK_FOR_CAUSE = "`mxgw doctor` looks for the cause"


def serve_gateway(
    choice: SettingsChoice, listen: Sequence[str], *, use_uvloop: bool, as_json: bool, one_key: bool = False
) -> None:
    """Serve until SIGINT or SIGTERM arrives. Addresses in `listen` replace the setting gateway.listen.

    With `one_key`, every call needs an API key that is made now, and that the line on stdout has (see `one_key`).

    Raises:
        CliFailure: the gateway cannot start, or cannot continue; the text says why.
    """
    serves = False
    result = loaded(choice, {"gateway.listen": list(listen)} if listen else None)
    log_to_stderr(result.settings.gateway.log_level)
    key = new_key() if one_key else ""

    def announce(addresses: Sequence[str]) -> None:
        nonlocal serves
        serves = True
        try:
            if as_json:
                document = {"ready": True, "addresses": list(addresses), "pid": os.getpid()}
                write_json({**document, "api_key": key} if key else document)
            else:
                click.echo(f"mxgw {version('mxgw')} ready on {', '.join(addresses)}")
                sys.stdout.flush()
        except OSError as error:
            if not is_closed_pipe(error):
                raise
            # The program that started the gateway does not read its output. The gateway serves without it.
            silence_stdout()

    code = 1
    try:
        serve_until_stopped(result, use_uvloop=use_uvloop, on_ready=announce, own={ONE_KEY: OneKey(key)} if key else {})
        code = 0
    except PluginError as error:
        # The text has the cause; `mxgw doctor` runs no plugin's context, and so would find nothing.
        raise CliFailure(f"the gateway cannot {'go on' if serves else 'start'}: {error}") from None
    except MxgwError as error:
        raise CliFailure(f"the gateway cannot start: {error}", hint=f"{_LOOK_FOR_CAUSE}.") from None
    except OSError as error:
        raise CliFailure(
            f"the gateway cannot start: {error.strerror or error}",
            hint=f"{_LOOK_FOR_CAUSE}; --listen chooses another address.",
        ) from None
    except BaseExceptionGroup as group:
        cause = innermost(group)
        if isinstance(cause, MxgwError | OSError):
            what = "go on" if serves else "start"
            hint = "" if isinstance(cause, PluginError) else f"{_LOOK_FOR_CAUSE}."
            raise CliFailure(f"the gateway cannot {what}: {cause}", hint=hint) from None
        raise cause from None
    finally:
        end_in_time(code)  # a thread that a plugin has started can keep the process from ending
