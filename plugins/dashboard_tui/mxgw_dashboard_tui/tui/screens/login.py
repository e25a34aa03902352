"""The login: asks for name and password, when the gateway demands a login."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual import events, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from mxgw_dashboard_tui.tui.source import Refused, Source


class NameInput(Input):
    """The input for the name. All keys that follow the enter key reach the input for the password."""

    async def _on_key(self, event: events.Key) -> None:
        focused = self.screen.focused
        if focused is self and event.key != "enter":
            await super()._on_key(event)
            return
        event.stop()
        event.prevent_default()
        if focused is self:
            # A binding of the enter key would run later, and the next keys would still be sent to this input.
            self.screen.set_focus(self.screen.query_one("#password"))
        elif focused is not None:
            focused.post_message(events.Key(event.key, event.character))


class LoginScreen(ModalScreen[None]):
    """Asks for name and password, and closes when the gateway has accepted them. No password is kept after the call."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "app.quit", "Quit", id="login.quit", tooltip="Leave the dashboard"),
    ]

    def __init__(self, source: Source, user: str, why: str) -> None:
        super().__init__()
        self._source = source
        self._user = user
        self._why = why

    def compose(self) -> ComposeResult:
        with Vertical(id="box"):
            yield Static(Text(f"Log in at {self._source.name}", style="bold"))
            yield Static(Text(self._why), id="why")
            yield NameInput(self._user, placeholder="name", id="user", max_length=128)
            yield Input(placeholder="password", password=True, id="password", max_length=1024)
            yield Static(Text("enter logs in, tab moves, escape quits"), classes="hint")

    def on_mount(self) -> None:
        self.query_one("#password" if self._user else "#user").focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        user = self.query_one("#user", Input).value
        password = event.input.value
        # The input is emptied before anything else runs, so that it has the password as briefly as possible.
        event.input.value = ""
        if user and password:
            self.query_one("#why", Static).update(Text("asking the gateway …"))
            self._login(user, password)

    @work(exclusive=True, group="login")
    async def _login(self, user: str, password: str) -> None:
        try:
            await self._source.login(user, password)
        except Refused as refusal:
            self.query_one("#why", Static).update(Text(f"✖ {refusal}", style="bold"))
            self.query_one("#password").focus()
        else:
            self.dismiss()
