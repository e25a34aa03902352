"""The kinds of plugins that `mxgw plugins new` writes."""

from __future__ import annotations

import enum


class PluginKind(enum.Enum):
    """What a new plugin does. Each kind has a directory of templates with the name that is its value here."""

    POLICY = "policy"
    AUTH = "auth"
    HISTORY = "history"
    SERVICE = "service"
    BACKEND = "backend"

    @property
    def is_backend(self) -> bool:
        """Whether it runs in the worker, and not in the gateway."""
        return self is PluginKind.BACKEND
