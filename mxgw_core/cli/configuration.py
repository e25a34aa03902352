"""Settings for commands that need them: loaded as the gateway loads them, problems told without a traceback."""

from __future__ import annotations

from collections.abc import Mapping

from mxgw_core.api.errors import SettingsError
from mxgw_core.cli.failures import CliFailure
from mxgw_core.cli.options import SettingsChoice
from mxgw_core.config.loader import LoadedSettings, load_settings


def loaded(choice: SettingsChoice, overrides: Mapping[str, object] | None = None) -> LoadedSettings:
    """Return the settings of `choice`, with `overrides` beneath those of the command line.

    Raises:
        CliFailure: with every problem on a line of its own.
    """
    try:
        return load_settings(choice.file, overrides={**(overrides or {}), **choice.overrides})
    except SettingsError as error:
        problems = str(error).splitlines()
        count = "a problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise CliFailure(
            f"the settings have {count}:\n  " + "\n  ".join(problems),
            hint="`mxgw config show` lists settings that can be loaded, with where each comes from; the names and "
            "ranges of all are in docs/configuration.md.",
        ) from None
