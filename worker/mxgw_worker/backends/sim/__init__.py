"""Backend `sim`: a simulator that behaves as MXAccess does, including its surprises."""

from mxgw_worker.backends.sim.backend import SimBackend

__all__ = ["SimBackend"]
