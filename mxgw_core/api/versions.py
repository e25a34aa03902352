"""The version of the plugin API (docs/plugins/versions.md)."""

from __future__ import annotations

from typing import Final

# Within a major version nothing is removed and nothing changes its meaning. Additions raise the minor version.
API_VERSION: Final = "1.0"
