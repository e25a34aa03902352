"""Asks for the comment that goes with an acknowledgement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from mxgw_dashboard_tui.tui.text import clean

# What AcknowledgeAlarm takes.
_LONGEST_COMMENT = 200
_NAMED = 3


class AcknowledgeScreen(ModalScreen[str | None]):
    """The comment, which may be empty; None: acknowledge nothing."""

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
            yield Input(placeholder="comment, for whoever reads it later", max_length=_LONGEST_COMMENT, id="comment")
            yield Static(Text("enter acknowledges, escape changes nothing"), classes="hint")

    def on_input_submitted(self, event: Input.Submitted) -> None:
        self.dismiss(event.value.strip())

    def action_no(self) -> None:
        self.dismiss(None)
