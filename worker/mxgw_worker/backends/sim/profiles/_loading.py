"""Finds the function that builds a profile."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from mxgw_worker.backends.sim.emitter import Emitter
from mxgw_worker.backends.sim.options import SimOptions

# Fills the emitter's galaxy and starts the timers of the profile. Raises BackendUnavailable when this is not possible.
Profile: TypeAlias = Callable[[Emitter, SimOptions], object]


def load_profile(name: str) -> Profile:
    """Return the function that builds a profile. `name` must be a name that the options have accepted."""
    match name:
        case "recording":
            from mxgw_worker.backends.sim.profiles.recording import build_recording

            return build_recording
        case "load":
            from mxgw_worker.backends.sim.profiles.load import build_load

            return build_load
        case _:
            from mxgw_worker.backends.sim.profiles.plant import build_plant

            return build_plant
