"""How the demo's gateway is started."""

from __future__ import annotations

from pathlib import Path

from mxgw_core.cli.demo.options import DemoOptions


def serve_arguments(options: DemoOptions, directory: Path, socket: Path, opcua_endpoint: str) -> list[str]:
    """Return the module to run and its arguments: a gateway on a Unix socket, everything else in `directory`."""
    backend = options.backend_settings(opcua_endpoint)
    settings: dict[str, object] = {
        "gateway.data_dir": directory / "data",
        "backends.default": "demo",
        **{f"backends.demo.{key}": value for key, value in backend.items()},
    }
    if options.dashboard:
        settings["plugins.enabled"] = "dashboard_tui"
        settings["plugins.dashboard_tui.local_role"] = "administrator"  # a gateway of one's own, on a private socket
    arguments = ["mxgw_core.cli.main", "serve", "--json", "--listen", f"unix:{socket}"]
    for key, value in settings.items():
        arguments += ["--set", f"{key}={value}"]
    return arguments
