"""What the commands of a plugin (hook `mxgw_cli`) share with mxgw's own: help that ends with examples, `--json`."""

from __future__ import annotations

from mxgw_core.command_line import Command, Group, NumberRange, json_option

__all__ = ["Command", "Group", "NumberRange", "json_option"]
