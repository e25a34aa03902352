"""The textual messages that are posted to the app when the source reports something."""

from __future__ import annotations

from dataclasses import dataclass

from textual.message import Message

from mxgw_dashboard_tui.tui.model import Link, View


@dataclass
class LinkChanged(Message):
    """The state of the connection changed; `detail` says why, as text for people."""

    link: Link
    detail: str


@dataclass
class ViewChanged(Message):
    """A newer view of the gateway exists."""

    view: View

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, ViewChanged)
