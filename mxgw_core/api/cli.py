"""What a plugin's commands share with mxgw's own: help that ends with examples. For `mxgw_cli`; imports click only."""

from __future__ import annotations

from mxgw_core.cli.options import Command, Group, NumberRange, json_option

__all__ = ["Command", "Group", "NumberRange", "json_option"]
