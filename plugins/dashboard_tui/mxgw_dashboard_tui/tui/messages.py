"""What flows to the widgets: frozen values, posted to the app by whoever talks to the gateway."""

from __future__ import annotations

from dataclasses import dataclass

from textual.message import Message

from mxgw_dashboard_tui.tui.model import Link, View


@dataclass
class LinkChanged(Message):
    """The connection is another one now; `detail` says why in words."""

    link: Link
    detail: str


@dataclass
class ViewChanged(Message):
    """There is a newer view of the gateway."""

    view: View

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, ViewChanged)
