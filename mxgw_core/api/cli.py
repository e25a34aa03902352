"""Helpers for the commands that a plugin adds (hook `mxgw_cli`), so that they look like the commands of mxgw itself.

For example, the help of a command ends with examples, and `--json` prints JSON. A command that runs until it is stopped
uses `on_stop`.
"""

from __future__ import annotations

from mxgw_core.command_line import Command, Group, NumberRange, json_option
from mxgw_worker.platform import StopKind, StopRequest, on_stop, quoted

__all__ = ["Command", "Group", "NumberRange", "StopKind", "StopRequest", "json_option", "on_stop", "quoted"]
