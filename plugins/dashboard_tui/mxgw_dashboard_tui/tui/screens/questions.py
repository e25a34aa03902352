"""The questions that an operator must answer before a session is ended or alarms are acknowledged."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from mxgw_dashboard_tui.tui.text import clean, short_id

_EASILY_TYPED = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._:-]{0,31}")
# The longest comment that AcknowledgeAlarm accepts, in characters.
_LONGEST_COMMENT = 200
# The question names at most this many of the alarms to acknowledge.
_NAMED = 3


class ConfirmScreen(ModalScreen[bool]):
    """Asks whether to end a session. The result is True if the operator types `word`, and False after escape."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "no", "Cancel", id="confirm.no", tooltip="Change nothing"),
    ]

    def __init__(self, doing: str, session_id: str, name: str) -> None:
        super().__init__()
        self._doing = doing
        self._session_id = session_id
        self._name = name
        # The word is the session's name. If the name is hard to type, or could look like another name, the word is the
        # beginning of the session id.
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


class AcknowledgeScreen(ModalScreen[str | None]):
    """Asks for a comment. The result is the comment, which can be empty; None means not to acknowledge."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "no", "Cancel", id="acknowledge.no", tooltip="Acknowledge nothing"),
    ]

    def __init__(self, references: Sequence[str]) -> None:
        super().__init__()
        self._references = references

    def compose(self) -> ComposeResult:
        number = len(self._references)
        question = "Acknowledge this alarm?" if number == 1 else f"Acknowledge these {number} alarms?"
        with Vertical(id="box"):
            yield Static(Text(question, style="bold"), id="question")
            for reference in self._references[:_NAMED]:
                yield Static(Text(clean(reference, 60)))
            if number > _NAMED:
                yield Static(Text(f"and {number - _NAMED} more"))
            yield Input(
                placeholder="a comment, recorded with the acknowledgement", max_length=_LONGEST_COMMENT, id="comment"
            )
            yield Static(Text("enter acknowledges, escape changes nothing"), classes="hint")

    def on_input_submitted(self, event: Input.Submitted) -> None:
        self.dismiss(event.value.strip())

    def action_no(self) -> None:
        self.dismiss(None)
