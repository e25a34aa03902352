"""Backend `sim`: a simulator that behaves as MXAccess does, surprises included."""

from mxgw_worker.backends.sim.backend import SimBackend

__all__ = ["SimBackend"]
