"""What the simulator simulates: one module per profile, imported only when it is asked for."""

from mxgw_worker.backends.sim.profiles._loading import Profile, load_profile

__all__ = ["Profile", "load_profile"]
