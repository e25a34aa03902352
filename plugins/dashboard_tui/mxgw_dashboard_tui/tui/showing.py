"""Keeps what the screens show: the state of the connection, and the newest view or the frozen view."""

from __future__ import annotations

from collections.abc import Callable

from mxgw.dashboard.v1 import dashboard_service_pb2 as pb
from mxgw_dashboard_tui.tui.model import Link, Model, View


class Showing:
    """The data that all screens show. The app updates it, and the screens read it.

    `clock` returns monotonic seconds, `wall` seconds since 1970.
    """

    def __init__(self, clock: Callable[[], float], wall: Callable[[], float], link_detail: str) -> None:
        self.clock = clock
        self.link, self.link_detail = Link.CONNECTING, link_detail
        self._wall = wall
        self._model = Model(clock, wall)
        self._frozen: tuple[float, View | None] | None = None
        # A number that changes at every `forget`. A screen that sees another number must clear what it has painted.
        self.generation = 0

    def take(self, snapshot: pb.WatchGatewayResponse) -> View:
        """Make the newest view from a gateway report, also while the screens are frozen; return the view."""
        return self._model.take(snapshot)

    def forget(self) -> None:
        """Forget all views, because perhaps another person logs in next."""
        self._model = Model(self.clock, self._wall)
        self._frozen = None
        self.generation += 1

    @property
    def view(self) -> View | None:
        """The view to paint: the frozen view while the screens are frozen, otherwise the newest view."""
        return self._frozen[1] if self._frozen is not None else self._model.view

    @property
    def newest(self) -> View | None:
        """The newest view, also while the screens are frozen. The banner shows how old this view is."""
        return self._model.view

    def age_of(self, view: View | None) -> float | None:
        """Return how many seconds ago a view arrived; None when there is no view."""
        return None if view is None else self.clock() - view.received_at

    def freeze(self) -> None:
        """Freeze the present view; if a view is frozen already, continue with the newest view."""
        self._frozen = (self.clock(), self._model.view) if self._frozen is None else None

    def thaw(self) -> None:
        """Continue with the newest view."""
        self._frozen = None

    @property
    def frozen_s(self) -> float | None:
        """For how many seconds the screens have been frozen; None while they are not frozen."""
        return self.clock() - self._frozen[0] if self._frozen is not None else None
