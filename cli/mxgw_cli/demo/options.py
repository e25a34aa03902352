"""The options of `mxgw demo`, and the settings of its gateway, which depend on the options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# A row of the recording covers 15 minutes. Played 3600 times faster, the recording has four rows per second.
DEFAULT_SPEED = 3600.0
DEFAULT_ITEMS = 100
DEFAULT_RATE = 1000.0


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """The options of `mxgw demo`.

    When `speed`, `items` or `rate` is None, a default is used. When `seconds` is None, the demo runs until Ctrl-C.
    `objects` and `tags` name what is shown of MXAccess.
    """

    backend: str
    seconds: float | None
    speed: float | None = None
    items: int | None = None
    rate: float | None = None
    as_json: bool = False
    dashboard: bool = False
    objects: Sequence[str] = ()
    tags: Sequence[str] = ()

    @property
    def effective_speed(self) -> float:
        return self.speed or DEFAULT_SPEED

    @property
    def title(self) -> str:
        """The source of the values in words, for the title of the screen."""
        match self.backend:
            case "plant":
                return "a simulated plant"
            case "load":
                return f"{self.items or DEFAULT_ITEMS:,} tags, {self.rate or DEFAULT_RATE:,.0f} events/s"
            case "mxaccess":
                return "MXAccess on this machine"
            case "opcua":
                return f"a steel plant through OPC UA, {self.effective_speed:,.0f} times faster"
            case _:
                return f"recorded data of a steel plant, {self.effective_speed:,.0f} times faster"

    def backend_settings(self, opcua_endpoint: str = "") -> dict[str, object]:
        """Return the settings for the section `[backends.demo]` of the gateway."""
        match self.backend:
            case "plant":
                return {"kind": "sim", "profile": "plant"}
            case "load":
                return {
                    "kind": "sim",
                    "profile": "load",
                    "items": self.items or DEFAULT_ITEMS,
                    "rate": self.rate or DEFAULT_RATE,
                }
            case "opcua":
                return {"kind": "opcua", "url": opcua_endpoint}
            case "mxaccess":
                return {"kind": "mxaccess"}
            case _:
                return {"kind": "sim", "profile": "recording", "speed": self.effective_speed, "source_time": "recorded"}


def gateway_settings(options: DemoOptions, opcua_endpoint: str, python: Path | None) -> dict[str, object]:
    """Return the settings of the demo's gateway, which only the demo can reach (`mxgw_cli.one_key`).

    `python` is that of its workers, None for the gateway's own.
    """
    backend = options.backend_settings(opcua_endpoint)
    settings: dict[str, object] = {
        "backends.default": "demo",
        **{f"backends.demo.{key}": value for key, value in backend.items()},
    }
    if python is not None:
        settings["workers.python"] = python
    if options.dashboard:
        settings["plugins.enabled"] = "dashboard_tui"
        # This role is safe, because only the demo and its dashboard can use the gateway.
        settings["plugins.dashboard_tui.local_role"] = "administrator"
    return settings
