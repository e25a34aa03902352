"""What the screens show: the newest view or the frozen one, and the state of the connection."""

from __future__ import annotations

from collections.abc import Callable

from mxgw.dashboard.v1 import dashboard_service_pb2 as pb
from mxgw_dashboard_tui.tui.model import Link, Model, View


class Showing:
    """Read by every screen, written by the app. `clock` is monotonic seconds, `wall` seconds since 1970."""

    def __init__(self, clock: Callable[[], float], wall: Callable[[], float], link_detail: str) -> None:
        self.clock = clock
        self.link, self.link_detail = Link.CONNECTING, link_detail
        self._wall = wall
        self._model = Model(clock, wall)
        self._frozen: tuple[float, View | None] | None = None
        # Grows when everything is forgotten, so that each screen clears what it has painted.
        self.generation = 0

    def take(self, snapshot: pb.WatchGatewayResponse) -> View:
        """Take a snapshot, even while frozen; return its view."""
        return self._model.take(snapshot)

    def forget(self) -> None:
        """Forget all views, because the next operator may be another person."""
        self._model = Model(self.clock, self._wall)
        self._frozen = None
        self.generation += 1

    @property
    def view(self) -> View | None:
        """The view to paint: the newest, or the one that was frozen."""
        return self._frozen[1] if self._frozen is not None else self._model.view

    @property
    def newest(self) -> View | None:
        """The newest view, frozen or not; the banner uses it to report the connection."""
        return self._model.view

    def age_of(self, view: View | None) -> float | None:
        """Return how long ago a view arrived; None for no view."""
        return None if view is None else self.clock() - view.received_at

    def freeze(self) -> None:
        """Freeze the present view, or continue."""
        self._frozen = (self.clock(), self._model.view) if self._frozen is None else None

    def thaw(self) -> None:
        """Continue with the newest view."""
        self._frozen = None

    @property
    def frozen_s(self) -> float | None:
        """For how long the screen has been frozen; None while it is not."""
        return self.clock() - self._frozen[0] if self._frozen is not None else None
