"""The keys that close a session or kill its worker. Only administrators have these keys, and must confirm first."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import ClassVar

from textual import work
from textual.binding import Binding, BindingType

from mxgw_dashboard_tui.tui.screens.base import BaseScreen
from mxgw_dashboard_tui.tui.screens.questions import ConfirmScreen
from mxgw_dashboard_tui.tui.source import Refused


class ActingScreen(BaseScreen):
    """A screen with keys that close one session, the `target`, or kill the worker of this session."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+x", "close_session", "Close", id="session.close", tooltip="End the session in order; asks first"),
        Binding("ctrl+k", "kill_worker", "Kill", id="session.kill", tooltip="Kill the session's worker; asks first"),
    ]

    @property
    def target(self) -> tuple[str, str] | None:
        """Id and name of the session on which the keys act; None when there is no such session."""
        raise NotImplementedError

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        del parameters
        if action in ("close_session", "kill_worker"):
            view = self.dashboard.showing.view
            # Operators with the role viewer do not have these keys, and do not see them in the footer.
            return bool(view is not None and view.is_administrator and not self.dashboard.source.is_recording)
        return True

    async def action_close_session(self) -> None:
        await self._ask_first("Close", "closed", self.dashboard.source.close_session)

    async def action_kill_worker(self) -> None:
        await self._ask_first("Kill the worker of", "killed", self.dashboard.source.kill_worker)

    async def _ask_first(self, doing: str, done: str, act: Callable[[str], Awaitable[None]]) -> None:
        if self.target is None:
            return
        session_id, name = self.target

        def answered(is_sure: bool | None) -> None:
            if is_sure:
                self._act(session_id, name, done, act)

        # This waits until the question is shown, so that the next key is sent to the question and not to this screen.
        await self.app.push_screen(ConfirmScreen(doing, session_id, name), answered)

    @work(exclusive=True, group="act")
    async def _act(self, session_id: str, name: str, done: str, act: Callable[[str], Awaitable[None]]) -> None:
        try:
            await act(session_id)
        except Refused as refusal:
            self.notify(str(refusal), title="Refused", severity="error", markup=False)
        else:
            self.notify(f"{name} is {done}", markup=False)
