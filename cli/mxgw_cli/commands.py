"""The list of mxgw's own commands, with one line of help for each; commands of plugins are not in it."""

from __future__ import annotations

# Key: section of the help. Value: commands with one line of help each. The lines are repeated here so that
# `mxgw --help` need not import the commands. A test compares each line with the short help of the command.
COMMANDS: dict[str, dict[str, str]] = {
    "Start here": {
        "demo": "See it work: a gateway, a session and live values.",
        "doctor": "Check this machine and these settings; each problem with its cure.",
        "serve": "Run a gateway.",
    },
    "Data": {
        "alarms": "List, follow or acknowledge the plant's alarms.",
        "browse": "Show what a backend offers, as a tree.",
        "read": "Read the current values of tags.",
        "stream": "Follow tags: one line per event, gaps included.",
        "write": "Write values and say what became of each.",
    },
    "Operation": {
        "backup": "Copy keys, audit log and settings into one file.",
        "bench": "Measure a gateway: how fast here, and is that well?",
        "config": "Check the settings, or show where each comes from.",
        "conformance": "Check that a client library keeps the rules of mxgw.",
        "drain": "End the gateway here in order; workers can wait for the next.",
        "plugins": "List installed, enabled and failed plugins.",
        "restore": "Put a backup onto a fresh data directory.",
        "service": "Run the gateway as a Windows service.",
        "sessions": "List, inspect or close the sessions of a gateway.",
    },
}

# Key: a command that a plugin of this distribution adds. Value: the plugin. It is named when it is not enabled; such a
# plugin is not loaded to ask it. A test compares this with what the plugins add.
PLUGINS_OF_COMMANDS = {
    "dashboard": "dashboard_tui",
    "keys": "acl",
    "operators": "acl",
    "tls": "acl",
    "top": "metrics",
}

EXAMPLES = [
    ("mxgw demo", "start here: nothing to install, nothing to configure"),
    ("mxgw serve", "run a gateway on 127.0.0.1:50051"),
    ("mxgw stream Tank_001.Level --json", "follow a tag, as JSON lines"),
    ("mxgw doctor", "find out why it does not work"),
]
