"""Messages to the app, with frozen values; posted by the source when something arrives."""

from __future__ import annotations

from dataclasses import dataclass

from textual.message import Message

from mxgw_dashboard_tui.tui.model import Link, View


@dataclass
class LinkChanged(Message):
    """The state of the connection changed; `detail` has the reason in words."""

    link: Link
    detail: str


@dataclass
class ViewChanged(Message):
    """There is a newer view of the gateway."""

    view: View

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, ViewChanged)
