"""Asks for a session's name before something irreversible is done to it."""

from __future__ import annotations

import re
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from mxgw_dashboard_tui.tui.alarms import short_id
from mxgw_dashboard_tui.tui.text import clean

_EASILY_TYPED = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._:-]{0,31}")


class ConfirmScreen(ModalScreen[bool]):
    """True once the word was typed; escape is no."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "no", "Cancel", id="confirm.no", tooltip="Change nothing"),
    ]

    def __init__(self, doing: str, session_id: str, name: str) -> None:
        super().__init__()
        self._doing = doing
        self._session_id = session_id
        self._name = name
        # A name that nobody can type, or that may be made to look like another, is no confirmation.
        self.word = name if _EASILY_TYPED.fullmatch(name) else short_id(session_id)

    def compose(self) -> ComposeResult:
        with Vertical(id="box"):
            yield Static(Text(f"{self._doing} session {self._name}?", style="bold"), id="question")
            yield Static(Text(f"id {clean(self._session_id)}"))
            yield Static(Text("Its client loses its subscriptions, and learns that an operator ended it."))
            yield Static(Text.assemble("Type ", (self.word, "bold"), " and press enter; escape changes nothing."))
            yield Input(id="word")

    def on_input_submitted(self, event: Input.Submitted) -> None:
        if event.value == self.word:
            self.dismiss(True)
        else:
            self.query_one("#question", Static).update(Text(f"That is not {self.word}. Nothing was done.", "bold"))

    def action_no(self) -> None:
        self.dismiss(False)
