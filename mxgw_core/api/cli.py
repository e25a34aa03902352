"""Helpers for the commands that a plugin adds (hook `mxgw_cli`), so that they look like the commands of mxgw itself.

For example, the help of a command ends with examples, and `--json` prints JSON.
"""

from __future__ import annotations

from mxgw_core.command_line import Command, Group, NumberRange, address_help, check_address, json_option

__all__ = ["Command", "Group", "NumberRange", "address_help", "check_address", "json_option"]
